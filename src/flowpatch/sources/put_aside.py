"""Records put aside in one file while their period is not yet known, to be taken up day by day.

A row is 12 bytes: second of the day, position in the node table, value. The rows of one day lie in
segments of which memory holds the places alone, so many records cost no memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowpatch.errors import SourceError
from flowpatch.sources.compiled import compiled, frozen
from flowpatch.sources.contract import UNKNOWN_NODE, RecordBlock, Survey
from flowpatch.sources.engine import reading
from flowpatch.sources.numbering import NodeNumbers, whole_steps
from flowpatch.time_axis import TimeAxis

DAY_S = 86_400
ROW_BYTES = 12

BLOCK_ROWS = 100_000
"""Rows of one block, a little more or less: few enough to be worked on in a core's cache."""


@dataclass(frozen=True)
class DayRows:
    """R rows of D days, one day after the other.

    `rows` is (R, 3) int32: second of the day, position in the node table or UNKNOWN_NODE, and the
    bits of a float32; `day` (D,) counts from 1970 on and `count` (D,) gives the rows of each.
    `first_s` and `last_s` are the first and last instant in seconds since 1970.
    """

    rows: NDArray[np.int32]
    day: NDArray[np.int64]
    count: NDArray[np.int64]
    first_s: int
    last_s: int


def day_rows(
    numbers: NodeNumbers,
    keys: tuple[NDArray[np.int64], ...],
    instant_s: NDArray[np.int64],
    value: NDArray[np.float32],
) -> DayRows:
    """R > 0 records, each array (R,), by day; `numbers` finds a key's place in the node table."""
    first_s, last_s = int(instant_s.min()), int(instant_s.max())
    first_day = first_s // DAY_S
    # What counts steps counts days as well.
    block = numbers.block(keys, instant_s, value, first_day * DAY_S, DAY_S)
    rows = np.empty((len(value), 3), dtype=np.int32)
    if last_s // DAY_S == first_day:
        np.subtract(instant_s, first_day * DAY_S, out=rows[:, 0], casting="unsafe")
        rows[:, 1], rows[:, 2] = block.node, value.view(np.int32)
        return DayRows(rows, np.array([first_day]), np.array([len(rows)]), first_s, last_s)
    order = np.argsort(block.step, kind="stable")
    day, count = np.unique(block.step, return_counts=True)
    rows[:, 0] = (instant_s - (first_day + block.step) * DAY_S)[order]
    rows[:, 1], rows[:, 2] = block.node[order], value.view(np.int32)[order]
    return DayRows(rows, (first_day + day).astype(np.int64), count, first_s, last_s)


class PutAside:
    """A file of rows; what is added comes back in the same order within a day."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO = path.open("w+b", buffering=0)
        self._day: list[NDArray[np.int64]] = []
        self._count: list[NDArray[np.int64]] = []
        self._extents: dict[str, tuple[int, int, int]] = {}
        self.records = 0

    def __getstate__(self) -> dict[str, Any]:
        """Without the file: where it is sent, it is opened to be read."""
        return {**self.__dict__, "_file": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        with reading(str(self._path)):
            self._file = self._path.open("rb", buffering=0)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def add(self, added: DayRows, part: str) -> None:
        """Puts the rows behind all others; `part` names that of the source which they come from.

        Raises:
            SourceError: there is no room for them.
        """
        rest = added.rows.data.cast("B")
        try:
            while rest:  # The system may take less than it is given.
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise SourceError(
                f"Cannot put records aside in '{self._path.parent}': {error}. Make room there: 12 "
                "bytes a record are needed while the store is built."
            ) from error
        self._day.append(added.day)
        self._count.append(added.count)
        self._count_in(added, part)

    def _count_in(self, added: DayRows, part: str) -> None:
        rows = len(added.rows)
        records, first_s, last_s = self._extents.get(part, (0, added.first_s, added.last_s))
        self._extents[part] = (
            records + rows,
            min(first_s, added.first_s),
            max(last_s, added.last_s),
        )
        self.records += rows

    def surveys(self) -> dict[str, Survey]:
        """How many records there are of each part, and from when to when."""
        return {
            part: Survey(
                records,
                0,
                np.datetime64(first_s * 1000, "ms"),
                np.datetime64(last_s * 1000, "ms"),
            )
            for part, (records, first_s, last_s) in self._extents.items()
        }

    def blocks(
        self,
        position_to_node: NDArray[np.int32],
        axis: TimeAxis,
        first_step: int,
        stop_step: int,
        *,
        in_order: bool,
    ) -> Iterator[RecordBlock]:
        """The records of a stretch. See `RecordSource.read_blocks`.

        `position_to_node` gives the index in the series for each row of the node table.
        """
        begin_s, end_s = (
            int(axis.instant_of(step).astype("datetime64[s]").astype(np.int64))
            for step in (first_step, stop_step)
        )
        position_to_node = frozen(position_to_node)
        for day, count, rows in self._of_days(begin_s // DAY_S, (end_s - 1) // DAY_S):
            step = np.empty(len(rows), dtype=np.int64)
            node = np.empty(len(rows), dtype=np.int32)
            value = np.empty(len(rows), dtype=np.float32)
            kept = _number(
                rows,
                rows.view(np.float32),
                day * DAY_S - begin_s,
                count,
                end_s - begin_s,
                axis.step_minutes * 60,
                position_to_node,
                step,
                node,
                value,
            )
            instant_ms = None
            if in_order:
                instant_ms = _instants_ms(rows, day, count)
                instant_ms = instant_ms[
                    (begin_s * 1000 <= instant_ms) & (instant_ms < end_s * 1000)
                ]
            yield RecordBlock(step[:kept], node[:kept], value[:kept], instant_ms)

    def _of_days(
        self, first_day: int, last_day: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]]:
        """The day and the count of rows of some segments, and the rows."""
        if not self.records:
            return
        days, counts = np.concatenate(self._day), np.concatenate(self._count)
        stops = np.cumsum(counts)
        chosen = np.flatnonzero((first_day <= days) & (days <= last_day))
        group = np.cumsum(counts[chosen]) // BLOCK_ROWS
        for segments in np.split(chosen, np.flatnonzero(np.diff(group)) + 1):
            parts = [self._read(stops[i] - counts[i], counts[i]) for i in segments]
            rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
            yield frozen(days[segments]), frozen(counts[segments]), frozen(rows)

    def _read(self, first_row: int, count: int) -> NDArray[np.int32]:
        self._file.seek(first_row * ROW_BYTES)
        return np.fromfile(self._file, dtype=np.int32, count=3 * count).reshape(count, 3)

    def __enter__(self) -> "PutAside":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _instants_ms(
    rows: NDArray[np.int32], day: NDArray[np.int64], count: NDArray[np.int64]
) -> NDArray[np.int64]:
    instants_s: NDArray[np.int64] = np.repeat(day * DAY_S, count) + rows[:, 0]
    return instants_s * 1000


@compiled
def _number(
    rows: NDArray[np.int32],
    rows_as_float: NDArray[np.float32],
    day_s: NDArray[np.int64],
    count: NDArray[np.int64],
    stop_s: int,
    step_s: int,
    position_to_node: NDArray[np.int32],
    step: NDArray[np.int64],
    node: NDArray[np.int32],
    value: NDArray[np.float32],
) -> int:
    """Step, node and value of the rows from second 0 on and before `stop_s`; gives how many.

    `day_s` tells at which second each day begins.
    """
    kept, row = 0, 0
    steps_a_second = 1.0 / step_s
    for segment in range(len(count)):
        for _ in range(count[segment]):
            passed = day_s[segment] + rows[row, 0]
            step[kept] = whole_steps(passed, steps_a_second, step_s)
            position = rows[row, 1]
            node[kept] = position_to_node[position] if position >= 0 else UNKNOWN_NODE
            value[kept] = rows_as_float[row, 2]
            kept += 0 <= passed < stop_s
            row += 1
    return kept
