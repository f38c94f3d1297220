"""Readers and writers of tables in every mode, as users of the real client open them."""

from datetime import date, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from odps import errors, options
from odps.compat import Monthdelta
from odps.types import PartitionSpec

COLUMNS = {"a": "bigint", "b": "string"}
ALGORITHMS = [None, "zlib", "zstd", "lz4", "snappy"]


def rows(n: int) -> list[list]:
    return [[i, None if i % 3 == 0 else f"值{i}"] for i in range(n)]


def frame(n: int) -> pd.DataFrame:
    return pd.DataFrame({"a": range(n), "b": [f"值{i}" for i in range(n)]})


@pytest.fixture
def table(odps, make_table):
    """An empty table, as the client's object."""
    return odps.get_table(make_table(**COLUMNS).name)


@pytest.fixture
def parted(odps, make_table):
    """An empty table with two partition keys, as the client's object."""
    return odps.get_table(make_table({"ds": "string", "h": "bigint"}, **COLUMNS).name)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("blocks", [None, [2, 0, 1]])
def test_records(table, algorithm, blocks):
    option = {"compress_algo": algorithm} if algorithm else {}
    with table.open_writer(blocks=blocks, **option) as writer:
        if blocks is None:
            writer.write(rows(5))
            writer.write(table.new_record([5, "值5"]))
        else:
            for block in blocks:
                writer.write(block, rows(6)[2 * block : 2 * block + 2])
    with table.open_reader(**option) as reader:
        assert reader.count == 6
        assert [record.values for record in reader] == rows(5) + [[5, "值5"]][: blocks is None] + (
            rows(6)[5:] if blocks else []
        )
        assert [record[0] for record in reader[1:5:2]] == [1, 3]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("kind", ["pandas", "table", "batch"])
def test_arrow(table, algorithm, kind):
    option = {"compress_algo": algorithm} if algorithm else {}
    data = {
        "pandas": frame(1000),
        "table": pa.Table.from_pandas(frame(1000)),
        "batch": pa.RecordBatch.from_pandas(frame(1000)),
    }[kind]
    with table.open_writer(arrow=True, **option) as writer:
        writer.write(data)
    with table.open_reader(arrow=True, **option) as reader:
        assert reader.count == 1000
        pd.testing.assert_frame_equal(reader.to_pandas(), frame(1000))
    with table.open_reader(arrow=True, columns=["b"], reopen=True, **option) as reader:
        assert reader.read_all().to_pydict() == {"b": frame(1000)["b"].to_list()}


def test_append_overwrite_and_reopen(table):
    for n in (2, 3):
        with table.open_writer() as writer:
            writer.write(rows(n))
    with table.open_reader(reopen=True) as reader:
        assert [record.values for record in reader] == rows(2) + rows(3)
    with table.open_writer(overwrite=True) as writer:
        writer.write(rows(1))
    with table.open_reader(reopen=True) as reader:
        assert [record.values for record in reader] == rows(1)


def test_a_reader_that_is_not_reopened_keeps_its_session(table, control):
    with table.open_writer() as writer:
        writer.write(rows(2))
    for _ in range(3):
        with table.open_reader() as reader:
            assert reader.count == 2
    assert len(control.requests("POST", "downloads")) == 1


def test_nothing_is_shown_where_the_writer_fails(table):
    def write() -> None:
        with table.open_writer() as writer:
            writer.write(rows(3))
            raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        write()
    with table.open_reader() as reader:
        assert reader.count == 0


@pytest.mark.parametrize("arrow", [False, True])
def test_partitions(parted, arrow):
    with pytest.raises(errors.NoSuchObject):
        parted.open_writer("ds=1,h=2")
    with parted.open_writer("ds=1,h=2", create_partition=True, arrow=arrow) as writer:
        writer.write(frame(3) if arrow else rows(3))
    assert parted.exist_partition("ds=1,h=2")
    with parted.open_reader("ds=1,h=2", append_partitions=False, arrow=arrow) as reader:
        assert list(reader.to_pandas().columns) == ["a", "b"]
    with parted.open_reader("ds=1,h=2", append_partitions=True, arrow=arrow, reopen=True) as reader:
        found = reader.to_pandas()
    assert list(found.columns) == ["a", "b", "ds", "h"]
    assert found["ds"].to_list() == ["1"] * 3
    # The client takes partition keys out of the request, so for records they must come last.
    chosen = ["ds", "a"] if arrow else ["a", "ds"]
    with parted.open_reader(
        PartitionSpec("ds=1,h=2"), columns=chosen, arrow=arrow, reopen=True
    ) as reader:
        found = reader.to_pandas()
    assert list(found.columns) == chosen
    assert found["a"].to_list() == [0, 1, 2]
    with pytest.raises(errors.ODPSError, match="MissingPartitionSpec"):
        parted.open_reader()


def test_whole_tables_as_pandas(table):
    with table.open_writer(arrow=True) as writer:
        writer.write(frame(1000))
    assert len(table.to_pandas(start=10, count=20)) == 20
    assert list(table.to_pandas(columns=["b"], start=990).columns) == ["b"]
    parts = list(table.iter_pandas(columns=["a"], start=10, count=30, batch_size=10))
    assert [part["a"].to_list() for part in parts] == [
        list(range(at, at + 10)) for at in (10, 20, 30)
    ]


def test_tables_by_name(odps, table, parted):
    odps.write_table(table.name, rows(4))
    assert [record.values for record in odps.read_table(table.name)] == rows(4)
    assert [record[0] for record in odps.read_table(table.name, limit=2)] == [0, 1]
    odps.write_table(table.name, frame(2), overwrite=True)
    assert len(odps.get_table(table.name).to_pandas()) == 2
    odps.write_table(parted.name, rows(2), partition="ds=1,h=1", create_partition=True)
    found = odps.read_table(parted.name, partition="ds=1,h=1")
    assert [record.values[:2] for record in found] == rows(2)
    dynamic = frame(4).assign(ds=["1", "1", "2", "2"], h=[1, 2, 1, 2])
    odps.write_table(parted.name, dynamic, partition_cols=["ds", "h"], create_partition=True)
    assert [p.name for p in parted.partitions] == [
        f"ds='{ds}',h='{h}'" for ds in (1, 2) for h in (1, 2)
    ]


def test_the_first_rows(table):
    with table.open_writer() as writer:
        writer.write(rows(5))
    for legacy in (True, False):
        found = table.head(3, use_legacy=legacy)
        assert [record.values for record in found] == rows(3)


RECORD_VALUES = {
    "tinyint": [-128, 127],
    "smallint": [-(2**15), 2**15 - 1],
    "int": [-(2**31), 2**31 - 1],
    "bigint": [-(2**63) + 1, 2**63 - 1],
    "float": [-1.5, float("inf")],
    "double": [-1e308, 5e-324],
    "boolean": [True, False],
    "string": ["", "中文\0\n😀"],
    "varchar(10)": ["abc", "中文"],
    "binary": [b"", b"\xff\x00"],
    "date": [date(1, 1, 1), date(9999, 12, 31)],
    "datetime": [datetime(1970, 1, 2), datetime(2025, 9, 19, 8, 5, 3, 999000)],
    "timestamp": [
        pd.Timestamp("1970-01-02 00:00:00.000000001"),
        pd.Timestamp("2262-04-01 23:47:16.854775807"),
    ],
    "timestamp_ntz": [
        pd.Timestamp("1970-01-02 00:00:00.000000001"),
        pd.Timestamp("2262-04-01 23:47:16.854775807"),
    ],
    "decimal(38,18)": [Decimal("-12345678901234567890.123456789012345678"), Decimal("0")],
    "decimal(10,2)": [Decimal("99999999.99"), Decimal("-0.01")],
    "decimal": [Decimal("1234567898765431"), Decimal("-0.000000000000000001")],
    "interval_day_time": [
        pd.Timedelta(seconds=1048576, nanoseconds=428571428),
        pd.Timedelta(seconds=-5, nanoseconds=7),
    ],
    "interval_year_month": [Monthdelta(13), Monthdelta(-20)],
    "json": [{"a": [1, None, "中"]}, "text"],
    "array<string>": [[], ["x", None]],
    "map<string,array<bigint>>": [{}, {"k": [1, None], "n": None}],
    "struct<a:bigint,b:struct<c:string>>": [(1, ("x",)), (None, (None,))],
    "array<decimal(38,18)>": [[Decimal("12.345"), None], [Decimal("-1")]],
    "array<timestamp>": [[pd.Timestamp("2025-09-19 08:00:00.123456789")], [None]],
}


def test_all_types_as_records(odps, make_table):
    names = {f"c{place}": kind for place, kind in enumerate(RECORD_VALUES)}
    table = odps.get_table(make_table(**names).name)
    wanted = [list(values) for values in zip(*RECORD_VALUES.values(), strict=True)]
    wanted.append([None] * len(names))
    with table.open_writer() as writer:
        writer.write(wanted)
    with table.open_reader() as reader:
        found = [record.values for record in reader]
    for column, kind in enumerate(RECORD_VALUES):
        assert [row[column] for row in found] == [row[column] for row in wanted], kind


ARROW_VALUES = {
    "tinyint": pa.array([-128, None, 127], pa.int8()),
    "smallint": pa.array([-(2**15), None, 2**15 - 1], pa.int16()),
    "int": pa.array([-(2**31), None, 2**31 - 1], pa.int32()),
    "bigint": pa.array([-(2**63), None, 2**63 - 1], pa.int64()),
    "float": pa.array([-1.5, None, np.inf], pa.float32()),
    "double": pa.array([-1e308, None, 5e-324], pa.float64()),
    "boolean": pa.array([True, None, False]),
    "string": pa.array(["", None, "中文\0😀"]),
    "varchar(10)": pa.array(["abc", None, "中文"]),
    "binary": pa.array([b"", None, b"\xff\x00"]),
    "date": pa.array([date(1, 1, 1), None, date(9999, 12, 31)]),
    "datetime": pa.array([0, None, 1_758_240_303_999], pa.timestamp("ms")),
    "timestamp": pa.array([0, None, 1_758_240_303_123_456_789], pa.timestamp("ns")),
    "timestamp_ntz": pa.array([-1, None, 1_758_240_303_123_456_789], pa.timestamp("ns")),
    "decimal(10,2)": pa.array([Decimal("99999999.99"), None, Decimal("-0.01")]).cast(
        pa.decimal128(10, 2)
    ),
    "decimal": pa.array([Decimal("1.5"), None, Decimal("-2")]).cast(pa.decimal256(54, 18)),
    "interval_day_time": pa.array(
        [{"sec": -1, "nano": 5}, None, {"sec": 2, "nano": 0}],
        pa.struct([("sec", pa.int64()), ("nano", pa.int32())]),
    ),
    "array<string>": pa.array([[], None, ["x", None]], pa.list_(pa.string())),
    "map<string,bigint>": pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())),
    "struct<a:bigint,b:string>": pa.array([{"a": 1, "b": None}, None, {"a": None, "b": "x"}]),
}


def test_all_types_as_arrow(odps, make_table):
    names = {f"c{place}": kind for place, kind in enumerate(ARROW_VALUES)}
    table = odps.get_table(make_table(**names).name)
    wanted = pa.table(dict(zip(names, ARROW_VALUES.values(), strict=True)))
    options.local_timezone = False
    try:
        with table.open_writer(arrow=True) as writer:
            writer.write(wanted)
        with table.open_reader(arrow=True) as reader:
            found = reader.read_all()
    finally:
        options.local_timezone = None
    for name, kind in names.items():
        assert found[name].to_pylist() == wanted[name].to_pylist(), kind
