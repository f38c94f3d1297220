import io

import pyarrow as pa
import pytest
from column_values import batches
from hypothesis import HealthCheck, given, settings

from maxcompute_emulator.errors import ServiceError
from maxcompute_emulator.types import Column, arrow_schema, parse_type
from maxcompute_emulator.wire.record_decoder import decode_records
from maxcompute_emulator.wire.record_encoder import encode_records
from maxcompute_emulator.wire.varints import varint

COLUMNS = tuple(
    Column(name, parse_type(kind))
    for name, kind in [("a", "bigint"), ("b", "string"), ("c", "double")]
)
ROWS = pa.RecordBatch.from_pydict(
    {"a": [1, -2], "b": ["xy", None], "c": [1.5, None]}, schema=arrow_schema(COLUMNS)
)
# Two rows as the service writes them: (1, "xy", 1.5), (-2, NULL, NULL).
GOLDEN = bytes.fromhex(
    "0802120278791900000000 0000f83f80c0ff7fd3b2e68108"
    "080380c0ff7f87ca8bbb09"
    "f0ffff7f04f8ffff7ff1babde204".replace(" ", "")
)
# The same rows as the compiled client writes them: checksums above 2^31 take ten bytes.
FROM_COMPILED_CLIENT = bytes.fromhex(
    "08021202787919000000000000f83f80c0ff7fd3b2e681f8ffffffff01"
    "080380c0ff7f87ca8bbbf9ffffffff01"
    "f0ffff7f04f8ffff7ff1babde204"
)


def encoded(columns, *rows: pa.RecordBatch) -> bytes:
    return b"".join(encode_records(rows, columns))


def decoded(data: bytes, columns) -> pa.RecordBatch:
    found = list(decode_records(io.BytesIO(data), columns))
    schema = arrow_schema(columns)
    table = pa.Table.from_batches(found, schema).combine_chunks()
    return (table.to_batches() or [pa.RecordBatch.from_pylist([], schema)])[0]


def test_golden_bytes_out():
    assert encoded(COLUMNS, ROWS) == GOLDEN


@pytest.mark.parametrize("data", [GOLDEN, FROM_COMPILED_CLIENT])
def test_golden_bytes_in(data):
    assert decoded(data, COLUMNS).equals(ROWS)


@given(batches())
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_all_types_round_trip(case):
    columns, rows = case
    assert decoded(encoded(columns, rows), columns).equals(rows)


@given(batches())
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=30)
def test_a_slice_is_encoded_as_its_copy(case):
    columns, rows = case
    part = rows.slice(1, 3)
    assert encoded(columns, part) == encoded(
        columns, part.take(pa.array(range(part.num_rows), pa.int64()))
    )


def test_no_rows():
    data = encoded(COLUMNS)
    assert decoded(data, COLUMNS).num_rows == 0
    assert data == bytes.fromhex("f0ffff7f00f8ffff7f00")


def test_columns_in_the_order_they_were_asked_for():
    assert decoded(encoded(COLUMNS[::-1], ROWS), COLUMNS[::-1]).column("a").to_pylist() == [1, -2]


def test_rows_come_in_batches_of_bounded_size():
    rows = pa.RecordBatch.from_pydict({"a": range(20_000)}, schema=arrow_schema(COLUMNS[:1]))
    found = list(decode_records(io.BytesIO(encoded(COLUMNS[:1], rows)), COLUMNS[:1]))
    assert len(found) > 1
    assert [v for batch in found for v in batch.column(0).to_pylist()] == list(range(20_000))


def test_text_longer_than_what_is_read_at_once():
    text = "x" * 5_000_000
    rows = pa.RecordBatch.from_pydict({"b": [text, text]}, schema=arrow_schema(COLUMNS[1:2]))
    assert decoded(encoded(COLUMNS[1:2], rows), COLUMNS[1:2]).equals(rows)


def test_bytes_that_are_not_utf8_pass():
    column = COLUMNS[1:2]
    data = pa.array([b"\xff\xfe", b"ok"], pa.binary())
    rows = pa.RecordBatch.from_arrays([data.view(pa.string())], schema=arrow_schema(column))
    assert decoded(encoded(column, rows), column).column(0).view(pa.binary()).equals(data)


@pytest.mark.parametrize("at", range(len(GOLDEN)))
def test_every_truncation_is_refused(at):
    with pytest.raises(ServiceError) as caught:
        decoded(GOLDEN[:at], COLUMNS)
    assert caught.value.code == "MalformedDataStream"


@pytest.mark.parametrize("at", range(len(GOLDEN)))
def test_every_changed_byte_is_refused(at):
    broken = bytearray(GOLDEN)
    broken[at] ^= 0x01
    with pytest.raises(ServiceError) as caught:
        decoded(bytes(broken), COLUMNS)
    assert caught.value.code == "MalformedDataStream"


def test_a_cell_above_the_limit_is_refused_before_it_is_read():
    data = varint(2 << 3 | 2) + varint(8 * 1024 * 1024 + 1)
    with pytest.raises(ServiceError, match="Column 'b': a value has 8388609 bytes"):
        decoded(data, COLUMNS)


def test_a_number_too_large_for_its_column():
    wide = (Column("a", parse_type("bigint")),)
    data = encoded(wide, pa.RecordBatch.from_pydict({"a": [300]}))
    with pytest.raises(ServiceError, match="Column 'a' of type tinyint"):
        decoded(data, (Column("a", parse_type("tinyint")),))


def test_decimals_are_rounded_to_their_scale_and_refused_beyond_their_precision():
    text = (Column("a", parse_type("string")),)
    decimal = (Column("a", parse_type("decimal(5,2)")),)
    fits = encoded(text, pa.RecordBatch.from_pydict({"a": ["1.005", "-999.994", "1E+2"]}))
    found = decoded(fits, decimal).column(0).to_pylist()
    assert [str(value) for value in found] == ["1.01", "-999.99", "100.00"]
    with pytest.raises(ServiceError, match="does not fit into decimal\\(5,2\\)"):
        decoded(encoded(text, pa.RecordBatch.from_pydict({"a": ["1000"]})), decimal)
    with pytest.raises(ServiceError, match="is no decimal"):
        decoded(encoded(text, pa.RecordBatch.from_pydict({"a": ["x"]})), decimal)
