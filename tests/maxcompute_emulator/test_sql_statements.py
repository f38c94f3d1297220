"""Statements that change tables, and those that tell of them."""

import pytest
from warehouse_sql import Sql

from maxcompute_emulator.errors import ServiceError
from maxcompute_emulator.sql.script import read_script


def test_create_says_all_that_a_table_has(sql: Sql) -> None:
    sql("""CREATE TABLE IF NOT EXISTS demo.`T` (
        `id` BIGINT NOT NULL COMMENT 'it''s', name VARCHAR(10), st STRUCT<a:ARRAY<INT>, b:STRING>,
        PRIMARY KEY (`id`)
    ) COMMENT 'a "table"' PARTITIONED BY (ds STRING COMMENT 'day', h BIGINT)
    STORED AS ALIORC TBLPROPERTIES ('transactional'='true', 'x'='1') LIFECYCLE 7""")
    table = sql.table("t")
    assert [str(column.type) for column in table.columns] == [
        "bigint",
        "varchar(10)",
        "struct<a:array<int>,b:string>",
    ]
    assert (table.columns[0].comment, table.columns[0].nullable) == ("it's", False)
    assert [(key.name, key.comment) for key in table.partition_columns] == [
        ("ds", "day"),
        ("h", ""),
    ]
    assert (table.comment, table.lifecycle, table.primary_key) == ('a "table"', 7, ("id",))
    assert table.is_transactional
    sql(sql("show create table t").replace("demo.default.t", "again"))
    assert sql.table("again").columns == table.columns
    assert sql.table("again").lifecycle == 7


def test_create_refuses_what_is_there_or_makes_no_sense(sql: Sql) -> None:
    sql("create table t (a bigint)")
    sql("create table if not exists t (b string)")
    assert sql.table("t").columns[0].name == "a"
    for statement in (
        "create table t (a bigint)",
        "create table u (a bigint, A string)",
        "create table u (a bigint) partitioned by (a string)",
        "create table u (a bigint) partitioned by (p array<string>)",
        "create table u (a nosuch)",
        "create table u (a bigint) lifecycle 0",
        "create table u (a bigint) nonsense",
        "create table u as select 1 a, 2 a",
        "create external table u (a bigint)",
    ):
        with pytest.raises(ServiceError, match="ODPS-"):
            sql(statement)
    assert [table.name for table in sql.warehouse.tables("demo", None)] == ["t"]


def test_create_as_and_like(sql: Sql) -> None:
    sql("create table t (a bigint comment 'c', d decimal(10,2)) partitioned by (ds string)")
    sql("insert into t partition (ds='1') values (1, 1.25), (2, null)")
    sql("create table u lifecycle 1 as select a, d, ds from t where ds = '1'")
    assert sorted(sql.rows("select * from u")) == [
        (1, sql.rows("select 1.25bd")[0][0], "1"),
        (2, None, "1"),
    ]
    assert (sql.table("u").lifecycle, str(sql.table("u").columns[1].type)) == (1, "decimal(10,2)")
    sql("create table v like t lifecycle 3")
    assert sql.table("v").columns == sql.table("t").columns
    assert sql.table("v").record_count == 0


def test_insert_into_partitions(sql: Sql) -> None:
    sql("create table t (a bigint, s string) partitioned by (ds string, h bigint)")
    sql("insert into table t partition (ds='1', h=2) values (1, 'x'), (2, 'y')")
    sql("insert into t partition (ds='1', h='02') (s) values ('only')")
    sql(
        "insert overwrite table t partition (ds='2', h) select a, s, a from t where ds = '1' "
        "and a is not null"
    )
    sql("insert into t partition (ds, h) values (9, 'z', '3', 4)")
    assert sorted(sql.table("t").partitions) == [("1", "2"), ("2", "1"), ("2", "2"), ("3", "4")]
    assert sql.rows("select a, s, ds, h from t where ds='1' order by s") == [
        (None, "only", "1", 2),
        (1, "x", "1", 2),
        (2, "y", "1", 2),
    ]
    sql(
        "with w as (select 5 a) insert overwrite table t partition (ds='1', h=2) "
        "select a, 'new' from w"
    )
    assert sql.rows("select a from t where ds = '1'") == [(5,)]
    assert sql.rows("select count(*) from t where ds > '1'") == [(3,)]


def test_insert_converts_and_refuses(sql: Sql) -> None:
    sql("create table t (a bigint not null, d datetime, s string)")
    sql("insert into t values ('7', '2024-01-01 00:00:00', 5)")
    assert sql.rows("select a, s, hour(d) from t") == [(7, "5", 0)]
    for statement in (
        "insert into t values (1)",
        "insert into t values (null, null, null)",
        "insert into t values ('x', null, null)",
        "insert into t (nosuch) values (1)",
        "insert into t partition (ds='1') values (1, null, null)",
        "insert into nosuch values (1)",
    ):
        with pytest.raises(ServiceError, match="ODPS-"):
            sql(statement)
    assert sql.table("t").record_count == 1


def test_partitions_come_and_go(sql: Sql) -> None:
    sql("create table t (a bigint) partitioned by (ds string, h int)")
    sql("alter table t add if not exists partition (ds='1',h=1) partition (ds='1',h=10)")
    sql("alter table t add partition (ds='2',h=2), partition (ds='3',h=3)")
    assert sql("show partitions t") == "ds=1/h=1\nds=1/h=10\nds=2/h=2\nds=3/h=3"
    assert sql("show partitions t partition (ds='1')") == "ds=1/h=1\nds=1/h=10"
    with pytest.raises(ServiceError, match="already exists"):
        sql("alter table t add partition (ds='2',h=2)")
    with pytest.raises(ServiceError, match="is no int"):
        sql("alter table t add partition (ds='2',h='x')")
    with pytest.raises(ServiceError, match="not found"):
        sql("alter table t drop partition (ds='9',h=9)")
    sql("alter table t drop if exists partition (ds='9',h=9)")
    sql("alter table t drop partition (h > 2, ds <> '3')")
    assert sql("show partitions t") == "ds=1/h=1\nds=2/h=2\nds=3/h=3"
    sql("alter table t drop partition (ds='1'), partition (h=3)")
    sql("alter table t partition (ds='2',h=2) rename to partition (ds='5',h=5)")
    assert sql("show partitions t") == "ds=5/h=5"


def test_truncate_and_drop(sql: Sql) -> None:
    sql("create table t (a bigint) partitioned by (ds string)")
    sql("insert into t partition (ds) select 1, '1' union all select 2, '2'")
    sql("truncate table t partition (ds='1')")
    assert sql.rows("select a from t") == [(2,)]
    sql("truncate table t")
    assert sql.table("t").record_count == 0
    assert len(sql.table("t").partitions) == 2
    sql("drop table t")
    with pytest.raises(ServiceError, match="ODPS-0130131"):
        sql("drop table t")
    sql("drop table if exists t")


def test_columns_change_without_touching_rows(sql: Sql) -> None:
    sql("create table t (a int, b string)")
    sql("insert into t values (1, 'x')")
    sql("alter table t add columns (c decimal(5,2) comment 'new', d array<string>)")
    sql("insert into t values (2, 'y', 1.5, array('z'))")
    sql("alter table t change column b rename to bb")
    sql("alter table t change column a a bigint comment 'wide' after bb")
    sql("alter table t drop columns d")
    assert [column.name for column in sql.table("t").columns] == ["bb", "a", "c"]
    assert sql.table("t").columns[1].comment == "wide"
    rows = sql.rows("select * from t order by a")
    assert [(bb, a, c and float(c)) for bb, a, c in rows] == [("x", 1, None), ("y", 2, 1.5)]
    for statement in (
        "alter table t add columns (a string)",
        "alter table t change column a a int",
        "alter table t change column nosuch b bigint",
        "alter table t drop columns bb, a, c",
    ):
        with pytest.raises(ServiceError, match="ODPS-0130071"):
            sql(statement)


def test_tables_are_renamed_and_described(sql: Sql) -> None:
    sql("create table t (a bigint); create table u (a bigint)")
    with pytest.raises(ServiceError, match="already exists"):
        sql("alter table t rename to u")
    sql("alter table t rename to w; alter table w set lifecycle 5; alter table w set comment 'c;d'")
    sql(
        "alter table w set tblproperties ('k'='v'); alter table w touch;"
        "alter table w merge smallfiles"
    )
    table = sql.table("w")
    assert (table.lifecycle, table.comment, table.properties) == (5, "c;d", {"k": "v"})
    assert sql("show tables") == "ALIYUN$emulator:u\nALIYUN$emulator:w"
    assert sql("show tables like 'u*'") == "ALIYUN$emulator:u"
    assert "| Lifecycle:                5" in sql("desc extended w")
    assert "a (bigint)" in sql("explain select a from w")


def test_views(sql: Sql) -> None:
    sql("create table t (a bigint) partitioned by (ds string)")
    sql("insert into t partition (ds) select 1, '1' union all select 2, '2'")
    sql("create view v (x comment 'c', day) comment 'words' as select a, ds from t")
    assert sql.rows("select x from v where day = '2'") == [(2,)]
    with pytest.raises(ServiceError, match="full scan"):
        sql("select * from v")
    with pytest.raises(ServiceError, match="already exists"):
        sql("create view v as select 1")
    sql("create or replace view v as select 7 x")
    assert sql.rows("select * from v") == [(7,)]
    sql("create view w lifecycle 3 (z) as with c as (select x from v) select x from c")
    assert sql.rows("select z from w") == [(7,)]
    for statement in ("drop table v", "insert into v values (1)", "drop view t"):
        with pytest.raises(ServiceError, match="ODPS-0130071"):
            sql(statement)
    sql("drop view v; drop view if exists v")


def test_schemas_and_projects(sql: Sql) -> None:
    sql("create schema s1; create schema if not exists s1")
    sql("create table demo.s1.t (a bigint); insert into demo.s1.t values (4)")
    sql("create table other.t (a bigint); insert into other.t values (5)")
    assert sql.rows("select a from s1.t union all select a from other.t") == [(4,), (5,)]
    assert sql("show schemas in demo") == "default\ns1"
    assert sql("show tables in s1") == "ALIYUN$emulator:t"
    with pytest.raises(ServiceError, match="not empty"):
        sql("drop schema s1")
    sql("drop table demo.s1.t; drop schema s1")
    scoped = {"odps__default__schema": "s2", "odps__namespace__schema": "true"}
    sql("create schema s2")
    sql("create table u (a bigint)", **scoped)
    assert sql.warehouse.table("demo", "s2", "u").name == "u"
    sql("drop table s2.u", **scoped)


def test_scripts() -> None:
    script = read_script(
        '-- first; line\nset a.b=c d;\nselect \'x;--y\' /* ; */;;\nselect "\\";" , `a;b`\n'
    )
    assert script.settings == {"a.b": "c d"}
    assert script.statements == ["select 'x;--y'", 'select "\\";" , `a;b`']


def test_a_script_names_queries_and_uses_them(sql: Sql) -> None:
    sql("create table t (a bigint, b string); insert into t values (1, 'x'), (2, 'y'), (3, 'z')")
    script = "@a := select * from t where a > 1; @a := select b from @A where a < 3; "
    assert sql.rows(script + "select q.b from @a q join t on q.b = t.b") == [("y",)]
    sql(script + "create table u as select * from @a")
    assert sql.rows("select * from u") == [("y",)]
    with pytest.raises(ServiceError, match="variable @nothing is not defined"):
        sql("select * from @nothing")


def test_tables_are_partitioned_by_a_time_of_their_rows(sql: Sql) -> None:
    sql("""create table t (a bigint, d datetime)
        auto partitioned by (trunc_time(`d`, 'day') as `pt` comment 'the day')""")
    (key,) = sql.table("t").partition_columns
    assert (key.name, str(key.type), key.comment) == ("pt", "string", "the day")
    sql("""insert into t select * from values
        (1, datetime '2025-02-21 23:59:59'), (2, datetime '2025-02-22 00:00:00') v(a, d)""")
    sql("insert into t (d, a) values (datetime '2025-02-22 10:00:00', 3)")
    sql("insert into t partition (pt='own') select 4, null")
    assert sorted(sql.rows("select a, pt from t")) == [
        (1, "2025-02-21"),
        (2, "2025-02-22"),
        (3, "2025-02-22"),
        (4, "own"),
    ]
    assert "AUTO PARTITIONED BY(trunc_time(`d`, 'day') AS `pt`)" in sql("show create table t")


def test_rows_can_be_partitioned_by_their_arrival(sql: Sql) -> None:
    sql("""create table t (_partitiontime timestamp_ntz, a bigint)
        auto partitioned by (trunc_time(_partitiontime, 'year') as pt)
        tblproperties ('ingestion_time_partition'='true')""")
    sql("insert into t (a) select 1")
    (partition,) = sql.table("t").partitions
    assert partition[0].startswith("20")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("trunc_time(d, 'second') as pt", "Allowed: year, month, day, hour"),
        ("trunc_time(a, 'day') as pt", "needs a column of times, not a"),
        ("trunc_time(other, 'day') as pt", "needs a column of times, not other"),
        ("upper(a) as pt", "expect"),
    ],
)
def test_rules_for_partitions_are_checked(sql: Sql, rule: str, message: str) -> None:
    with pytest.raises(ServiceError, match=message):
        sql(f"create table t (a bigint, d datetime) auto partitioned by ({rule})")
