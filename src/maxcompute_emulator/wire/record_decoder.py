"""A record stream to rows, checked against its checksums and its count.

Reads from a file as it goes: a record that is not there in full is tried again once more bytes are.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import google_crc32c
import pyarrow as pa

from maxcompute_emulator import errors
from maxcompute_emulator.types import Column, arrow_schema
from maxcompute_emulator.wire.record_encoder import (
    END_METRICS,
    END_RECORD,
    META_CHECKSUM,
    META_COUNT,
)
from maxcompute_emulator.wire.record_fields import LENGTH_DELIMITED, VARINT, wire_type
from maxcompute_emulator.wire.record_values import NeedMoreError, arrow_array, reader
from maxcompute_emulator.wire.varints import read_varint, unzigzag

_READ_BYTES = 1 << 20
_BATCH_ROWS = 8192
_BATCH_BYTES = 8 << 20
_UINT32 = 0xFFFFFFFF
_END_RECORD_TAG = END_RECORD << 3 | VARINT
_META_COUNT_TAG = META_COUNT << 3 | VARINT
_META_CHECKSUM_TAG = META_CHECKSUM << 3 | VARINT
_END_METRICS_TAG = END_METRICS << 3 | VARINT


class RecordDecoder:
    """Reads one stream."""

    def __init__(self, source: BinaryIO, columns: Sequence[Column]) -> None:
        self._source = source
        self._columns = columns
        self._schema = arrow_schema(tuple(columns))
        # By tag: the place in a row, what the checksum takes of the position, and the reader.
        self._fields = {
            position << 3 | wire_type(column.type): (
                position - 1,
                struct.pack("<i", position),
                reader(column),
            )
            for position, column in enumerate(columns, start=1)
        }
        self._data = b""
        self._at = 0
        self._crcs = bytearray()
        self._n_records = 0
        self._checksum = 0
        self._finished = False

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows; a `ServiceError` where the stream is broken."""
        while not self._finished:
            rows: list[list[Any]] = []
            n_bytes = 0
            while len(rows) < _BATCH_ROWS and n_bytes < _BATCH_BYTES:
                before = self._at
                row = self._next_row()
                if row is None:
                    break
                rows.append(row)
                n_bytes += max(0, self._at - before)
            if rows:
                yield self._batch(rows)

    def _next_row(self) -> list[Any] | None:
        while True:
            try:
                return self._parse()
            except (IndexError, NeedMoreError) as error:
                self._refill(error.n_bytes if isinstance(error, NeedMoreError) else 0)
            except ValueError as error:
                raise errors.malformed_data_stream(str(error)) from error

    def _refill(self, wanted: int) -> None:
        parts = [self._data[self._at :]]
        missing = max(_READ_BYTES, wanted)
        while missing > 0 and (more := self._source.read(missing)):
            parts.append(more)
            missing -= len(more)
        if len(parts) == 1:
            raise errors.malformed_data_stream("The stream ends before its footer.")
        self._data, self._at = b"".join(parts), 0

    def _parse(self) -> list[Any] | None:
        """One record, or None at the footer. `_at` moves on only when it is complete."""
        data, at, fields = self._data, self._at, self._fields
        row: list[Any] = [None] * len(self._columns)
        checked: list[bytes] = []
        while True:
            tag, at = read_varint(data, at)
            if tag in fields:
                place, position, read = fields[tag]
                checked.append(position)
                row[place], at = read(data, at, checked)
            elif tag == _END_RECORD_TAG:
                crc, at = read_varint(data, at)
                self._end_record(crc & _UINT32, checked)
                self._at = at
                return row
            elif tag == _META_COUNT_TAG:
                self._at = self._footer(at)
                return None
            else:
                raise ValueError(f"Tag {tag} fits none of the {len(self._columns)} columns.")

    def _end_record(self, crc: int, checked: list[bytes]) -> None:
        expected = google_crc32c.value(b"".join(checked))
        if crc != expected:
            raise ValueError(f"Record {self._n_records} has checksum {crc}, expected {expected}.")
        self._checksum = google_crc32c.extend(self._checksum, struct.pack("<I", crc))
        self._n_records += 1

    def _footer(self, at: int) -> int:
        data = self._data
        count, at = read_varint(data, at)
        if unzigzag(count) != self._n_records:
            raise ValueError(f"{self._n_records} records came, {unzigzag(count)} were announced.")
        found, at = read_varint(data, at)
        if found & 7 == LENGTH_DELIMITED:
            at = self._skip_metrics(at)
            found, at = read_varint(data, at)
        crc, at = read_varint(data, at)
        if found != _META_CHECKSUM_TAG or crc & _UINT32 != self._checksum:
            raise ValueError("The checksum of the stream is wrong.")
        self._finished = True
        return at

    def _skip_metrics(self, at: int) -> int:
        """Metrics that a sender may add: a text and its own checksum."""
        length, at = read_varint(self._data, at)
        found, at = read_varint(self._data, at + length)
        if found != _END_METRICS_TAG:
            raise ValueError("The metrics of the stream do not end.")
        return read_varint(self._data, at)[1]

    def _batch(self, rows: list[list[Any]]) -> pa.RecordBatch:
        arrays = [
            arrow_array(list(values), column)
            for values, column in zip(zip(*rows, strict=True), self._columns, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)


def decode_records(source: BinaryIO, columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
    """The rows of a record stream, in batches of bounded size."""
    return RecordDecoder(source, columns).batches()
