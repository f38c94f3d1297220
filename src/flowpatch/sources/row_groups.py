"""Row groups of Parquet files, each read by whichever thread is free.

For records that need no conversion: keys of one or two columns of whole numbers, instants without
a zone, a number as value. DuckDB reads any other (`record_relation.py`). Each row group is decoded,
numbered and handed on by one thread, so that no thread waits for another. Its pages are read by
`parquet_columns.py`, or by pyarrow where they are of another kind than most writers'.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flowpatch.errors import SourceError
from flowpatch.sources.arrow_columns import values, whole_numbers
from flowpatch.sources.columns import RecordColumns
from flowpatch.sources.contract import NodeIndex, RecordBlock
from flowpatch.sources.engine import reading
from flowpatch.sources.key_numbers import KeyNumbers
from flowpatch.sources.listing import Listing
from flowpatch.sources.numbering import MOST_COLUMNS, OUTSIDE, steps_within, unused_key
from flowpatch.sources.page_compression import DamagedPageError
from flowpatch.sources.page_entries import Words
from flowpatch.sources.parquet_columns import (
    TOGETHER_ENTRIES,
    ColumnChunk,
    Meaning,
    in_step,
    open_chunk,
    words_of,
)
from flowpatch.time_axis import TimeAxis

MOST_RECORDS = 4_000_000
"""Of a row group that is read whole: 16 bytes each, and one is held by every thread."""
TICKS_A_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}

_NO_INSTANT = np.iinfo(np.int64).min
"""An instant of no stretch."""


@dataclass(frozen=True)
class ParquetFile:
    """A file whose columns need no conversion.

    `unit` is that of its instants; `places` and `types` are those of the columns that are used:
    time, value and keys.
    """

    path: Path
    metadata: pq.FileMetaData
    unit: str
    places: tuple[int, ...]
    types: tuple[pa.DataType, ...]


@dataclass(frozen=True)
class RowGroup:
    """One row group: where it is, its instants from first to last in the unit of its file."""

    file: ParquetFile
    number: int
    first: int
    last: int


@dataclass(frozen=True)
class RowGroups:
    """All row groups of the records."""

    groups: tuple[RowGroup, ...]
    columns: RecordColumns

    def parts(
        self, nodes: NodeIndex, axis: TimeAxis, first_step: int, stop_step: int
    ) -> Iterator["RowGroupPart"]:
        """Those with records of the stretch, to be read by any thread."""
        numbers = KeyNumbers(nodes)
        no_keys = tuple(unused_key(column) for column in nodes.keys)
        for group in self.groups:
            unit = group.file.unit
            first, stop = (_ticks(axis, step, unit) for step in (first_step, stop_step))
            if group.last < first or group.first >= stop:
                continue
            step_ticks = axis.step_minutes * 60 * TICKS_A_SECOND[unit]
            yield RowGroupPart(group, self.columns, numbers, no_keys, first, stop, step_ticks)


@dataclass(frozen=True)
class RowGroupPart:
    """A row group's records of one stretch; see `contract.RecordPart`."""

    group: RowGroup
    columns: RecordColumns
    numbers: KeyNumbers
    no_keys: tuple[int, ...]
    first: int
    stop: int
    step_ticks: int

    def read(self) -> Iterator[RecordBlock]:
        """Its records, numbered."""
        with reading(str(self.group.file.path)):
            chunks = self._chunks()
            found = iter((self._from_arrow(),)) if chunks is None else self._from_pages(chunks)
            for step, value, *keys in found:
                for begin in range(0, len(step), TOGETHER_ENTRIES):
                    rows = slice(begin, begin + TOGETHER_ENTRIES)
                    node = self.numbers.nodes([key[rows] for key in keys])
                    yield _inside(step[rows], node, value[rows].view(np.float32))

    def _chunks(self) -> list[ColumnChunk] | None:
        """The chunks of its columns; None where pyarrow must read one."""
        file = self.group.file
        with file.path.open("rb", buffering=0) as opened:
            chunks = [
                open_chunk(opened, file.metadata, self.group.number, place, kind)
                for place, kind in zip(file.places, file.types, strict=True)
            ]
        known = [chunk for chunk in chunks if chunk is not None]
        return known if len(known) == len(chunks) else None

    def _from_pages(self, chunks: list[ColumnChunk]) -> Iterator[list[Words]]:
        """What each column's entries stand for, some pages at a time."""
        return in_step(
            [
                self._words(name, chunk, column)
                for name, chunk, column in zip(
                    _used(self.columns), chunks, self._columns(), strict=True
                )
            ]
        )

    def _words(self, name: str, chunk: ColumnChunk, column: "_Column") -> Iterator[Words]:
        try:
            yield from words_of(chunk, column.meaning, column.missing_word)
        except DamagedPageError as error:
            raise SourceError(
                f"Cannot read '{self.group.file.path}': column '{name}' of row group "
                f"{self.group.number} is damaged: {error}. Write the file again, or leave it out."
            ) from error

    def _from_arrow(self) -> list[Words]:
        """The same by way of Arrow."""
        file, names = self.group.file, _used(self.columns)
        opened = pq.ParquetFile(file.path, metadata=file.metadata)
        table = opened.read_row_group(self.group.number, names, use_threads=False)
        columns = self._columns()
        found: list[NDArray[Any]] = [
            whole_numbers(table[names[0]].cast(pa.timestamp(file.unit)), columns[0].missing),
            values(table[names[1]]),
        ]
        for name, column in zip(names[2:], columns[2:], strict=True):
            found.append(whole_numbers(table[name], column.missing))
        return [column.meaning(numbers) for column, numbers in zip(columns, found, strict=True)]

    def _columns(self) -> "list[_Column]":
        def step(instants: NDArray[Any]) -> Words:
            return steps_within(instants, self.first, self.stop, self.step_ticks)

        return [
            _Column(step, _NO_INSTANT),
            _Column(_float32_bits, np.nan),
            *(
                _Column(partial(self.numbers.number, i), no_key)
                for i, no_key in enumerate(self.no_keys)
            ),
        ]


@dataclass(frozen=True)
class _Column:
    """What the numbers of a column stand for; `missing` is one that stands for none at all."""

    meaning: Meaning
    missing: Any

    @property
    def missing_word(self) -> np.int32:
        return np.int32(self.meaning(np.array([self.missing]))[0])


def _float32_bits(numbers: NDArray[Any]) -> Words:
    """Numbers as float32, NaN where one is infinite."""
    with np.errstate(all="ignore"):  # Beyond float32 it becomes infinite, which is no number.
        found = numbers.astype(np.float32)
    finite = np.isfinite(found)
    return (found if finite.all() else np.where(finite, found, np.float32(np.nan))).view(np.int32)


def _inside(step: Words, node: NDArray[np.int32], value: NDArray[np.float32]) -> RecordBlock:
    """The records that lie in the stretch."""
    if step.min(initial=0) == OUTSIDE:
        inside = step != OUTSIDE
        step, node, value = step[inside], node[inside], value[inside]
    return RecordBlock(step, node, value)


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
            file = _file(path, metadata, columns)
        if file is None:
            return None
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            told = group.column(file.places[0]).statistics
            if told is not None and told.has_null_count and told.null_count == group.num_rows:
                continue  # No record has an instant, so none lies in any stretch.
            if told is None or not told.has_min_max or group.num_rows > MOST_RECORDS:
                return None
            groups.append(RowGroup(file, number, int(told.min_raw), int(told.max_raw)))
    return RowGroups(tuple(groups), columns)


def _used(columns: RecordColumns) -> list[str]:
    return [columns.time_column, columns.value_column, *columns.node_columns]


def _file(path: Path, metadata: pq.FileMetaData, columns: RecordColumns) -> ParquetFile | None:
    """The file, if every column can be taken as it is."""
    schema, used = metadata.schema.to_arrow_schema(), _used(columns)
    lower = [name.lower() for name in schema.names]
    # DuckDB knows no case: what is ambiguous to it is left to it.
    if any(name not in schema.names or lower.count(name.lower()) != 1 for name in used):
        return None
    time, value, *keys = types = tuple(schema.field(name).type for name in used)
    if not pa.types.is_timestamp(time) or time.tz is not None or time.unit not in TICKS_A_SECOND:
        return None
    if not (pa.types.is_integer(value) or pa.types.is_float32(value) or pa.types.is_float64(value)):
        return None
    if not all(pa.types.is_integer(key) and not pa.types.is_uint64(key) for key in keys):
        return None
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    return ParquetFile(path, metadata, time.unit, tuple(map(paths.index, used)), types)


def _ticks(axis: TimeAxis, step: int, unit: str) -> int:
    return int(axis.instant_of(step).astype(f"datetime64[{unit}]").astype(np.int64))
