import io
import struct

import google_crc32c
import numpy as np
import pyarrow as pa
import pytest
from column_values import batches
from hypothesis import HealthCheck, given, settings

from maxcompute_emulator.errors import ServiceError
from maxcompute_emulator.types import Column, arrow_schema, parse_type
from maxcompute_emulator.wire.arrow_stream import (
    CHUNK_BYTES,
    decode_arrow,
    encode_arrow,
    wire_schema,
)

COLUMNS = (Column("a", parse_type("bigint")), Column("b", parse_type("string")))
ROWS = pa.RecordBatch.from_pydict({"a": [1, 2], "b": ["x", None]}, schema=arrow_schema(COLUMNS))


def encoded(columns, *rows: pa.RecordBatch, **kind: bool) -> bytes:
    return b"".join(encode_arrow(rows, columns, **kind))


def decoded(data: bytes, columns) -> pa.Table:
    found = decode_arrow(io.BytesIO(data), columns)
    return pa.Table.from_batches(found, arrow_schema(columns)).combine_chunks()


def payload(data: bytes) -> bytes:
    """What the chunks hold, read straight from the protocol's description."""
    (size,) = struct.unpack_from("!I", data)
    at, parts = 4, []
    while len(data) - at > size + 4:
        parts.append(data[at : at + size])
        at += size + 4
    return b"".join([*parts, data[at:-4]])


@given(batches())
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_all_types_round_trip(case):
    columns, rows = case
    assert decoded(encoded(columns, rows), columns).equals(pa.Table.from_batches([rows]))


def test_no_rows_out_are_the_chunk_size_and_a_checksum_of_nothing():
    assert encoded(COLUMNS) == struct.pack("!II", CHUNK_BYTES, 0)


@pytest.mark.parametrize("data", [b"\0\0\0\0", struct.pack("!II", 64, 0)])
def test_no_rows_in(data):
    assert decoded(data, COLUMNS).num_rows == 0


def test_checksums_are_those_of_each_chunk_and_of_all_at_the_end():
    rows = pa.RecordBatch.from_pydict({"a": np.arange(50_000), "b": ["y"] * 50_000})
    data = encoded(COLUMNS, rows)
    assert struct.unpack_from("!I", data)[0] == CHUNK_BYTES
    first = data[4 : 4 + CHUNK_BYTES]
    assert struct.unpack_from("!I", data, 4 + CHUNK_BYTES)[0] == google_crc32c.value(first)
    assert struct.unpack_from("!I", data, len(data) - 4)[0] == google_crc32c.value(payload(data))


def test_the_payload_is_record_batches_without_a_schema_message():
    reader = pa.ipc.MessageReader.open_stream(io.BytesIO(payload(encoded(COLUMNS, ROWS, ROWS))))
    assert [message.type for message in reader] == ["record batch"] * 2


@pytest.mark.parametrize("chunk_bytes", [1, 7, 16, 1024])
def test_any_chunk_size_is_read(chunk_bytes):
    body = payload(encoded(COLUMNS, ROWS))
    data = struct.pack("!I", chunk_bytes)
    whole = len(body) - len(body) % chunk_bytes
    for at in range(0, whole, chunk_bytes):
        chunk = body[at : at + chunk_bytes]
        data += chunk + struct.pack("!I", google_crc32c.value(chunk))
    data += body[whole:] + struct.pack("!I", google_crc32c.value(body))
    assert decoded(data, COLUMNS).equals(pa.Table.from_batches([ROWS]))


@pytest.mark.parametrize("n_rows", [1, 60_000])
def test_every_truncation_is_refused(n_rows):
    rows = pa.RecordBatch.from_pydict({"a": np.arange(n_rows), "b": ["y"] * n_rows})
    data = encoded(COLUMNS, rows)
    for at in {0, 3, 5, 9, 100, CHUNK_BYTES + 8, len(data) // 2, len(data) - 1}:
        if at < len(data):
            with pytest.raises(ServiceError) as caught:
                decoded(data[:at], COLUMNS)
            assert caught.value.code == "MalformedDataStream"


def test_every_changed_byte_is_refused():
    data = encoded(COLUMNS, ROWS)
    for at in range(4, len(data)):
        broken = bytearray(data)
        broken[at] ^= 0x10
        with pytest.raises(ServiceError, match="checksum"):
            decoded(bytes(broken), COLUMNS)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 1 << 30])
def test_a_chunk_size_beyond_reason_is_refused(size):
    with pytest.raises(ServiceError, match="announces chunks"):
        decoded(struct.pack("!I", size) + b"abc", COLUMNS)


def test_timestamps_are_structs_in_results_only():
    columns = tuple(
        Column(name, parse_type(kind))
        for name, kind in [("t", "timestamp"), ("n", "timestamp_ntz"), ("d", "datetime")]
    )
    rows = pa.RecordBatch.from_arrays(
        [
            pa.array([-1, None, 1_500_000_000], pa.timestamp("ns")),
            pa.array([0, 2, None], pa.timestamp("ns")),
            pa.array([0, 1, 2], pa.timestamp("ms")),
        ],
        schema=arrow_schema(columns),
    )
    schema = wire_schema(columns, timestamps_as_structs=True)
    body = schema.serialize().to_pybytes() + payload(
        encoded(columns, rows, timestamps_as_structs=True)
    )
    table = pa.ipc.open_stream(body).read_all()
    assert table["t"].to_pylist() == [
        {"sec": -1, "nano": 999_999_999},
        None,
        {"sec": 1, "nano": 500_000_000},
    ]
    assert table["n"].to_pylist()[2] is None
    assert table["d"].type == pa.timestamp("ms")
    assert wire_schema(columns).field("t").type == pa.timestamp("ns")


def test_plain_decimals_travel_as_the_client_expects_them():
    columns = (Column("d", parse_type("decimal")), Column("e", parse_type("decimal(10,2)")))
    assert wire_schema(columns).types == [pa.decimal256(54, 18), pa.decimal128(10, 2)]
