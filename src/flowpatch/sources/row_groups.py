"""Row groups of Parquet files, each read by whichever thread is free.

For records that need no conversion: keys of one or two columns of whole numbers, instants without
a zone, a number as value. DuckDB reads any other (`record_relation.py`). Each row group is decoded,
numbered and handed on by one thread, so that no thread waits for another.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flowpatch.sources.arrow_columns import values, whole_numbers
from flowpatch.sources.columns import RecordColumns
from flowpatch.sources.contract import NodeIndex, RecordBlock
from flowpatch.sources.engine import reading
from flowpatch.sources.listing import Listing
from flowpatch.sources.numbering import MOST_COLUMNS, NodeNumbers, unused_key
from flowpatch.time_axis import TimeAxis

MOST_RECORDS = 4_000_000
"""Of a row group that is read whole: 28 bytes each, and one is held by every thread."""
BLOCK_RECORDS = 100_000
"""Of one block: few enough to be worked on in a core's cache."""
TICKS_A_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}


@dataclass(frozen=True)
class RowGroup:
    """One row group: where it is, its instants from first to last in the unit of its file."""

    file: "ParquetFile"
    number: int
    first: int
    last: int


@dataclass(frozen=True)
class ParquetFile:
    """A file whose columns need no conversion; `unit` is that of its instants."""

    path: Path
    metadata: pq.FileMetaData
    unit: str


@dataclass(frozen=True)
class RowGroups:
    """All row groups of the records."""

    groups: tuple[RowGroup, ...]
    columns: RecordColumns

    def parts(
        self, nodes: NodeIndex, axis: TimeAxis, first_step: int, stop_step: int
    ) -> Iterator["RowGroupPart"]:
        """Those with records of the stretch, to be read by any thread."""
        numbers = NodeNumbers(nodes)
        no_keys = tuple(unused_key(column) for column in nodes.keys)
        for group in self.groups:
            unit = group.file.unit
            first, stop = (_ticks(axis, step, unit) for step in (first_step, stop_step))
            if group.last < first or group.first >= stop:
                continue
            is_inside = first <= group.first and group.last < stop
            step_ticks = axis.step_minutes * 60 * TICKS_A_SECOND[unit]
            yield RowGroupPart(
                group, self.columns, numbers, no_keys, first, stop, step_ticks, is_inside
            )


@dataclass(frozen=True)
class RowGroupPart:
    """A row group's records of one stretch; see `contract.RecordPart`."""

    group: RowGroup
    columns: RecordColumns
    numbers: NodeNumbers
    no_keys: tuple[int, ...]
    first: int
    stop: int
    step_ticks: int
    is_inside: bool

    def read(self) -> Iterator[RecordBlock]:
        """Its records, numbered."""
        file, names = self.group.file, self.columns
        with reading(str(file.path)):
            opened = pq.ParquetFile(file.path, metadata=file.metadata)
            table = opened.read_row_group(self.group.number, _used(names), use_threads=False)
            table = self._of_stretch(table)
            instant = whole_numbers(table[names.time_column].cast(pa.timestamp(file.unit)), 0)
            value = values(table[names.value_column])
            keys = [
                whole_numbers(table[name], no_key)
                for name, no_key in zip(names.node_columns, self.no_keys, strict=True)
            ]
        for begin in range(0, len(instant), BLOCK_RECORDS):
            rows = slice(begin, begin + BLOCK_RECORDS)
            yield self.numbers.block(
                [key[rows] for key in keys], instant[rows], value[rows], self.first, self.step_ticks
            )

    def _of_stretch(self, table: pa.Table) -> pa.Table:
        """Without records that lie in another stretch, or at no instant."""
        instant = table[self.columns.time_column]
        if self.is_inside and not instant.null_count:
            return table
        ticks = instant.cast(pa.timestamp(self.group.file.unit)).cast(pa.int64())
        inside = pc.and_(pc.greater_equal(ticks, self.first), pc.less(ticks, self.stop))
        return table.filter(inside, null_selection_behavior="drop")


def find_row_groups(files: Listing, columns: RecordColumns) -> RowGroups | None:
    """The row groups of Parquet files; None where DuckDB must read them.

    That is where a column needs conversion, where one is not in the file itself, or where a row
    group is too large to be read whole or does not tell when its records are.
    """
    if columns.adcode is not None or columns.time_format is not None:
        return None
    if len(columns.node_columns) > MOST_COLUMNS:
        return None
    if files.folder_columns & set(_used(columns)):
        return None
    groups: list[RowGroup] = []
    for path in files.paths:
        with reading(str(path)):
            metadata = pq.read_metadata(path)
            unit = _unit(metadata.schema.to_arrow_schema(), columns)
        if unit is None:
            return None
        file = ParquetFile(path, metadata, unit)
        paths_in_schema = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
        place = paths_in_schema.index(columns.time_column)
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            told = group.column(place).statistics
            if told is not None and told.has_null_count and told.null_count == group.num_rows:
                continue  # No record has an instant, so none lies in any stretch.
            if told is None or not told.has_min_max or group.num_rows > MOST_RECORDS:
                return None
            groups.append(RowGroup(file, number, int(told.min_raw), int(told.max_raw)))
    return RowGroups(tuple(groups), columns)


def _used(columns: RecordColumns) -> list[str]:
    return [columns.time_column, columns.value_column, *columns.node_columns]


def _unit(schema: pa.Schema, columns: RecordColumns) -> str | None:
    """The unit of the instants, if every column can be taken as it is."""
    used = _used(columns)
    lower = [name.lower() for name in schema.names]
    # DuckDB knows no case: what is ambiguous to it is left to it.
    if any(name not in schema.names or lower.count(name.lower()) != 1 for name in used):
        return None
    time, value, *keys = (schema.field(name).type for name in used)
    if not pa.types.is_timestamp(time) or time.tz is not None or time.unit not in TICKS_A_SECOND:
        return None
    if not (pa.types.is_integer(value) or pa.types.is_float32(value) or pa.types.is_float64(value)):
        return None
    if not all(pa.types.is_integer(key) and not pa.types.is_uint64(key) for key in keys):
        return None
    return str(time.unit)


def _ticks(axis: TimeAxis, step: int, unit: str) -> int:
    return int(axis.instant_of(step).astype(f"datetime64[{unit}]").astype(np.int64))
