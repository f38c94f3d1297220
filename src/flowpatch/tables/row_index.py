"""Which windows a sample table holds, from its narrow columns, and which rows are wanted."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flowpatch.errors import SampleTableError
from flowpatch.maxcompute.connection import Connection
from flowpatch.maxcompute.metadata import TableInfo
from flowpatch.maxcompute.patience import Patience
from flowpatch.maxcompute.reading import Part, Reader, RowRange, cut, keep_rows, open_parts
from flowpatch.series.splits import SPLIT_NAMES, Splits
from flowpatch.tables.covering import cover
from flowpatch.tables.schema import PARTITION_COLUMN, Metadata
from flowpatch.time_axis import TimeAxis

LONGEST_DAYS = 3660
"""Ten years, as for a build from records."""
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:00(\.0+)?)?)?")
NARROW_ROWS = 200_000
"""Rows of timestamps in one request."""
NODE_ROWS = 500
"""Rows of node indices in one request."""
ROWS_AT_ONCE = 8
"""Neighbouring rows of X and Y in one request, at most: each may have 16 MB."""


@dataclass(frozen=True)
class RowIndex:
    """K rows of a table, each array (K,): where each is, its origin, split and group of nodes.

    `part` and `row` say where it is; `minutes` is its timestamp in minutes since 1970. Rows of
    one `group` hold the same nodes; where the nodes were not looked at, all rows are of one.
    """

    parts: tuple[Part, ...]
    part: NDArray[np.int64]
    row: NDArray[np.int64]
    minutes: NDArray[np.int64]
    split: NDArray[Any]
    group: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.row)

    def axis(self, metadata: Metadata) -> TimeAxis:
        """The metadata's axis, or the whole days that the windows reach into."""
        axis = self._axis(metadata)
        if axis.days > LONGEST_DAYS:
            raise SampleTableError(
                f"The windows reach over {axis.days:,} days, more than {LONGEST_DAYS:,}: a wrong "
                "year in a timestamp, or in the metadata's start and length, does that."
            )
        return axis

    def _axis(self, metadata: Metadata) -> TimeAxis:
        step = metadata.step_minutes
        if metadata.start is not None and metadata.length is not None:
            start = np.datetime64(metadata.start, "m")
            return TimeAxis(start, step, metadata.length, metadata.time_zone)
        first = int(self.minutes.min()) - metadata.input_len * step
        stop = int(self.minutes.max()) + metadata.output_len * step
        first_day = np.datetime64(first, "m").astype("datetime64[D]")
        last_day = np.datetime64(stop - 1, "m").astype("datetime64[D]")
        days = int((last_day - first_day).astype(int)) + 1
        return TimeAxis.of_days(first_day, days, step, metadata.time_zone)

    def origins(self, axis: TimeAxis, metadata: Metadata) -> NDArray[np.int64]:
        """(K,) the step of each row's origin.

        Raises:
            SampleTableError: a window lies between steps, or out of the axis.
        """
        offset = self.minutes - axis.start.astype("datetime64[m]").astype(np.int64)
        steps, rest = np.divmod(offset, axis.step_minutes)
        if rest.any():
            bad = np.datetime64(int(self.minutes[np.flatnonzero(rest)[0]]), "m")
            raise SampleTableError(
                f"The timestamp {bad} lies between two steps of {axis.step_minutes} minutes. "
                "Check step_minutes in the metadata."
            )
        first, stop = steps - metadata.input_len, steps + metadata.output_len
        if (first < 0).any() or (stop > axis.length).any():
            raise SampleTableError(
                f"A window reaches out of the period {axis.start} to {axis.stop} that the metadata "
                "gives. The metadata is of another table."
            )
        return np.asarray(steps, dtype=np.int64)

    def splits(self, origins: NDArray[np.int64], metadata: Metadata) -> Splits:
        """The metadata's borders, or those that the rows' own splits draw.

        Raises:
            SampleTableError: there are neither.
        """
        if metadata.borders is not None:
            return metadata.borders
        starts, lasts = {}, {}
        labels = np.array(
            [str(label).strip().lower() for label in self.split], dtype=np.dtype(object)
        )
        for name in SPLIT_NAMES:
            of_split = origins[labels == name]
            if not len(of_split):
                there = ", ".join(sorted(set(map(str, self.split))))
                raise SampleTableError(
                    f"No row is of split '{name}', and the metadata names no borders. Splits "
                    f"there: {there}."
                )
            starts[name], lasts[name] = int(of_split.min()), int(of_split.max())
        if not (lasts["train"] < starts["val"] and lasts["val"] < starts["test"]):
            raise SampleTableError(
                "The rows' splits are mixed in time: train, val and test must follow each other. "
                "Name the borders in the metadata (splits: first, val_start, test_start, stop)."
            )
        return Splits(
            first=starts["train"] - metadata.input_len,
            val_start=starts["val"],
            test_start=starts["test"],
            stop=int(origins.max()) + metadata.output_len,
        )

    def covering(self, origins: NDArray[np.int64], metadata: Metadata) -> Iterator[RowRange]:
        """The rows that hold every step of every group, neighbours together.

        The task of each range is the steps of its rows' origins.
        """
        chosen = []
        for group in np.unique(self.group):
            of_group = np.flatnonzero(self.group == group)
            unique, first = np.unique(origins[of_group], return_index=True)
            covering = cover(unique, metadata.input_len, metadata.output_len)
            chosen.append(of_group[first[covering]])
        return self._ranges(np.concatenate(chosen), origins)

    def _ranges(self, chosen: NDArray[np.int64], origins: NDArray[np.int64]) -> Iterator[RowRange]:
        order = chosen[np.lexsort((self.row[chosen], self.part[chosen]))]
        apart = (np.diff(self.row[order]) != 1) | (np.diff(self.part[order]) != 0)
        for run in np.split(order, np.flatnonzero(apart) + 1):
            for begin in range(0, len(run), ROWS_AT_ONCE):
                rows = run[begin : begin + ROWS_AT_ONCE]
                steps = tuple(int(origins[row]) for row in rows)
                part = self.parts[self.part[rows[0]]]
                yield RowRange(part, int(self.row[rows[0]]), len(rows), steps)


def read_row_index(
    connection: Connection, patience: Patience, info: TableInfo, *, with_nodes: bool
) -> RowIndex:
    """The narrow columns of all rows; `with_nodes` reads node_indices too, which are wider.

    Raises:
        SampleTableError: the table is empty, or a timestamp is no instant.
    """
    parts = open_parts(connection, patience, info)
    columns = [
        *([] if PARTITION_COLUMN in info.partition_columns else ["split"]),
        *(["node_indices"] if with_nodes else []),
        "timestamp",
    ]
    found: list[tuple[int, int, pa.Table]] = []
    with Reader(connection, columns, keep_rows, workers=0) as reader:
        for position, part in enumerate(parts):
            ranges = cut(part, NODE_ROWS if with_nodes else NARROW_ROWS)
            found += [(position, rows.start, table) for rows, table in reader.read(ranges)]
    if not sum(len(table) for _, _, table in found):
        raise SampleTableError(
            f"{info.name.address} has no rows. Publish samples: flowpatch samples publish."
        )
    return RowIndex(
        parts=parts,
        part=np.concatenate([np.full(len(table), position) for position, _, table in found]),
        row=np.concatenate([start + np.arange(len(table)) for _, start, table in found]),
        minutes=_minutes(_column(found, "timestamp"), info.name.address),
        split=np.array(
            _column(found, "split")
            if "split" in columns
            else [_split_of(parts[position]) for position, _, t in found for _ in range(len(t))],
            dtype=np.dtype(object),
        ),
        group=_groups(_column(found, "node_indices"))
        if with_nodes
        else np.zeros(sum(len(table) for _, _, table in found), dtype=np.int64),
    )


def _column(found: Sequence[tuple[int, int, pa.Table]], name: str) -> list[Any]:
    return [value for _, _, table in found for value in table.column(name).to_pylist()]


def _groups(cells: list[str | None]) -> NDArray[np.int64]:
    numbers: dict[str | None, int] = {}
    return np.array([numbers.setdefault(cell, len(numbers)) for cell in cells], dtype=np.int64)


def _split_of(part: Part) -> str:
    values = dict(item.split("=", 1) for item in (part.partition or "").split(",") if item)
    return values.get(PARTITION_COLUMN, "").strip("'\"")


def _minutes(stamps: list[str | None], place: str) -> NDArray[np.int64]:
    texts = [str(stamp) for stamp in stamps]
    try:
        # numpy would also take 20250919 for a year, `now`, and offsets that it drops.
        if not all(map(_INSTANT.fullmatch, texts)):
            raise ValueError
        return np.array([text[:16] for text in texts], dtype="datetime64[m]").astype(np.int64)
    except ValueError:
        bad = next((text for text in texts if not _is_instant(text)), None)
        raise SampleTableError(
            f"The timestamp '{bad}' in {place} is no wall-clock instant of a whole minute, such as "
            "2025-09-19 08:00:00."
        ) from None


def _is_instant(text: str) -> bool:
    try:
        return bool(_INSTANT.fullmatch(text)) and not np.isnat(np.datetime64(text[:16], "m"))
    except ValueError:
        return False
