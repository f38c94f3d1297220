"""State: rows in segments, staged uploads, snapshots, partitions, and what a file keeps."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from maxcompute_emulator.errors import ServiceError
from maxcompute_emulator.sql import execute
from maxcompute_emulator.types import Column, TimeTruncation, arrow_schema, parse_type
from maxcompute_emulator.warehouse import (
    Clustering,
    Part,
    StoredColumn,
    Table,
    TableRecord,
    Warehouse,
)
from maxcompute_emulator.warehouse.partition_spec import full_values, parse_spec
from maxcompute_emulator.warehouse.records import (
    part_from_json,
    part_to_json,
    table_from_json,
    table_to_json,
)

DAY_S = 86400


@pytest.fixture
def warehouse() -> Iterator[Warehouse]:
    warehouse = Warehouse(None, projects=["demo"])
    yield warehouse
    warehouse.close()


def make(warehouse: Warehouse, name: str = "t", keys: str = "", **columns: str) -> Table:
    stored = tuple(
        StoredColumn(number, Column(column, parse_type(kind)))
        for number, (column, kind) in enumerate((columns or {"a": "bigint"}).items())
    )
    partition_columns = tuple(Column(key, parse_type("string")) for key in keys.split())
    return warehouse.create(
        TableRecord(
            0,
            "demo",
            "default",
            name,
            stored,
            0,
            0,
            0,
            "me",
            partition_columns,
            next_column_id=len(stored),
        )
    )


def batch(*values: int) -> pa.RecordBatch:
    return pa.record_batch({"a": pa.array(values, pa.int64())})


def rows(snapshot, start: int = 0, count: int = 10**9, columns=None) -> list[tuple]:
    found = []
    for item in snapshot.read(start, count, columns):
        found += zip(*(column.to_pylist() for column in item.columns), strict=True)
    return found


def upload(warehouse: Warehouse, table: Table, *values: int, **options) -> None:
    session = warehouse.begin_upload(table, **options)
    session.write_block(0, [batch(*values)])
    session.commit([0])


def now(warehouse: Warehouse, name: str = "t") -> Table:
    return warehouse.table("demo", None, name)


def test_blocks_show_in_the_order_of_their_ids_and_only_at_the_commit(warehouse) -> None:
    table = make(warehouse)
    session = warehouse.begin_upload(table)
    session.write_block(7, [batch(5, 6)])
    session.write_block(2, [batch(1), batch(2, 3)])
    session.write_block(9, [batch(99)])
    assert session.blocks() == [2, 7, 9]
    assert now(warehouse).record_count == 0
    session.commit([7, 2])
    assert rows(now(warehouse).snapshot()) == [(1,), (2,), (3,), (5,), (6,)]


def test_a_block_sent_again_replaces_and_a_failed_one_leaves_it(warehouse) -> None:
    session = warehouse.begin_upload(make(warehouse))

    def broken() -> Iterator[pa.RecordBatch]:
        yield batch(8)
        raise ServiceError("MalformedDataStream", "cut")

    session.write_block(0, [batch(1)])
    session.write_block(0, [batch(2)])
    with pytest.raises(ServiceError, match="cut"):
        session.write_block(0, broken())
    session.commit([0])
    assert rows(now(warehouse).snapshot()) == [(2,)]


def test_a_second_commit_and_a_missing_block_are_conflicts(warehouse) -> None:
    session = warehouse.begin_upload(make(warehouse))
    session.write_block(0, [batch(1)])
    with pytest.raises(ServiceError, match="StatusConflict"):
        session.commit([0, 1])
    session.commit([0])
    for call in (lambda: session.commit([0]), lambda: session.write_block(1, [batch(1)])):
        with pytest.raises(ServiceError, match="StatusConflict"):
            call()
    assert rows(now(warehouse).snapshot()) == [(1,)]


def test_overwrite_replaces_and_append_adds(warehouse) -> None:
    table = make(warehouse)
    upload(warehouse, table, 1, 2)
    upload(warehouse, table, 3)
    assert rows(now(warehouse).snapshot()) == [(1,), (2,), (3,)]
    upload(warehouse, table, 9, overwrite=True)
    assert rows(now(warehouse).snapshot()) == [(9,)]


def test_ranges_cross_segments_and_stop_at_the_end(warehouse) -> None:
    table = make(warehouse)
    for start in range(0, 40, 10):
        upload(warehouse, table, *range(start, start + 10))
    snapshot = now(warehouse).snapshot()
    assert rows(snapshot, 7, 6) == [(n,) for n in range(7, 13)]
    assert rows(snapshot, 38, 100) == [(38,), (39,)]
    assert rows(snapshot, 40, 1) == []


def test_many_small_uploads_become_few_segments_in_the_same_order(warehouse) -> None:
    table = make(warehouse)
    for value in range(100):
        upload(warehouse, table, value)
    assert len(now(warehouse).record.parts[()].segments) < 40
    assert rows(now(warehouse).snapshot()) == [(value,) for value in range(100)]


def test_a_snapshot_refuses_once_its_data_changed(warehouse) -> None:
    table = make(warehouse)
    upload(warehouse, table, 1)
    snapshot = now(warehouse).snapshot()
    assert rows(snapshot) == [(1,)]
    running = snapshot.read(0, 1)
    upload(warehouse, table, 2)
    assert [item.num_rows for item in running] == [1]
    with pytest.raises(ServiceError, match="TableModified"):
        rows(snapshot)
    warehouse.drop(now(warehouse))
    with pytest.raises(ServiceError, match="TableModified"):
        rows(snapshot)


def test_partitions_are_separate_and_give_their_keys_when_asked(warehouse) -> None:
    table = make(warehouse, keys="ds h")
    with pytest.raises(ServiceError, match="NoSuchPartition"):
        warehouse.begin_upload(table, "ds='1',h='2'")
    with pytest.raises(ServiceError, match="MissingPartitionSpec"):
        warehouse.begin_upload(table)
    upload(warehouse, table, 1, partition="ds=1,h=2", create_partition=True)
    upload(warehouse, table, 2, partition="h='3'/ds=\"1\"", create_partition=True)
    table = now(warehouse)
    assert list(table.partitions) == [("1", "2"), ("1", "3")]
    assert rows(table.snapshot("ds=1,h=3"), columns=["H", "a"]) == [(2, "3")]
    with pytest.raises(ServiceError, match="InvalidColumnSpec"):
        table.snapshot("ds=1,h=3").read(0, 1, ["nosuch"])
    other = table.snapshot("ds=1,h=2")
    upload(warehouse, table, 5, partition="ds=1,h=3")
    assert rows(other) == [(1,)]


@pytest.mark.parametrize("text", ["ds", "ds=1,h", "=1", "ds='1", "x=1"])
def test_bad_specifications(text: str) -> None:
    with pytest.raises(ServiceError, match="InvalidPartitionSpec"):
        full_values([Column("ds", parse_type("string"))], text)


def test_values_keep_commas_inside_quotes_and_numbers_one_spelling() -> None:
    assert parse_spec("ds='a,b/c', h = 3") == {"ds": "a,b/c", "h": "3"}
    assert full_values([Column("n", parse_type("bigint"))], "n=007") == ("7",)


ALL_TYPES = {
    "i8": "tinyint",
    "i16": "smallint",
    "i32": "int",
    "i64": "bigint",
    "f32": "float",
    "f64": "double",
    "dec": "decimal(30,5)",
    "s": "string",
    "b": "binary",
    "bo": "boolean",
    "d": "date",
    "dt": "datetime",
    "ts": "timestamp",
    "ntz": "timestamp_ntz",
    "day": "interval_day_time",
    "month": "interval_year_month",
    "j": "json",
    "arr": "array<datetime>",
    "m": "map<string,array<timestamp>>",
    "st": "struct<x:decimal(5,2),y:array<struct<z:datetime>>>",
}
ROW = {
    "i8": -128,
    "i16": 2,
    "i32": 3,
    "i64": 2**63 - 1,
    "f32": 0.5,
    "f64": 1e300,
    "dec": Decimal("123456789012345678901234.56789"),
    "s": "中\x00,",
    "b": b"\xff\x00",
    "bo": True,
    "d": -1,
    "dt": -1,
    "ts": 1_700_000_000_123_456_789,
    "ntz": -1,
    "day": {"sec": 5, "nano": 999},
    "month": -7,
    "j": '{"a": [1, null]}',
    "arr": [1, None],
    "m": [("k", [1, None])],
    "st": {"x": Decimal("1.25"), "y": [{"z": 86_400_000}]},
}


def test_every_type_comes_back_as_it_went_in(tmp_path: Path) -> None:
    file = tmp_path / "state.duckdb"
    warehouse = Warehouse(file, projects=["demo"])
    table = make(warehouse, **ALL_TYPES)
    nothing = dict.fromkeys(ALL_TYPES)
    schema = arrow_schema(table.columns)
    sent = pa.RecordBatch.from_arrays(
        [pa.array([ROW[field.name], nothing[field.name]], field.type) for field in schema],
        schema=schema,
    )
    session = warehouse.begin_upload(table)
    session.write_block(0, [sent])
    session.commit([0])
    for _ in range(2):
        (got,) = now(warehouse).snapshot().read(0, 10)
        assert got.equals(sent)
        warehouse.close()
        warehouse = Warehouse(file)
    warehouse.close()


def test_bytes_that_are_no_text_come_back(warehouse) -> None:
    table = make(warehouse, s="string")
    values = [b"\xe9\x80", "é中\U0010fffd"[:2].encode(), None, b"\xff"]
    raw = pa.array(values, pa.binary()).view(pa.string())
    session = warehouse.begin_upload(table)
    session.write_block(0, [pa.record_batch({"s": raw})])
    session.commit([0])
    (got,) = now(warehouse).snapshot().read(0, 9)
    assert got.column(0).view(pa.binary()).to_pylist() == values
    outcome = execute(warehouse, "demo", None, "select s from t", {})
    (got,) = outcome.rows.snapshot(warehouse).read(0, 9)
    assert got.column(0).view(pa.binary()).to_pylist() == values


def test_a_cell_over_the_limit_is_refused(warehouse) -> None:
    session = warehouse.begin_upload(make(warehouse, s="string"))
    with pytest.raises(ServiceError, match="holds at most"):
        session.write_block(0, [pa.record_batch({"s": ["x" * (8 * 1024 * 1024 + 1)]})])
    assert session.blocks() == []


def test_a_file_keeps_everything_but_blocks_without_a_commit(tmp_path: Path) -> None:
    file = tmp_path / "state.duckdb"
    warehouse = Warehouse(file, projects=["demo"])
    warehouse.create_schema("demo", "s1", "words")
    table = make(warehouse, keys="ds")
    upload(warehouse, table, 1, 2, partition="ds=1", create_partition=True)
    session = warehouse.begin_upload(now(warehouse), "ds=1")
    session.write_block(0, [batch(3)])
    warehouse.close()
    warehouse = Warehouse(file)
    assert [schema.name for schema in warehouse.schemas("demo")] == ["default", "s1"]
    assert rows(now(warehouse).snapshot("ds=1")) == [(1,), (2,)]
    upload(warehouse, now(warehouse), 4, partition="ds=1")
    assert rows(now(warehouse).snapshot("ds=1")) == [(1,), (2,), (4,)]
    left = warehouse.storage.cursor().execute(
        "SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'data'"
    )
    assert left.fetchone() == (2,)
    warehouse.close()


def test_names_are_one_in_any_case(warehouse) -> None:
    make(warehouse, "t")
    assert warehouse.table("DEMO", "Default", "T").name == "t"
    with pytest.raises(ServiceError, match="already exists"):
        make(warehouse, "T")


@pytest.mark.parametrize(
    ("look", "code"),
    [
        (lambda w: w.table("nosuch", None, "t"), "NoSuchProject"),
        (lambda w: w.table("demo", "nosuch", "t"), "NoSuchSchema"),
        (lambda w: w.table("demo", None, "nosuch"), "ODPS-0130131"),
    ],
)
def test_missing_things(warehouse, look: Callable, code: str) -> None:
    with pytest.raises(ServiceError, match=code):
        look(warehouse)


def test_lifecycles_end_by_the_clock() -> None:
    time_s = [1_000_000.0]
    warehouse = Warehouse(None, projects=["demo"], clock=lambda: time_s[0])
    for statement in (
        "create table short (a bigint) lifecycle 1",
        "create table long (a bigint) lifecycle 30",
        "create table parts (a bigint) partitioned by (ds string) lifecycle 2",
        "alter table parts add partition (ds='1')",
    ):
        execute(warehouse, "demo", None, statement, {})
    time_s[0] += 1.5 * DAY_S
    execute(warehouse, "demo", None, "alter table parts add partition (ds='2')", {})
    assert [table.name for table in warehouse.tables("demo", None)] == ["long", "parts"]
    time_s[0] += DAY_S
    warehouse.expire()
    assert list(now(warehouse, "parts").partitions) == [("2",)]
    warehouse.close()


def test_threads_write_read_and_query_side_by_side(warehouse) -> None:
    table = make(warehouse)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for step in range(5):
                upload(warehouse, table, number * 100 + step)
                execute(warehouse, "demo", None, "select count(*) from t", {})
                execute(warehouse, "demo", None, f"insert into t values ({number * 100 + 50})", {})
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert now(warehouse).record_count == 60


def test_wide_rows_lie_in_small_segments(tmp_path: Path) -> None:
    path = tmp_path / "wide.duckdb"
    warehouse = Warehouse(path, projects=["demo"])
    table = make(warehouse, a="string")
    upload = warehouse.begin_upload(table)
    texts = [str(number) * 500_000 for number in range(10)] * 8
    upload.write_block(0, [pa.record_batch({"a": pa.array(texts)})])
    upload.commit([0])
    table = warehouse.table("demo", None, "t")
    sizes = [segment.size_bytes for segment in table.part(None).segments]
    assert len(sizes) > 1
    assert max(sizes) < 11 * 1024 * 1024
    assert rows(table.snapshot()) == [(text,) for text in texts]
    assert rows(table.snapshot(), 61, 1) == [(texts[61],)]
    warehouse.close()


def test_a_file_is_read_within_bounded_memory(tmp_path: Path) -> None:
    with_file = Warehouse(tmp_path / "x.duckdb", projects=["demo"])
    limit = with_file.storage.cursor().execute("SELECT current_setting('memory_limit')").fetchone()
    with_file.close()
    assert limit == ("953.6 MiB",)


def test_records_of_earlier_versions_are_read() -> None:
    part = Part(("1",), 1.0, 2.0, 3.0, 4, storage_tier="standard")
    assert part_from_json(part_to_json(part)) == part
    old = json.loads(part_to_json(part))
    del old["storage_tier"]
    assert part_from_json(json.dumps(old)) == replace(part, storage_tier="")
    columns = (StoredColumn(0, Column("d", parse_type("datetime"))),)
    key = Column("pt", parse_type("string"), generated=TimeTruncation("d", "day"))
    record = TableRecord(1, "demo", "default", "t", columns, 0, 0, 0, "me", (key,))
    clustered = replace(record, clustering=Clustering("hash", ("d",), (("d", "asc"),), 4))
    assert table_from_json(table_to_json(clustered), {}) == clustered
    assert table_from_json(table_to_json(record), {}) == record
    body = json.loads(table_to_json(record))
    del body["clustering"]
    body["partition_columns"] = [item[:4] for item in body["partition_columns"]]
    plain = replace(record, partition_columns=(replace(key, generated=None),))
    assert table_from_json(json.dumps(body), {}) == plain
