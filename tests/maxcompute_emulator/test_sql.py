"""Queries: what they give, and what the service refuses."""

import datetime
from collections.abc import Callable, Iterator
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maxcompute_emulator.errors import ServiceError
from maxcompute_emulator.sql import execute
from maxcompute_emulator.warehouse import Warehouse

Run = Callable[..., list[tuple]]


@pytest.fixture(scope="module")
def warehouse() -> Iterator[Warehouse]:
    warehouse = Warehouse(None, projects=["demo", "other"])
    for statement in (
        "create table t (a bigint, s string, d datetime, r array<string>, m map<string,bigint>)",
        "insert into t values (1,'x',datetime '2024-01-01 10:20:30',array('p','q'),map('k',7)),"
        "(2,'y',null,null,null),(3,null,null,array(),null)",
        "create table p (a bigint) partitioned by (ds string, h bigint)",
        "insert into p partition (ds, h) select a, concat('2024010', a), a from t",
    ):
        execute(warehouse, "demo", None, statement, {})
    yield warehouse
    warehouse.close()


@pytest.fixture(scope="module")
def run(warehouse: Warehouse) -> Run:
    def call(script: str, **hints: str) -> list[tuple]:
        named = {key.replace("__", "."): value for key, value in hints.items()}
        outcome = execute(warehouse, "demo", None, script, named)
        assert outcome.rows is not None
        found: list[tuple] = []
        for item in outcome.rows.snapshot(warehouse).read(0, 10**6):
            found += zip(*(column.to_pylist() for column in item.columns), strict=True)
        return found

    return call


def kinds(warehouse: Warehouse, script: str, **hints: str) -> list[str]:
    named = {key.replace("__", "."): value for key, value in hints.items()}
    rows = execute(warehouse, "demo", None, script, named).rows
    assert rows is not None
    return [f"{stored.column.name} {stored.column.type}" for stored in rows.columns]


UTC_MIDNIGHT = datetime.datetime(2023, 12, 31, 16)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + '1'", 2.0),
        ("1 / 2", 0.5),
        ("1 / 0", None),
        ("7 % 0", None),
        ("-7 div 2", -3),
        ("cast(1.7 as bigint)", 1),
        ("cast(-1.7 as bigint)", -1),
        ("cast('abcdef' as varchar(3))", "abc"),
        ("cast('3.9' as bigint)", 3),
        ("cast(9007199254740993 as string)", "9007199254740993"),
        ("'10' > 9", True),
        ("1 in ('1', '2')", True),
        ("concat('a', 1, true)", "a1true"),
        ("concat('a', null)", None),
        ("concat_ws('-', 'a', null, 'b')", "a-b"),
        ("substr('hello', 2, 3)", "ell"),
        ("substr('hello', -2)", "lo"),
        ("substr('hello', 0, 2)", "he"),
        ("split('a,b', ',')[1]", "b"),
        ("size(split('a,b', ','))", 2),
        ("size(map('a', 1))", 1),
        ("map('k', 1)['k']", 1),
        ("named_struct('x', 1, 'y', 'z')", {"x": 1, "y": "z"}),
        ("greatest(1, null)", None),
        ("least(3, 1, 2)", 1),
        ("nvl(null, 'z')", "z"),
        ("coalesce(null, 2)", 2),
        ("decode(1, 1, 'one', 'other')", "one"),
        ("if(1 > 2, 'a', 'b')", "b"),
        ("case 2 when 1 then 'a' when 2 then 'b' end", "b"),
        ("round(2.5)", 3.0),
        ("round(-2.5)", -3.0),
        ("ceil(1.2)", 2),
        ("floor(-1.2)", -2),
        ("trunc(1.987, 1)", 1.9),
        ("sqrt(-1)", None),
        ("regexp_replace('a1b2', '[0-9]', '')", "ab"),
        ("regexp_extract('foo123', '([a-z]+)([0-9]+)', 2)", "123"),
        ("'abc' rlike '^a.c$'", True),
        ("'a_b' like 'a\\\\_b'", True),
        ("'axb' like 'a\\\\_b'", False),
        ("get_json_object('{\"a\":{\"b\":[1,2]}}', '$.a.b[1]')", "2"),
        ("get_json_object('no json', '$.a')", None),
        ("length('中文')", 2),
        ("lengthb('中文')", 6),
        ("instr('hello', 'l')", 3),
        ('"double ""q"', "double q"),
        ("'it\\'s'", "it's"),
        ("1 <=> null", False),
        ("bitand_is_none", ServiceError),
    ],
)
def test_expressions(run: Run, expression: str, value: object) -> None:
    if value is ServiceError:
        with pytest.raises(ServiceError, match="ODPS-0130071"):
            run(f"select {expression}")
    else:
        assert run(f"select {expression}") == [(value,)]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("cast('2024-01-01 00:00:00' as datetime)", UTC_MIDNIGHT),
        ("cast(datetime '2024-01-01 00:00:00' as string)", "2024-01-01 00:00:00"),
        ("cast('2024-01-01' as date)", datetime.date(2024, 1, 1)),
        ("hour('2024-01-01 13:14:15')", 13),
        ("minute(datetime '2024-01-01 13:14:15')", 14),
        ("second(timestamp '2024-01-01 13:14:15.5')", 15),
        ("weekday(date '2024-01-01')", 0),
        ("dayofweek(date '2024-01-01')", 2),
        ("weekofyear(date '2024-01-01')", 1),
        ("unix_timestamp(datetime '2024-01-01 00:00:00')", 1704038400),
        ("from_unixtime(1704038400)", UTC_MIDNIGHT),
        ("dateadd(datetime '2024-01-31 00:00:00', 1, 'mm')", datetime.datetime(2024, 2, 28, 16)),
        (
            "dateadd(datetime '2024-01-01 00:00:00', -90, 'mi')",
            datetime.datetime(2023, 12, 31, 14, 30),
        ),
        (
            "dateadd(datetime '2024-01-01 00:00:00', 1, 'ss')",
            datetime.datetime(2023, 12, 31, 16, 0, 1),
        ),
        ("dateadd(date '2024-01-31', 1, 'dd')", datetime.date(2024, 2, 1)),
        ("datediff('2024-01-03 00:00:00', '2024-01-01 23:59:59')", 2),
        ("datediff(datetime '2006-01-01 00:00:00', datetime '2005-12-31 23:59:59', 'mi')", 1),
        ("datediff(datetime '2006-01-01 00:00:00', datetime '2005-12-31 23:59:59', 'yyyy')", 1),
        ("datetrunc(datetime '2024-05-06 07:08:09', 'mm')", datetime.datetime(2024, 4, 30, 16)),
        ("datetrunc(datetime '2024-05-06 07:08:09', 'mi')", datetime.datetime(2024, 5, 5, 23, 8)),
        ("to_date('20240102', 'yyyymmdd')", datetime.datetime(2024, 1, 1, 16)),
        ("to_date('2024-01-02')", datetime.date(2024, 1, 2)),
        ("to_char(datetime '2024-01-02 03:04:05', 'yyyymmdd hh:mi:ss')", "20240102 03:04:05"),
        ("to_char(datetime '2024-01-02 03:04:05', 'yyyy年mm月')", "2024年01月"),
        ("date_format(datetime '2024-01-02 03:04:05', 'yyyy-MM-dd HH:mm')", "2024-01-02 03:04"),
        ("date_add(date '2024-02-28', 2)", datetime.date(2024, 3, 1)),
        ("last_day(date '2024-02-03')", datetime.date(2024, 2, 29)),
        ("isdate('20240231', 'yyyymmdd')", False),
        ("timestamp '2024-01-01 00:00:00.000000001' > datetime '2024-01-01 00:00:00'", True),
        ("date '2024-01-01' < datetime '2024-01-01 00:00:01'", True),
    ],
)
def test_dates_and_times(run: Run, expression: str, value: object) -> None:
    assert run(f"select {expression}") == [(value,)]


@given(st.datetimes(datetime.datetime(1992, 1, 1), datetime.datetime(2100, 1, 1)))
@settings(max_examples=15, deadline=None)
def test_the_short_way_to_the_clock_gives_the_same(run: Run, moment: datetime.datetime) -> None:
    text = moment.strftime("%Y-%m-%d %H:%M:%S")
    short = f"hour(cast('{text}' as datetime)), minute(cast('{text}' as datetime))"
    long = "hour(d), minute(d)"
    (row,) = run(f"select {short}, {long} from (select cast('{text}' as datetime) d) x")
    assert row[:2] == row[2:] == (moment.hour, moment.minute)


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("select a from t where s is null", [(3,)]),
        ("select count(*), count(s), sum(a), avg(a), max(s) from t", [(3, 2, 6, 2.0, "y")]),
        (
            "select a, sum(a) over (order by a) x from t where a < 3 order by a limit 9",
            [(1, 1), (2, 3)],
        ),
        (
            "select x.a, y.a from t x left join t y on x.a = y.a + 1 order by x.a limit 9",
            [(1, None), (2, 1), (3, 2)],
        ),
        ("select a from t x left semi join t y on x.a = y.a + 2", [(3,)]),
        ("select a from t x left anti join t y on x.a = y.a + 1", [(1,)]),
        (
            "with b as (select a + 1 a1 from t), c as (select max(a1) m from b) select m from c",
            [(4,)],
        ),
        (
            "select t.a, e.w from t lateral view explode(r) e as w order by w limit 9",
            [(1, "p"), (1, "q")],
        ),
        (
            "select a, p, w from t lateral view outer posexplode(r) e as p, w "
            "order by a, p limit 9",
            [(1, 0, "p"), (1, 1, "q"), (2, None, None), (3, None, None)],
        ),
        ("select k, v from t lateral view explode(m) e as k, v", [("k", 7)]),
        ("select * from values (1, 'a'), (2, 'b') v(x, y) where x = 2", [(2, "b")]),
        ("select a from t where a in (select a + 1 from t) order by a limit 9", [(2,), (3,)]),
        ("select a from t where exists (select 1 from t u where u.a = t.a + 2)", [(1,)]),
        ("select (select max(a) from t) - a d from t order by d limit 9", [(0,), (1,), (2,)]),
        ("select a from t except select 2 order by a limit 9", [(1,), (3,)]),
        (
            "select a % 2 odd, wm_concat(',', s) w from t where s is not null group by a % 2 "
            "order by odd limit 9",
            [(0, "y"), (1, "x")],
        ),
        ("select collect_list(s), collect_set(1) from t where a < 2", [(["x"], [1])]),
        (
            "select a from (select a, row_number() over (order by a desc) n from t) q where n = 1",
            [(3,)],
        ),
        ("select /*+ mapjoin(y) */ count(*) from t x join t y on x.a = y.a", [(3,)]),
        ("select count(distinct a, s) from t", [(2,)]),
        ("select a, count(*) c from t group by a with rollup order by a limit 1", [(None, 3)]),
        ("select a from t order by a limit 1, 1", [(2,)]),
        ("select `a` from demo.`t` where a = 1 -- words; and ' a quote", [(1,)]),
        ("select 'a;b' /* c */", [("a;b",)]),
        ("select s from t order by s limit 1", [(None,)]),
        ("select s from t order by s desc limit 1", [("y",)]),
        ("select percentile(a, 0.5), median(a) from t", [(2.0, 2.0)]),
        ("select max_pt('p')", [("20240103",)]),
    ],
)
def test_queries(run: Run, query: str, rows: list[tuple]) -> None:
    assert run(query) == rows


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("select a from p where ds = '20240102'", [(2,)]),
        ("select a from p where ds = 20240102", [(2,)]),
        ("select a, h from p where h > 2", [(3, 3)]),
        ("select a from (select ds day, a from p) x where day = '20240101'", [(1,)]),
        ("select x.a from p x join t y on x.a = y.a and x.ds = '20240103'", [(3,)]),
        (
            "select t.a, p.a from t left join p on t.a = p.a and p.ds = '20240101' "
            "order by t.a limit 9",
            [(1, 1), (2, None), (3, None)],
        ),
        (
            "select t.a from t left join p on t.a = p.a where p.ds is null or p.ds < '20240102'",
            [(1,)],
        ),
        ("select max(a) from p where ds in (select '20240102')", [(2,)]),
        (
            "with c as (select * from p) "
            "select a from c where c.ds between '20240102' and '20240102'",
            [(2,)],
        ),
        (
            "select ds, count(*) c from p where ds >= '20240102' group by ds order by ds limit 9",
            [("20240102", 1), ("20240103", 1)],
        ),
        (
            "select a from p where ds = '20240101' union all select a from p where ds = '20240101'",
            [(1,), (1,)],
        ),
    ],
)
def test_partitions_are_chosen_by_conditions(run: Run, query: str, rows: list[tuple]) -> None:
    assert run(query) == rows


@pytest.mark.parametrize(
    ("query", "code", "words"),
    [
        ("select a from t order by a", "ODPS-0130071", "ORDER BY must be used with a LIMIT"),
        ("select a from p", "ODPS-0130071", "is full scan with all partitions"),
        ("select a from (select * from p limit 1) x where ds = '1'", "ODPS-0130071", "full scan"),
        (
            "select 1 from (select ds from p union all select ds from p limit 1) x where ds = '1'",
            "ODPS-0130071",
            "full scan",
        ),
        ("select a, count(*) from t group by 1", "ODPS-0130071", "position"),
        ("select nosuch from t", "ODPS-0130071", r"\[1,8\].*column nosuch cannot be resolved"),
        ("select x.a from t", "ODPS-0130071", "cannot be resolved"),
        ("select a from t x join t y on x.a = y.a", "ODPS-0130071", "ambiguous"),
        ("select * from nosuch", "ODPS-0130131", "demo.default.nosuch"),
        ("select * from nosuch.t", "ODPS-0130131", "nosuch.t"),
        ("selec 1", "ODPS-0130161", "selec"),
        ("select 1 from", "ODPS-0130161", "Parse exception"),
        ("select from t", "ODPS-0130161", ""),
        ("select 'open", "ODPS-0130161", ""),
        ("select nosuch(1)", "ODPS-0130071", "function nosuch cannot be resolved"),
        ("select a, s from t group by a", "ODPS-0130071", ""),
        ("select length('a', 'b', 'c', 'd') + substr('a')", "ODPS-0130071", "overloaded"),
        ("select a from t tablesample (1 percent)", "ODPS-0130241", "TABLESAMPLE"),
        ("select cast('x' as bigint)", "ODPS-0123055", "Could not convert"),
        ("select row_number() from t", "ODPS-0130071", "OVER"),
        ("select a from t union select a, s from t", "ODPS-0130071", "as many columns"),
        ("delete from t where a = 1", "ODPS-0130241", "DELETE"),
        ("select to_char(d, s) from t", "ODPS-0130241", "not a constant"),
        ("select to_char(d, 'q') from t", "ODPS-0130241", "date format"),
    ],
)
def test_refusals(run: Run, query: str, code: str, words: str) -> None:
    with pytest.raises(ServiceError, match=f"(?s){code}.*{words}"):
        run(query)


def test_hints_lift_rules(run: Run) -> None:
    assert run("select a from t order by a", odps__sql__validate__orderby__limit="false")
    assert len(run("set odps.sql.allow.fullscan=true; select a from p")) == 3
    assert run(
        "set odps.sql.groupby.position.alias=true;\nselect a % 1, count(*) from t group by 1"
    )
    loose = run("select cast('x' as bigint)", odps__sql__udf__strict__mode="false")
    assert loose == [(None,)]


def test_the_time_zone_is_a_setting(run: Run) -> None:
    query = "select hour(from_unixtime(0)), cast('1970-01-01 00:00:00' as datetime)"
    assert run(query)[0][0] == 8
    utc = run(query, odps__sql__timezone="UTC")
    assert utc == [(0, datetime.datetime(1970, 1, 1))]
    assert run(query)[0][0] == 8
    with pytest.raises(ServiceError, match="time zone"):
        run(query, odps__sql__timezone="Nowhere/Nothing")


def test_unix_timestamp_of_text_needs_a_cast_under_odps2(run: Run) -> None:
    query = "select unix_timestamp('2024-01-01 00:00:00')"
    assert run(query) == [(1704038400,)]
    with pytest.raises(
        ServiceError, match=r"cannot match any overloaded functions with \(STRING\)"
    ):
        run(query, odps__sql__type__system__odps2="true")


def test_result_columns_have_names_and_types(warehouse: Warehouse) -> None:
    query = "select A, a+1, count(*) over () C, 1.5, 1.5bd, hour(d), cast(s as varchar(5)) v from t"
    plain = [
        "a bigint",
        "_c1 bigint",
        "c bigint",
        "_c3 double",
        "_c4 decimal(2,1)",
        "_c5 bigint",
        "v varchar(5)",
    ]
    assert kinds(warehouse, query) == plain
    new = kinds(warehouse, "select 1, a, year(d) from t", odps__sql__type__system__odps2="true")
    assert new == ["_c0 int", "a bigint", "_c2 int"]
    assert kinds(warehouse, "select sum(a), avg(a), sum(cast(a as double)) from t") == [
        "_c0 bigint",
        "_c1 double",
        "_c2 double",
    ]
    nested = kinds(warehouse, "select r, m, named_struct('x', a) n from t")
    assert nested == ["r array<string>", "m map<string,bigint>", "n struct<x:bigint>"]


def test_sums_of_whole_numbers_do_not_wrap(run: Run) -> None:
    with pytest.raises(ServiceError):
        run("select sum(x) from (select 9223372036854775807 x union all select 1) q")
    assert run("select sum(cast(x as decimal(20,0))) from (select 1 x) q") == [(Decimal(1),)]


def test_the_aggregation_that_is_pushed_down(warehouse: Warehouse, run: Run) -> None:
    for statement in (
        "create table raw (nds_id bigint, next_nds_id bigint, passts_time string, "
        "flow_label bigint, adcode string) partitioned by (ds string)",
        "create table dict (nds_id bigint, next_nds_id bigint, node_idx bigint)",
        "insert into dict values (1, 2, 0), (2, 3, 1)",
        "insert into raw partition (ds='20250919') values "
        "(1,2,'2025-09-19 00:04:59',5,'110000'),(1,2,'2025-09-19 00:00:00',7,'110000'),"
        "(1,2,'2025-09-19 00:05:00',null,'110000'),(2,3,'2025-09-19 23:59:59',1,'110000'),"
        "(2,3,'2025-09-19 23:59:59',9,'310000'),(9,9,'2025-09-19 23:59:59',9,'110000')",
        "insert into raw partition (ds='20250926') values (1,2,'2025-09-26 00:00:00',5,'110000')",
    ):
        execute(warehouse, "demo", None, statement, {})
    query = """SELECT r.ds, r.bin, n.node_idx, SUM(r.flow_label) AS total, COUNT(r.flow_label) AS c
        FROM (SELECT ds, nds_id, next_nds_id, flow_label,
                     CAST(FLOOR((HOUR(CAST(passts_time AS DATETIME)) * 60
                                 + MINUTE(CAST(passts_time AS DATETIME))) / 5) AS BIGINT) AS bin
              FROM raw WHERE ds >= '20250919' AND ds <= '20250925' AND adcode = '110000') r
        JOIN dict n ON r.nds_id = n.nds_id AND r.next_nds_id = n.next_nds_id
        GROUP BY r.ds, r.bin, n.node_idx"""
    wanted = [("20250919", 0, 0, 12, 2), ("20250919", 1, 0, None, 0), ("20250919", 287, 1, 1, 1)]
    assert sorted(run(query)) == wanted
    execute(warehouse, "demo", None, f"create table agg lifecycle 1 as {query}", {})
    assert sorted(run("select * from agg")) == wanted
    assert [str(c.type) for c in warehouse.table("demo", None, "agg").columns] == [
        "string",
        "bigint",
        "bigint",
        "bigint",
        "bigint",
    ]
