"""Rows to a record stream.

    record:  (tag value)*  END_RECORD crc
    stream:  record*  META_COUNT n  META_CHECKSUM crc-of-crcs

A tag carries the column's position from 1 and the wire type; a NULL has no entry. A record's
checksum runs over positions and values, the stream's over the checksums of its records.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence

import google_crc32c
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from maxcompute_emulator.types import Column
from maxcompute_emulator.wire.pieces import pieces
from maxcompute_emulator.wire.record_fields import VARINT, cells, wire_type
from maxcompute_emulator.wire.varints import varint, varints, zigzag

META_COUNT = 33554430
META_CHECKSUM = 33554431
END_RECORD = 33553408
END_METRICS = 33554176

_MAX_ROWS = 4096


def tag(position: int, kind: int) -> bytes:
    """The tag before a value."""
    return varint(position << 3 | kind)


class RecordEncoder:
    """Encodes batches one by one and closes the stream with `finish`."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._n_records = 0
        self._checksum = 0

    def encode(self, batch: pa.RecordBatch) -> bytes:
        """The records of a batch; it must hold the columns by name, in any order."""
        wire: list[list[bytes]] = []
        checked: list[list[bytes]] = []
        for position, column in enumerate(self._columns, start=1):
            array = batch.column(column.name)
            start = tag(position, wire_type(column.type))
            place = struct.pack("<i", position)
            values = cells(array, column.type)
            present = array.is_valid().to_pylist()
            wire.append(
                [start + v if ok else b"" for v, ok in zip(values.wire, present, strict=True)]
            )
            checked.append(
                [place + v if ok else b"" for v, ok in zip(values.checked, present, strict=True)]
            )
        crcs = [google_crc32c.value(b"".join(parts)) for parts in zip(*checked, strict=True)]
        return self._records(map(b"".join, zip(*wire, strict=True)), np.array(crcs, "<u4"))

    def finish(self) -> bytes:
        """What follows the last record."""
        return b"".join(
            (
                tag(META_COUNT, VARINT),
                zigzag(self._n_records),
                tag(META_CHECKSUM, VARINT),
                varint(self._checksum),
            )
        )

    def _records(self, records: Iterator[bytes], crcs: NDArray[np.uint32]) -> bytes:
        end = tag(END_RECORD, VARINT)
        self._checksum = google_crc32c.extend(self._checksum, crcs.tobytes())
        self._n_records += len(crcs)
        closed = varints(crcs.astype(np.uint64))
        return b"".join(record + end + crc for record, crc in zip(records, closed, strict=True))


def encode_records(batches: Iterable[pa.RecordBatch], columns: Sequence[Column]) -> Iterator[bytes]:
    """A whole record stream, in pieces of bounded size."""
    encoder = RecordEncoder(columns)
    for piece in pieces(batches, _MAX_ROWS):
        yield encoder.encode(piece)
    yield encoder.finish()
