"""Rows as Arrow on the wire: record batches without a schema message, cut into checked chunks.

    stream:  chunk-size  (chunk crc-of-chunk)*  last-chunk  crc-of-everything

All numbers are big-endian uint32, all chunks but the last have the announced size, and the last is
shorter (it may be empty). Both sides know the schema from the session.
"""

import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

import google_crc32c
import pyarrow as pa

from maxcompute_emulator import errors
from maxcompute_emulator.types import Column, DataType, arrow_type, nested_arrow_type
from maxcompute_emulator.wire.piece_file import piece_file
from maxcompute_emulator.wire.pieces import pieces

CHUNK_BYTES = 64 * 1024
EMPTY_UPLOAD = b"\x00\x00\x00\x00"
_MAX_CHUNK_BYTES = 64 << 20
_UINT32 = struct.Struct("!I")
_PLAIN_DECIMAL = pa.decimal256(54, 18)
_SECONDS_AND_NANOS = pa.struct([("sec", pa.int64()), ("nano", pa.int32())])


def wire_schema(columns: Sequence[Column], timestamps_as_structs: bool = False) -> pa.Schema:
    """What both sides take the batches to hold.

    Args:
        columns: The columns sent.
        timestamps_as_structs: Whether TIMESTAMP is `struct<sec, nano>`, as in the results of
            queries and in previews, in place of `timestamp[ns]`.
    """
    fields = []
    for column in columns:
        form = nested_arrow_type(column.type, _wire_type)
        if timestamps_as_structs and column.type.name in ("TIMESTAMP", "TIMESTAMP_NTZ"):
            form = _SECONDS_AND_NANOS
        fields.append((column.name, form))
    return pa.schema(fields)


def _wire_type(data_type: DataType) -> pa.DataType:
    if data_type.name == "DECIMAL" and not data_type.parameters:
        return _PLAIN_DECIMAL
    return arrow_type(data_type)


def in_wire_form(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The schema's columns of a batch, converted where the wire has another form."""
    arrays = [_converted(batch.column(field.name), field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _converted(array: pa.Array, target: pa.DataType) -> pa.Array:
    if array.type == target:
        return array
    if target == _SECONDS_AND_NANOS and pa.types.is_timestamp(array.type):
        return _timestamp_structs(array)
    return array.cast(target)


def _timestamp_structs(array: pa.Array) -> pa.Array:
    nanos = array.cast(pa.int64()).fill_null(0).to_numpy()
    seconds = pa.array(nanos // 1_000_000_000, pa.int64())
    rest = pa.array(nanos % 1_000_000_000, pa.int32())
    return pa.StructArray.from_arrays(
        [seconds, rest], fields=list(_SECONDS_AND_NANOS), mask=array.is_null()
    )


def encode_arrow(
    batches: Iterable[pa.RecordBatch],
    columns: Sequence[Column],
    timestamps_as_structs: bool = False,
) -> Iterator[bytes]:
    """A whole stream, in pieces of bounded size."""
    schema = wire_schema(columns, timestamps_as_structs)
    writer = _ChunkWriter()
    for piece in pieces(batches):
        yield writer.write(in_wire_form(piece, schema).serialize())
    yield writer.finish()


class _ChunkWriter:
    def __init__(self) -> None:
        self._begun = False
        self._in_chunk = 0
        self._chunk_crc = 0
        self._crc = 0

    def write(self, payload: pa.Buffer) -> bytes:
        """The payload with all that belongs before it and between its chunks."""
        out = [self._begin()]
        view = memoryview(payload)
        at = 0
        while at < len(view):
            part = bytes(view[at : at + CHUNK_BYTES - self._in_chunk])
            at += len(part)
            self._in_chunk += len(part)
            self._chunk_crc = google_crc32c.extend(self._chunk_crc, part)
            self._crc = google_crc32c.extend(self._crc, part)
            out.append(part)
            if self._in_chunk == CHUNK_BYTES:
                out.append(_UINT32.pack(self._chunk_crc))
                self._in_chunk = self._chunk_crc = 0
        return b"".join(out)

    def finish(self) -> bytes:
        return self._begin() + _UINT32.pack(self._crc)

    def _begin(self) -> bytes:
        start = b"" if self._begun else _UINT32.pack(CHUNK_BYTES)
        self._begun = True
        return start


def decode_arrow(source: BinaryIO, columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
    """The rows of a stream; a `ServiceError` where it is broken or does not fit the columns."""
    schema = wire_schema(columns)
    target = pa.schema([(column.name, arrow_type(column.type)) for column in columns])
    messages = itertools.chain([schema.serialize().to_pybytes()], _checked_chunks(source))
    try:
        with pa.ipc.open_stream(piece_file(messages)) as reader:
            for batch in reader:
                batch.validate()
                yield in_wire_form(batch, target)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise errors.malformed_data_stream(f"The Arrow data cannot be read: {error}") from error


def _checked_chunks(source: BinaryIO) -> Iterator[bytes]:
    """What the chunks hold, each given out after its checksum was found right."""
    head = source.read(4)
    if head == EMPTY_UPLOAD:
        return
    chunk_bytes = _chunk_bytes(head)
    crc_of_all = 0
    while True:
        data = source.read(chunk_bytes + 4)
        if len(data) < 4:
            raise errors.malformed_data_stream("The Arrow stream ends before its checksum.")
        chunk, (crc,) = data[:-4], _UINT32.unpack_from(data, len(data) - 4)
        crc_of_all = google_crc32c.extend(crc_of_all, chunk)
        is_last = len(chunk) < chunk_bytes
        if crc != (crc_of_all if is_last else google_crc32c.value(chunk)):
            raise errors.malformed_data_stream("A checksum of the Arrow stream is wrong.")
        yield chunk
        if is_last:
            return


def _chunk_bytes(head: bytes) -> int:
    size = int(_UINT32.unpack(head)[0]) if len(head) == 4 else 0
    if not 0 < size <= _MAX_CHUNK_BYTES:
        raise errors.malformed_data_stream(
            f"The Arrow stream announces chunks of {size} bytes. Allowed: 1 to {_MAX_CHUNK_BYTES}."
        )
    return size
