"""Records scattered into a dense block of the series, value[step, node].

One pass over the records in any order, by one aggregation rule. What cannot be placed is counted
by cause.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from threading import Lock
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from flowpatch.errors import RecordError
from flowpatch.sources.aggregation import Aggregate
from flowpatch.sources.contract import (
    NODE_WITHOUT_COORDINATES,
    UNKNOWN_NODE,
    CellBlock,
    RecordBlock,
)

if TYPE_CHECKING:
    from flowpatch.series.buckets import Buckets


@dataclass(frozen=True)
class RecordCounts:
    """Where the records went: `used`, or the one cause for which each other was left out.

    `repeated` counts the used ones that share their (step, node) with an earlier record.
    """

    read: int = 0
    used: int = 0
    repeated: int = 0
    without_time: int = 0
    out_of_period: int = 0
    unknown_node: int = 0
    node_without_coordinates: int = 0
    not_a_number: int = 0
    null_value: int = 0

    def __add__(self, other: "RecordCounts") -> "RecordCounts":
        return RecordCounts(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )

    @property
    def dropped(self) -> dict[str, int]:
        """Records lost to faults in the data, by cause.

        A period and a null value are the user's own choice, so what they leave out is no fault.
        """
        causes = ("without_time", "unknown_node", "node_without_coordinates", "not_a_number")
        return {cause: getattr(self, cause) for cause in causes}

    def check_dropped_share(self, limit: float) -> None:
        """Refuses a build that would go on quietly without much of its data.

        Records out of the period count for nothing: many of them would hide a bad period.

        Raises:
            RecordError: more than `limit` of the records were dropped.
        """
        dropped, asked = sum(self.dropped.values()), self.read - self.out_of_period
        if dropped > limit * asked:
            raise RecordError(
                f"{dropped:,} of {asked:,} records cannot be used ({dropped / asked:.1%}): "
                f"{list_causes(self.dropped)}. Allowed: {limit:.1%}. Mend the "
                "records or the node table, or allow more with --max-dropped-share."
            )


def list_causes(causes: Mapping[str, int]) -> str:
    """The causes that dropped any record, for a message."""
    found = [f"{count:,} {cause.replace('_', ' ')}" for cause, count in causes.items() if count]
    return ", ".join(found) or "none dropped"


def _check_float32(largest: float) -> None:
    with np.errstate(over="ignore"):
        rounded = np.float32(largest)
    if np.isinf(rounded):
        raise RecordError(
            f"A value of {largest:.3g} is too large for a float32 "
            f"({np.finfo(np.float32).max:.3g} at most). Check --value-column and --aggregate."
        )


class Scatter:
    """Gathers records into stretches of up to S steps and N nodes by one aggregation rule.

    `many` says that so many records will come, over all stretches, that compiled loops pay.
    """

    def __init__(
        self,
        steps: int,
        nodes: int,
        aggregate: Aggregate,
        null_value: float | None = None,
        *,
        many: bool = False,
    ) -> None:
        self._shape, self._aggregate = (steps, nodes), aggregate
        with np.errstate(over="ignore"):  # Beyond float32 it becomes inf, which no record holds.
            self._null_value = np.float32(np.nan if null_value is None else null_value)
        self._many, self._threads = many, 1
        self._buckets: Buckets | None = None
        self._making_buckets = Lock()
        self._cells: _Cells | None = None
        self._counts = RecordCounts()

    def share(self, threads: int) -> None:
        """Blocks of many records will come from so many threads at a time."""
        self._threads = threads

    def add(self, block: RecordBlock | CellBlock, thread: int = 0) -> int:
        """Places a block, counts the records that have no place; returns how many there were.

        `thread` is the number of the one that calls, where several do.
        """
        if self._many and self._aggregate != "last" and isinstance(block, RecordBlock):
            return self._add_many(block, thread)
        before = self._counts.read
        if isinstance(block, CellBlock):
            self._add_cells(block)
        else:
            self._add_records(block)
        return self._counts.read - before

    def _add_many(self, block: RecordBlock, thread: int) -> int:
        with self._making_buckets:
            if self._buckets is None:
                # Imported here: few records need not wait for the compiler.
                from flowpatch.series.buckets import Buckets

                cells = self._shape[0] * self._shape[1]
                self._buckets = Buckets(cells, self._aggregate, self._null_value, self._threads)
        self._buckets.add(block, self._shape[1], thread)
        return len(block.step)

    def _add_cells(self, block: CellBlock) -> None:
        known, records = block.node >= 0, block.used + block.not_a_number + block.null_value
        self._counts += RecordCounts(
            read=int(records.sum()),
            used=int(block.used[known].sum()),
            unknown_node=int(records[block.node == UNKNOWN_NODE].sum()),
            node_without_coordinates=int(records[block.node == NODE_WITHOUT_COORDINATES].sum()),
            not_a_number=int(block.not_a_number[known].sum()),
            null_value=int(block.null_value[known].sum()),
        )
        chosen = known & (block.used > 0)
        cell = block.step[chosen] * self._shape[1] + block.node[chosen]
        self._plain.add_cells(cell, block.value[chosen], block.used[chosen])

    def _add_records(self, block: RecordBlock) -> None:
        known = block.node >= 0
        number = ~np.isnan(block.value)
        null = block.value == self._null_value
        placed = known & number & ~null
        self._counts += RecordCounts(
            read=len(placed),
            used=int(placed.sum()),
            unknown_node=int((block.node == UNKNOWN_NODE).sum()),
            node_without_coordinates=int((block.node == NODE_WITHOUT_COORDINATES).sum()),
            not_a_number=int((known & ~number).sum()),
            null_value=int((known & null).sum()),
        )
        # A whole block is the usual case, and a slice costs it no copy.
        chosen = slice(None) if placed.all() else placed
        cell = block.step[chosen] * self._shape[1] + block.node[chosen]
        instant_ms = None if block.instant_ms is None else block.instant_ms[chosen]
        self._plain.add(cell, block.value[chosen], instant_ms)

    @property
    def _plain(self) -> "_Cells":
        if self._cells is None:
            self._cells = _RULES[self._aggregate](self._shape[0] * self._shape[1])
        return self._cells

    def finish(self, steps: int | None = None) -> tuple[NDArray[np.float32], RecordCounts]:
        """(steps, N) values of the first steps, by default of all S, NaN where no record fell, and
        the counts by cause; the next stretch begins. The values stand until the stretch after the
        next is finished.

        Raises:
            RecordError: a value is too large for a float32.
        """
        shape = (self._shape[0] if steps is None else steps, self._shape[1])
        cells = shape[0] * shape[1]
        if self._buckets is None:
            values = self._plain.values()[:cells]
            filled = values.size - int(np.isnan(values).sum())
        else:
            counted = self._buckets.counted()
            self._counts += RecordCounts(read=sum(counted.values()), **counted)
            values, filled, largest = self._buckets.finish(cells)
            _check_float32(largest)
        counts = replace(self._counts, repeated=self._counts.used - filled)
        self._cells, self._counts = None, RecordCounts()
        return values.reshape(shape), counts


class _Cells(Protocol):
    """C cells under one rule; records arrive in any order."""

    def add(
        self,
        cell: NDArray[np.int64],
        value: NDArray[np.float32],
        instant_ms: NDArray[np.int64] | None,
    ) -> None: ...

    def add_cells(
        self, cell: NDArray[np.int64], value: NDArray[np.float64], records: NDArray[np.int64]
    ) -> None:
        """Cells that are aggregated already: each comes once, and in no other way."""

    def values(self) -> NDArray[np.float32]: ...


class _Sum:
    def __init__(self, cells: int) -> None:
        self._total = np.zeros(cells, dtype=np.float64)
        self._records = np.zeros(cells, dtype=np.int32)

    def add(
        self,
        cell: NDArray[np.int64],
        value: NDArray[np.float32],
        instant_ms: NDArray[np.int64] | None,  # noqa: ARG002
    ) -> None:
        np.add.at(self._total, cell, value.astype(np.float64))
        np.add.at(self._records, cell, np.int32(1))

    def add_cells(
        self, cell: NDArray[np.int64], value: NDArray[np.float64], records: NDArray[np.int64]
    ) -> None:
        self._total[cell] = value
        self._records[cell] = records

    def values(self) -> NDArray[np.float32]:
        values = np.where(self._records > 0, self._combine(), np.nan)
        _check_float32(float(np.nanmax(np.abs(values), initial=0)))
        return values.astype(np.float32)

    def _combine(self) -> NDArray[np.float64]:
        return self._total


class _Mean(_Sum):
    def _combine(self) -> NDArray[np.float64]:
        return self._total / np.maximum(self._records, 1)


class _Max:
    def __init__(self, cells: int) -> None:
        self._values = np.full(cells, np.nan, dtype=np.float32)

    def add(
        self,
        cell: NDArray[np.int64],
        value: NDArray[np.float32],
        instant_ms: NDArray[np.int64] | None,  # noqa: ARG002
    ) -> None:
        np.fmax.at(self._values, cell, value)

    def add_cells(
        self,
        cell: NDArray[np.int64],
        value: NDArray[np.float64],
        records: NDArray[np.int64],  # noqa: ARG002
    ) -> None:
        self._values[cell] = value.astype(np.float32)

    def values(self) -> NDArray[np.float32]:
        return self._values


class _Last:
    def __init__(self, cells: int) -> None:
        self._values = np.full(cells, np.nan, dtype=np.float32)
        self._instant_ms = np.full(cells, np.iinfo(np.int64).min)

    def add(
        self,
        cell: NDArray[np.int64],
        value: NDArray[np.float32],
        instant_ms: NDArray[np.int64] | None,
    ) -> None:
        if instant_ms is None:
            raise ValueError("the aggregate 'last' needs the instants of its records")
        order = np.lexsort((value, instant_ms, cell))
        cell, value, instant_ms = cell[order], value[order], instant_ms[order]
        latest = np.append(cell[1:] != cell[:-1], True) if len(cell) else order.astype(bool)
        cell, value, instant_ms = cell[latest], value[latest], instant_ms[latest]
        known_ms, known = self._instant_ms[cell], self._values[cell]
        newer = (instant_ms > known_ms) | ((instant_ms == known_ms) & (value > known))
        self._instant_ms[cell[newer]] = instant_ms[newer]
        self._values[cell[newer]] = value[newer]

    def add_cells(
        self,
        cell: NDArray[np.int64],
        value: NDArray[np.float64],
        records: NDArray[np.int64],  # noqa: ARG002
    ) -> None:
        self._values[cell] = value.astype(np.float32)

    def values(self) -> NDArray[np.float32]:
        return self._values


_RULES: dict[Aggregate, Callable[[int], _Cells]] = {
    "mean": _Mean,
    "sum": _Sum,
    "max": _Max,
    "last": _Last,
}

CELL_BYTES: dict[Aggregate, int] = {"mean": 28, "sum": 28, "max": 8, "last": 16}
"""Peak bytes a cell while a block is gathered, the finished values included."""
