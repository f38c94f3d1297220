"""Records scattered into a dense block of the series, value[step, node].

One pass over the records in any order, by one aggregation rule. What cannot be placed is counted
by cause.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

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


FINISHED_CELLS = 2**18
"""Cells whose sums become values at a time."""

DayCounts = NDArray[np.int64]
"""(D, C) records of each day that went each way of `COUNTED_BY_DAY`."""

COUNTED_BY_DAY = (
    "read",
    "used",
    "unknown_node",
    "node_without_coordinates",
    "not_a_number",
    "null_value",
)


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

    @classmethod
    def of_days(cls, counts: DayCounts, observed: int) -> "RecordCounts":
        """The records of all days together, which fill so many `observed` cells."""
        found = dict(zip(COUNTED_BY_DAY, counts.sum(axis=0).tolist(), strict=True))
        return cls(**found, repeated=found["used"] - observed)

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

    They are counted day by day, a day being `day_steps` long, by default the whole stretch. `many`
    says that so many records will come, over all stretches, that compiled loops pay.
    """

    def __init__(
        self,
        steps: int,
        nodes: int,
        aggregate: Aggregate,
        null_value: float | None = None,
        *,
        day_steps: int | None = None,
        many: bool = False,
    ) -> None:
        self._shape, self._aggregate = (steps, nodes), aggregate
        self._day_steps = day_steps or steps
        with np.errstate(over="ignore"):  # Beyond float32 it becomes inf, which no record holds.
            self._null_value = np.float32(np.nan if null_value is None else null_value)
        self._many, self._threads = many, 1
        self._buckets: Buckets | None = None
        self._making_buckets = Lock()
        self._cells: _Cells | None = None
        self._counts = self._nothing_counted()

    def share(self, threads: int) -> None:
        """Blocks of many records will come from so many threads at a time."""
        self._threads = threads

    def add(self, block: RecordBlock | CellBlock, thread: int = 0) -> int:
        """Places a block, counts the records that have no place; returns how many there were.

        `thread` is the number of the one that calls, where several do.
        """
        if self._many and self._aggregate != "last" and isinstance(block, RecordBlock):
            return self._add_many(block, thread)
        day = block.step // self._day_steps
        if isinstance(block, CellBlock):
            return self._add_cells(block, day)
        return self._add_records(block, day)

    def _add_many(self, block: RecordBlock, thread: int) -> int:
        with self._making_buckets:
            if self._buckets is None:
                # Imported here: few records need not wait for the compiler.
                from flowpatch.series.buckets import Buckets

                self._buckets = Buckets(
                    self._shape, self._day_steps, self._aggregate, self._null_value, self._threads
                )
        self._buckets.add(block, thread)
        return len(block.step)

    def _add_cells(self, block: CellBlock, day: NDArray[np.int64]) -> int:
        known, records = block.node >= 0, block.used + block.not_a_number + block.null_value
        self._count(
            day,
            read=records,
            used=np.where(known, block.used, 0),
            unknown_node=np.where(block.node == UNKNOWN_NODE, records, 0),
            node_without_coordinates=np.where(block.node == NODE_WITHOUT_COORDINATES, records, 0),
            not_a_number=np.where(known, block.not_a_number, 0),
            null_value=np.where(known, block.null_value, 0),
        )
        chosen = known & (block.used > 0)
        cell = block.step[chosen] * self._shape[1] + block.node[chosen]
        self._plain.add_cells(cell, block.value[chosen], block.used[chosen])
        return int(records.sum())

    def _add_records(self, block: RecordBlock, day: NDArray[np.signedinteger[Any]]) -> int:
        known = block.node >= 0
        number = ~np.isnan(block.value)
        null = block.value == self._null_value
        placed = known & number & ~null
        self._count(
            day,
            read=np.ones(len(placed), dtype=np.bool_),
            used=placed,
            unknown_node=block.node == UNKNOWN_NODE,
            node_without_coordinates=block.node == NODE_WITHOUT_COORDINATES,
            not_a_number=known & ~number,
            null_value=known & null,
        )
        # A whole block is the usual case, and a slice costs it no copy.
        chosen = slice(None) if placed.all() else placed
        cell = block.step[chosen].astype(np.int64) * self._shape[1] + block.node[chosen]
        instant_ms = None if block.instant_ms is None else block.instant_ms[chosen]
        self._plain.add(cell, block.value[chosen], instant_ms)
        return len(placed)

    def _count(self, day: NDArray[np.signedinteger[Any]], **records: NDArray[Any]) -> None:
        """Adds, for each cause, the (K,) records of each entry to those of its (K,) day."""
        for cause, number in records.items():
            column = self._counts[:, COUNTED_BY_DAY.index(cause)]
            if len(column) == 1:
                column += number.sum()
            elif number.any():
                column += np.bincount(day, number, len(column)).astype(np.int64)

    def _nothing_counted(self) -> DayCounts:
        days = -(-self._shape[0] // self._day_steps)
        return np.zeros((days, len(COUNTED_BY_DAY)), dtype=np.int64)

    @property
    def _plain(self) -> "_Cells":
        if self._cells is None:
            self._cells = _RULES[self._aggregate](self._shape[0] * self._shape[1])
        return self._cells

    def finish(self, steps: int | None = None) -> tuple[NDArray[np.float32], DayCounts]:
        """(steps, N) values of the first steps, by default of all S, NaN where no record fell, and
        the counts of their days by cause; the next stretch begins. The values stand until the
        next stretch is finished.

        Raises:
            RecordError: a value is too large for a float32.
        """
        shape = (self._shape[0] if steps is None else steps, self._shape[1])
        if self._buckets is None:
            values = self._plain.values()[: shape[0] * shape[1]].reshape(shape)
        else:
            self._counts += self._buckets.counted()
            flat, largest = self._buckets.finish(shape[0] * shape[1])
            _check_float32(largest)
            values = flat.reshape(shape)
        counts = self._counts[: -(-shape[0] // self._day_steps)]
        self._cells, self._counts = None, self._nothing_counted()
        return values, counts


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
        values = np.empty(len(self._total), dtype=np.float32)
        # Some cells at a time: whole arrays would take several times as much as the sums.
        for first in range(0, len(values), FINISHED_CELLS):
            cells = slice(first, first + FINISHED_CELLS)
            found = self._combine(self._total[cells], self._records[cells])
            found = np.where(self._records[cells] > 0, found, np.nan)
            _check_float32(float(np.nanmax(np.abs(found), initial=0)))
            values[cells] = found
        return values

    def _combine(
        self,
        total: NDArray[np.float64],
        records: NDArray[np.int32],  # noqa: ARG002
    ) -> NDArray[np.float64]:
        return total


class _Mean(_Sum):
    def _combine(
        self, total: NDArray[np.float64], records: NDArray[np.int32]
    ) -> NDArray[np.float64]:
        return total / np.maximum(records, 1)


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

CELL_BYTES: dict[Aggregate, int] = {"mean": 28, "sum": 28, "max": 16, "last": 16}
"""Bytes a cell by which stretches are planned: at least what is held at the peak, the finished
values included, which is 16 for every rule where records are many."""
