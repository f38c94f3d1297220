"""Tables, partitions, schemas and projects through the real client."""

import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from odps import ODPS, errors, options
from odps.models import Table, TableSchema
from odps.types import Column, Partition, PartitionSpec

from maxcompute_emulator.warehouse import Warehouse


@pytest.fixture
def name(odps: ODPS, request: pytest.FixtureRequest) -> Iterator[str]:
    """A table name of the test's own; the table is dropped afterwards."""
    name = request.node.originalname
    yield name
    odps.delete_table(name, if_exists=True)


SCHEMA = TableSchema.from_lists(["id", "name"], ["bigint", "string"], ["ds"], ["string"])


def test_a_table_loads_what_it_is_asked_for(odps: ODPS, name: str) -> None:
    table = odps.create_table(name, SCHEMA, lifecycle=1)
    assert table is odps.get_table(name)
    assert not table.is_loaded
    assert table._getattr("owner") is None
    assert (table.is_archived, table.physical_size, table.file_num) == (False, 0, 0)
    assert abs(table.creation_time - datetime.now()) < timedelta(minutes=1)
    assert isinstance(table.last_data_modified_time, datetime)
    assert isinstance(table.last_meta_modified_time, datetime)
    assert table.table_schema == SCHEMA
    assert (table.lifecycle, table.size, table.is_virtual_view) == (1, 0, False)
    assert isinstance(table.owner, str)
    assert isinstance(table.table_label, str)
    assert table.is_loaded
    assert table.type == Table.Type.MANAGED_TABLE
    assert table is odps.get_table(table.full_table_name)
    assert "LIFECYCLE 1" in table.get_ddl()


def test_tables_are_created_in_every_way(odps: ODPS, name: str) -> None:
    for given in (
        SCHEMA,
        ("id bigint, name string", "ds string"),
        TableSchema(
            columns=[Column("id", "bigint"), Column("name", "string")],
            partitions=[Partition("ds", "string")],
        ),
    ):
        odps.delete_table(name, if_exists=True)
        assert not odps.exist_table(name)
        table = odps.create_table(name, given, lifecycle=10, comment='it\'s \\ a "table"\n')
        assert (table.table_schema, table.lifecycle) == (SCHEMA, 10)
        assert table.comment == 'it\'s \\ a "table"\n'
    with pytest.raises(errors.ODPSError, match="already exists"):
        odps.create_table(name, "a bigint")
    odps.create_table(name, "a bigint", if_not_exists=True)
    odps.delete_table(name)
    with pytest.raises(errors.NoSuchObject):
        odps.delete_table(name)
    waiting = odps.create_table(name, "a bigint", async_=True)
    waiting.wait_for_success()
    assert odps.exist_table(name)


def test_shards_keys_and_properties(odps: ODPS, name: str) -> None:
    table = odps.create_table(name, "a bigint", shard_num=10, hub_lifecycle=5)
    assert (table.shard.shard_num, table.shard.hub_lifecycle, table.lifecycle) == (10, 5, -1)
    table.drop()
    schema = TableSchema.from_lists(["key", "value"], ["string", "string"])
    schema["key"].nullable = False
    schema["key"].comment = "words"
    table = odps.create_table(name, schema, transactional=True, primary_key="key")
    table.reload()
    assert not table.table_schema["key"].nullable
    assert table.is_transactional
    assert table.primary_key == ["key"]


def test_chinese_names_and_comments(odps: ODPS, name: str) -> None:
    schema = TableSchema(
        columns=[Column("序列", "bigint", comment="注释"), Column("值", "string", comment="注释2")],
        partitions=[Partition("ds", "string", comment="分区注释")],
    )
    table = odps.create_table(name, schema, comment="表")
    table.reload()
    assert [column.name for column in table.table_schema.columns] == ["序列", "值", "ds"]
    assert [column.comment for column in table.table_schema.columns] == [
        "注释",
        "注释2",
        "分区注释",
    ]
    with table.open_writer("ds='一'", create_partition=True) as writer:
        writer.write([[1, "甲"]])
    with table.open_reader("ds='一'") as reader:
        assert [record.values for record in reader] == [[1, "甲", "一"]]
    result = odps.execute_sql(f"select `值`, ds from {name} where ds = '一'")
    with result.open_reader() as reader:
        assert [record.values for record in reader] == [["甲", "一"]]


EVERY_TYPE = [
    "tinyint",
    "smallint",
    "int",
    "bigint",
    "float",
    "double",
    "decimal(10,2)",
    "decimal",
    "string",
    "char(3)",
    "varchar(10)",
    "binary",
    "boolean",
    "date",
    "datetime",
    "timestamp",
    "timestamp_ntz",
    "json",
    "array<string>",
    "map<string,bigint>",
    "struct<a:string,b:array<bigint>>",
]


@pytest.fixture
def types2() -> Iterator[None]:
    """The client's hints ask for the type system 2.0."""
    options.sql.use_odps2_extension = True
    yield
    options.sql.use_odps2_extension = None


@pytest.mark.usefixtures("types2")
def test_every_type_is_kept(odps: ODPS, name: str) -> None:
    names = [f"c{number}" for number in range(len(EVERY_TYPE))]
    wanted = TableSchema.from_lists(names, EVERY_TYPE)
    table = odps.create_table(name, wanted)
    table.reload()
    assert [str(column.type) for column in table.table_schema.columns] == [
        str(column.type) for column in wanted.columns
    ]


def test_lists_are_filtered_and_paged(odps: ODPS, name: str, emulator) -> None:
    for number in range(3):
        odps.create_table(f"{name}_{number}", "a bigint", if_not_exists=True)
    odps.execute_sql(f"create view {name}_view as select a from {name}_0")
    found = [table.name for table in odps.list_tables(prefix=name)]
    assert found == [f"{name}_{number}" for number in range(3)] + [f"{name}_view"]
    first = next(odps.list_tables(prefix=name))
    assert not first.is_loaded
    assert first._getattr("owner") is not None
    assert first._getattr("creation_time") is None
    views = list(odps.list_tables(prefix=name, type="virtual_view"))
    assert [table.name for table in views] == [f"{name}_view"]
    assert views[0].view_text == f"select a from {name}_0"
    assert list(odps.list_tables(prefix=name, owner="nobody")) == []
    (wide, *_) = odps.list_tables(prefix=name, extended=True)
    assert wide._getattr("creation_time") is not None
    pages = odps.rest.get(
        f"{odps.endpoint}/projects/demo/tables", params={"name": name, "maxitems": 3}
    )
    assert "<Marker>3</Marker>" in pages.text
    odps.delete_view(f"{name}_view")
    for number in range(3):
        odps.delete_table(f"{name}_{number}")


def test_long_lists_come_in_pages(odps: ODPS, name: str, emulator) -> None:
    table = odps.create_table(name, ("a bigint", "ds string"))
    warehouse: Warehouse = emulator.warehouse
    values = [(f"{number:04d}",) for number in range(1500)]
    warehouse.add_partitions(warehouse.table("demo", None, name), values)
    assert [part.partition_spec["ds"] for part in table.partitions] == [v for (v,) in values]
    assert table.get_max_partition(skip_empty=False).partition_spec["ds"] == "1499"


def test_partitions(odps: ODPS, name: str) -> None:
    table = odps.create_table(name, ("id string", "type string, s string"))
    specs = ["type=test,s=0", "type='test',s='1'", "type=test,s=2", "type=test2,s=0"]
    for spec in specs:
        table.create_partition(spec)
    assert sorted(str(part.partition_spec) for part in table.partitions) == sorted(
        str(PartitionSpec(spec)) for spec in specs
    )
    table.create_partition(specs[0], if_not_exists=True)
    with pytest.raises(errors.ODPSError, match="already exists"):
        table.create_partition(specs[0])
    assert len(list(table.iterate_partitions("type=test"))) == 3
    assert len(list(table.iterate_partitions("s>0"))) == 2
    assert table.exist_partitions("type=test2")
    assert not table.exist_partitions("type=test3")
    assert table.exist_partition("type=test,s=0")
    assert not table.exist_partition("type=test,s=9")
    table.delete_partition(specs[0])
    table.delete_partition(specs[0], if_exists=True)
    with pytest.raises(errors.ODPSError):
        table.delete_partition(specs[0])
    part = table.get_partition(specs[1])
    assert (part.is_archived, part.is_exstore, part.lifecycle) == (False, False, -1)
    assert (part.physical_size, part.file_num, part.size) == (0, 0, 0)
    assert isinstance(part.creation_time, datetime)
    assert isinstance(part.last_meta_modified_time, datetime)
    assert isinstance(part.last_data_modified_time, datetime)
    with part.open_writer() as writer:
        writer.write([["index"]])
    with part.open_reader() as reader:
        assert [record.values[0] for record in reader] == ["index"]
    part.reload()
    assert part.record_num == 1
    part.truncate()
    part.drop()
    assert len(list(table.partitions)) == 2


def test_the_greatest_partition(odps: ODPS, name: str) -> None:
    table = odps.create_table(name, ("col string", "pt1 string, pt2 string"))
    for first, second in ("aa", "ab", "bc"):
        spec = f"pt1={first},pt2={second}"
        odps.write_table(name, [["value"]], partition=spec, create_partition=True)
    table.create_partition("pt1=c,pt2=e")
    found = table.get_max_partition()
    assert tuple(found.partition_spec.values()) == ("b", "c")
    found = table.get_max_partition(skip_empty=False)
    assert tuple(found.partition_spec.values()) == ("c", "e")
    assert table.get_max_partition("pt1=c") is None


def test_rows_are_previewed(odps: ODPS, name: str) -> None:
    table = odps.create_table(
        name, TableSchema.from_lists(["id", "name", "right"], ["bigint", "string", "boolean"])
    )
    rows = [
        [1, "aaa", True],
        [5940813139082772990, '中,"文"\n\\N', False],
        [3, None, None],
        [4, "\\n", True],
    ]
    odps.write_table(table, 0, [table.new_record(row) for row in rows])
    for legacy in (True, False):
        assert [record.values for record in table.head(9, use_legacy=legacy)] == rows
        assert [record.values for record in table.head(2, use_legacy=legacy)] == rows[:2]
    assert [r.values for r in table.head(1, columns=["name"], use_legacy=True)] == [["aaa"]]
    assert [record.values for record in odps.read_table(table, 4, step=2)] == rows[::2]
    table.truncate()
    assert list(odps.read_table(table)) == []


def test_a_table_is_altered(odps: ODPS, name: str) -> None:
    table = odps.create_table(name, "a bigint")
    before = table.last_meta_modified_time
    time.sleep(1.1)
    table.add_columns("b double, c string")
    table.rename_column("b", "bb", comment="words")
    table.delete_columns("c")
    table.set_lifecycle(3)
    table.set_comment("it's")
    table.touch()
    table.reload()
    assert [column.name for column in table.table_schema.columns] == ["a", "bb"]
    assert table.table_schema["bb"].comment == "words"
    assert (table.lifecycle, table.comment) == (3, "it's")
    assert table.last_meta_modified_time > before
    table.rename(f"{name}_new")
    assert not odps.exist_table(name)
    assert odps.get_table(f"{name}_new").table_schema.names == ["a", "bb"]
    odps.delete_table(f"{name}_new")
    odps.create_table(name, "col string")
    odps.execute_sql(f"ALTER TABLE {name} ADD COLUMN col2 string")
    assert "col2" in odps.get_table(name).table_schema


def test_missing_things_have_their_own_errors(odps: ODPS, name: str) -> None:
    with pytest.raises(errors.NoSuchTable):
        odps.get_table("nosuch").reload()
    with pytest.raises(errors.NoSuchProject):
        odps.get_project("nosuch").reload()
    assert not odps.exist_project("nosuch")
    assert odps.exist_project("demo")
    assert not odps.exist_table("nosuch")
    table = odps.create_table(name, SCHEMA)
    with pytest.raises(errors.NoSuchPartition):
        table.get_partition("ds=1").reload()


def test_projects_tenant_and_user(odps: ODPS) -> None:
    project = odps.get_project("other")
    assert isinstance(project.owner, str)
    assert isinstance(project.creation_time, datetime)
    assert len(project.properties) > 0
    assert len(project.extended_properties) > 0
    assert project.status.value == "AVAILABLE"
    assert {"demo", "other"} <= {found.name for found in odps.list_projects()}
    assert [found.name for found in odps.list_projects(prefix="oth")] == ["other"]
    assert odps.get_project().current_user.id == "1"
    assert odps._default_tenant.get_parameter("nothing") is None
    assert odps._default_tenant.name == "emulator"


def test_schemas_hold_tables_of_their_own(odps: ODPS, name: str) -> None:
    assert not odps.exist_schema("s1")
    odps.create_schema("s1")
    assert odps.exist_schema("s1")
    assert odps.get_schema("s1").owner
    assert "s1" in [schema.name for schema in odps.list_schemas()]
    with pytest.raises(errors.ODPSError, match="already exists"):
        odps.create_schema("s1")
    table = odps.create_table(name, ("a string", "pt string"), schema="s1", lifecycle=1)
    assert table.get_schema().name == "s1"
    assert not odps.exist_table(name)
    assert odps.exist_table(name, schema="s1")
    assert [found.name for found in odps.list_tables(schema="s1")] == [name]
    with table.open_writer(partition="pt='1'", create_partition=True) as writer:
        writer.write([["x"]])
    assert [part.name for part in table.partitions] == ["pt='1'"]
    with table.open_reader(partition="pt='1'") as reader:
        assert [record.values for record in reader] == [["x", "1"]]
    odps.execute_merge_files(table)
    table.delete_partition("pt='1'")
    with pytest.raises(errors.ODPSError):
        odps.delete_schema("s1")
    table.drop()
    odps.delete_schema("s1")
    assert not odps.exist_schema("s1")


def test_storage_tiers(odps: ODPS, name: str) -> None:
    table = odps.create_table(name, SCHEMA, storage_tier="standard")
    assert table.storage_tier_info.storage_tier.value == "standard"
    table.set_storage_tier("low_frequency")
    table.reload()
    assert table.storage_tier_info.storage_tier.value == "lowfrequency"
    partition = table.create_partition("ds=1")
    partition.set_storage_tier("long_term")
    assert partition.storage_tier_info.storage_tier.value == "longterm"


def test_the_client_knows_how_partitions_are_made(odps: ODPS, name: str) -> None:
    key = "trunc_time(at, 'day') as day"
    table = odps.create_table(name, ("at datetime, a bigint", key))
    odps.write_table(table, [[datetime(2025, 2, 21, 11), 1]], create_partition=True)
    assert [record.a for record in odps.read_table(table, partition="day=2025-02-21")] == [1]


def test_schemas_are_found_by_sql_as_well(odps: ODPS, monkeypatch: pytest.MonkeyPatch) -> None:
    from odps.models import schemas

    key = (odps.endpoint, odps.project)
    monkeypatch.setitem(schemas._project_has_schema_api, key, False)
    made = odps.create_schema("by_sql")
    assert made.owner
    assert odps.exist_schema("by_sql")
    assert "by_sql" in {schema.name for schema in odps.list_schemas()}
    made.drop()
    assert not odps.exist_schema("by_sql")


@pytest.mark.parametrize(
    "ask",
    [
        lambda odps: odps.create_resource("r.py", "py", fileobj="x"),
        lambda odps: odps.create_function("f", class_type="a.B", resources=[]),
        lambda odps: list(odps.list_volumes()),
        lambda odps: list(odps.list_xflows()),
        lambda odps: list(odps.list_offline_models()),
        lambda odps: odps.run_xflow("x", "y", {}),
        lambda odps: odps.run_sql_interactive("select 1"),
    ],
)
def test_what_is_not_carried_is_refused_in_words(odps: ODPS, ask) -> None:
    with pytest.raises(errors.ODPSError, match="the emulator does not carry this"):
        ask(odps)


def test_there_are_no_functions_and_resources(odps: ODPS) -> None:
    assert list(odps.list_functions()) == list(odps.list_resources()) == []
    assert not odps.exist_function("f")
    assert not odps.exist_resource("r")


def test_clustering_is_told_and_changed(odps: ODPS, name: str) -> None:
    columns = f"create table {name} (a string, c bigint)"
    odps.execute_sql(f"{columns} clustered by (c) sorted by (c desc, a) into 10 buckets")
    info = odps.get_table(name).cluster_info
    assert (info.cluster_type.value, info.bucket_num, info.cluster_cols) == ("hash", 10, ["c"])
    assert [(item.name, item.order.value) for item in info.sort_cols] == [
        ("c", "DESC"),
        ("a", "ASC"),
    ]
    odps.delete_table(name)
    odps.execute_sql(f"{columns} range clustered by (c)")
    table = odps.get_table(name)
    table.reload()
    assert (table.cluster_info.cluster_type.value, table.cluster_info.bucket_num) == ("range", 0)
    table.set_cluster_info(info)
    table.reload()
    assert table.cluster_info.cluster_type.value == "hash"
    table.set_cluster_info(None)
    table.reload()
    assert table.cluster_info is None


def test_views_of_both_kinds(odps: ODPS, name: str) -> None:
    table = odps.create_table(name, ("a string", "pt string"))
    odps.write_table(table, [["x"]], partition="pt=1", create_partition=True)
    odps.execute_sql(f"create view {name}_v comment 'seen' as select * from {name}")
    view = odps.get_table(f"{name}_v")
    assert (view.type, view.comment) == (Table.Type.VIRTUAL_VIEW, "seen")
    odps.execute_sql(
        f"create materialized view {name}_m disable rewrite partitioned on (pt) "
        f"as select * from {name}"
    )
    stored = odps.get_table(f"{name}_m")
    assert stored.type == Table.Type.MATERIALIZED_VIEW
    assert "CREATE MATERIALIZED VIEW" in stored.get_ddl()
    with odps.execute_sql(f"select a from {name}_m where pt = '1'").open_reader() as reader:
        assert [record.a for record in reader] == ["x"]
    view.drop()
    stored.drop()
    assert not odps.exist_table(f"{name}_m")


def test_touching_a_table_shows(odps: ODPS, name: str) -> None:
    table = odps.create_table(name, "a string")
    before = table.last_data_modified_time
    table.touch()
    assert table.last_data_modified_time > before


def test_a_partition_loads_what_it_is_asked_for(odps: ODPS, name: str) -> None:
    partition = odps.create_table(name, SCHEMA).create_partition("ds=1")
    assert (partition.is_archived, partition.physical_size) == (False, 0)
    assert not partition.is_loaded
    assert isinstance(partition.creation_time, datetime)
    assert partition.is_loaded
