"""Jobs through the real client: results of both kinds, failures, hints, stopping."""

import json
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from odps import ODPS, errors, options
from odps.models import Instance, SQLTask, TableSchema

from maxcompute_emulator import instances as jobs
from maxcompute_emulator.instances import Instances
from maxcompute_emulator.sql import Outcome
from maxcompute_emulator.warehouse import Warehouse


@pytest.fixture
def numbers(odps: ODPS, request: pytest.FixtureRequest) -> Iterator[str]:
    """A table of three numbers."""
    name = f"numbers_{request.node.originalname}"
    odps.write_table(odps.create_table(name, "size bigint"), [[1], [2], [3]])
    yield name
    odps.delete_table(name, if_exists=True)


def test_both_kinds_of_result_hold_the_same(odps: ODPS, numbers: str) -> None:
    instance = odps.execute_sql(f"select sum(size) as count from {numbers}")
    typed = TableSchema.from_lists(["count"], ["bigint"])
    with instance.open_reader(typed, tunnel=False) as reader:
        assert [record["count"] for record in reader] == [6]
    with instance.open_reader(tunnel=False) as reader:
        assert [record["count"] for record in reader] == ["6"]
    with instance.open_reader(tunnel=True) as reader:
        assert reader.count == 1
        assert [record["count"] for record in reader] == [6]
    with instance.open_reader(tunnel=True, arrow=True) as reader:
        assert reader.read_all().to_pydict() == {"count": [6]}
    instance = odps.execute_sql(f"select * from {numbers}")
    with instance.open_reader() as reader:
        assert [record[0] for record in reader[::2]] == [1, 3]
    plain = instance.open_reader(tunnel=False).to_pandas()
    assert plain.values.tolist() == instance.open_reader(tunnel=True).to_pandas().values.tolist()


def assert_read_back(odps: ODPS, values: list) -> None:
    """Both kinds of result give the values of a STRING column as they were written."""
    odps.delete_table("awkward", if_exists=True)
    odps.write_table(odps.create_table("awkward", "name string"), [[value] for value in values])
    instance = odps.execute_sql("select name from awkward")
    for tunnel in (False, True):
        with instance.open_reader(tunnel=tunnel) as reader:
            assert [record[0] for record in reader] == values
    odps.delete_table("awkward")


def test_awkward_text_in_plain_results(odps: ODPS) -> None:
    assert_read_back(odps, ["中\\\\n\\\n文 ,\r ", "测试\x00\x01\x02数据", '"', "", None])


@pytest.fixture
def strings_as_bytes() -> Iterator[None]:
    """The client gives and takes bytes for STRING."""
    options.tunnel.string_as_binary = True
    yield
    options.tunnel.string_as_binary = False


@pytest.mark.usefixtures("strings_as_bytes")
def test_bytes_in_plain_results(odps: ODPS) -> None:
    assert_read_back(odps, ["中".encode() + b" ,\r\xe9", b"\x00\x01" + "据".encode() + b"\xe9"])


def test_nested_values_in_both_kinds(odps: ODPS) -> None:
    schema = TableSchema.from_lists(
        ["idx", "map_col", "array_col"], ["bigint", "map<string,string>", "array<string>"]
    )
    odps.delete_table("nested", if_exists=True)
    table = odps.create_table("nested", schema)
    rows = [
        [
            0,
            {"k 1": "v:1", "k2": "v,2"},
            ["i", 'q"'],
        ],
        [1, {"k3": None}, []],
    ]
    odps.write_table(table, rows)
    instance = odps.execute_sql("select * from nested")
    for tunnel in (False, True):
        with instance.open_reader(table.table_schema, tunnel=tunnel) as reader:
            assert [list(record.values) for record in reader] == rows
    table.drop()


def test_a_plain_result_is_cut_and_says_so(odps: ODPS) -> None:
    rows = "lateral view explode(split(repeat('x,', 129), ',')) {0} as {0}1"
    query = f"select 1 from values (1) v {rows.format('a')} {rows.format('b')}"
    instance = odps.execute_sql(query)
    with instance.open_reader(tunnel=True, limit=False) as reader:
        assert reader.count == 130 * 130
    with instance.open_reader(tunnel=False, limit=True) as reader:
        assert sum(1 for _ in reader) == 10_000
    with pytest.raises(errors.NotSupportedError, match="truncated"):
        instance.open_reader(tunnel=False)


def test_text_results(odps: ODPS, numbers: str) -> None:
    instance = odps.execute_sql(f"desc {numbers}")
    with pytest.raises((Instance.DownloadSessionCreationError, errors.InstanceTypeNotSupported)):
        instance.open_reader(tunnel=True)
    assert "size" in instance.open_reader().raw
    assert odps.execute_sql("show tables").open_reader().raw.count(numbers) == 1


@pytest.mark.parametrize(
    ("query", "kind", "words"),
    [
        ("select nosuch from (select 1 a) x", errors.ODPSError, "ODPS-0130071"),
        ("selec 1", errors.ParseError, "ODPS-0130161"),
        ("select * from nosuch_table", errors.NoSuchTable, "ODPS-0130131"),
        ("select 1 order by 1", errors.ODPSError, "ORDER BY must be used with a LIMIT"),
        ("create table demo.nosuch.t (a bigint)", errors.ODPSError, "nosuch"),
        ("select cast('x' as bigint)", errors.ScriptError, "ODPS-0123055"),
    ],
)
def test_failed_queries(odps: ODPS, query: str, kind: type, words: str) -> None:
    instance = odps.run_sql(query)
    instance.wait_for_completion()
    assert instance.is_terminated()
    assert not instance.is_successful()
    with pytest.raises(kind, match=words):
        instance.wait_for_success()


def test_what_a_job_tells(odps: ODPS, numbers: str) -> None:
    hints = {"odps.sql.mapper.split.size": "16"}
    instance = odps.run_sql(f"select count(*) from {numbers}", hints=hints)
    instance.wait_for_success()
    (task,) = instance.get_tasks()
    assert isinstance(task, SQLTask)
    assert task.query.startswith("select count(*)")
    settings = json.loads(task.properties["settings"])
    assert settings["odps.sql.mapper.split.size"] == "16"
    assert instance.get_sql_query().startswith("select")
    (name,) = instance.get_task_names()
    assert name == "AnonymousSQLTask"
    status = instance.get_task_statuses()[name]
    assert status.status == Instance.Task.TaskStatus.SUCCESS
    instance.reload()
    assert instance.start_time <= status.start_time <= status.end_time <= instance.end_time
    assert instance.priority == 9
    progress = instance.get_task_progress(name)
    assert len(progress.get_stage_progress_formatted_string().split()) > 2
    assert task.summary is not None
    assert instance.get_task_cost().cpu_cost is not None
    assert instance.get_task_detail(name) is not None
    assert instance.get_task_detail2(name) is not None
    assert task.warnings is not None
    assert instance.id in odps.get_logview_address(instance.id, 12)
    assert odps.exist_instance(instance.id)
    assert not odps.exist_instance("nosuch")
    listed = next(odps.list_instances(status="terminated"))
    assert listed.name == instance.id
    assert listed._getattr("end_time") is not None
    assert list(odps.list_instances(status="running")) == []
    old = odps.list_instances(end_time=time.time() - 86400)
    assert list(old) == []
    with pytest.raises(errors.InvalidStateSetting):
        instance.stop()


def test_scripts_and_settings(odps: ODPS, numbers: str) -> None:
    script = f"""
    set odps.sql.validate.orderby.limit=false;
    create table {numbers}_copy as select size * 2 as twice from {numbers}; -- a note; here
    select twice from {numbers}_copy order by twice;
    """
    with odps.execute_sql(script).open_reader() as reader:
        assert [record[0] for record in reader] == [2, 4, 6]
    odps.delete_table(f"{numbers}_copy")


def test_plain_results_show_the_time_of_the_zone_that_is_set(odps: ODPS) -> None:
    query = "select from_unixtime(0)"
    shown = {}
    for hints in ({}, {"odps.sql.timezone": "UTC"}):
        with odps.execute_sql(query, hints=hints).open_reader(tunnel=False) as reader:
            shown[len(hints)] = reader.raw.splitlines()[1]
    assert shown == {0: '"1970-01-01 08:00:00"', 1: '"1970-01-01 00:00:00"'}


def test_costs_are_estimated(odps: ODPS, numbers: str) -> None:
    cost = odps.execute_sql_cost(f"select * from {numbers}")
    assert (cost.udf_num, cost.complexity) == (0, 1.0)
    assert cost.input_size >= 100


def test_results_can_be_written_elsewhere(odps: ODPS, numbers: str) -> None:
    other = odps.create_table(f"{numbers}_to", odps.get_table(numbers).table_schema)
    with (
        odps.execute_sql(f"select * from {numbers}").open_reader() as reader,
        other.open_writer() as writer,
    ):
        for record in reader:
            writer.write(other.new_record(record.values))
    assert [record[0] for record in other.open_reader()] == [1, 2, 3]
    other.drop()


def test_small_queries_are_quick(odps: ODPS, numbers: str) -> None:
    odps.execute_sql(f"select * from {numbers}")
    start = time.monotonic()
    for _ in range(10):
        odps.execute_sql(f"select size from {numbers} where size > 1")
    assert (time.monotonic() - start) / 10 < 0.25


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Queries wait until the event is set."""
    gate = threading.Event()
    original: Callable[..., Outcome] = jobs.execute

    def waiting(*arguments: object) -> Outcome:
        gate.wait(10)
        return original(*arguments)

    monkeypatch.setattr(jobs, "execute", waiting)
    yield gate
    gate.set()


def test_a_running_job_is_looked_at_and_stopped(odps: ODPS, held: threading.Event) -> None:
    instance = odps.run_sql("select 1")
    assert instance.status == Instance.Status.RUNNING
    assert instance.id in [found.id for found in odps.list_instances(status="running")]
    (name,) = instance.get_task_names()
    assert instance.get_task_statuses()[name].status == Instance.Task.TaskStatus.RUNNING
    instance.stop()
    assert instance.status == Instance.Status.TERMINATED
    with pytest.raises(errors.ODPSError, match="CANCELLED"):
        instance.wait_for_success()


def test_a_running_query_is_interrupted(odps: ODPS) -> None:
    many = "lateral view explode(split(repeat('x,', 9999), ',')) {0} as {0}1"
    query = "select count(*) from values (1) v " + " ".join(many.format(c) for c in "abc")
    instance = odps.run_sql(query + " where sqrt(length(a1) + length(b1) + length(c1)) < 0")
    time.sleep(0.3)
    instance.stop()
    instance.wait_for_completion()
    assert not instance.is_successful()
    start = time.monotonic()
    odps.execute_sql("select 1")
    assert time.monotonic() - start < 5


def test_old_results_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_MAX_RESULTS", 2)
    monkeypatch.setattr(jobs, "_MAX_INSTANCES", 4)
    warehouse = Warehouse(None, projects=["demo"])
    instances = Instances(warehouse)
    made = []
    for number in range(7):
        made.append(instances.submit("demo", None, f"select {number}"))
        made[-1].done.wait()
    kept = [instance.id for instance in instances.of_project("demo")]
    assert kept == [instance.id for instance in made[:-5:-1]]
    held = "SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'data'"
    assert warehouse.storage.cursor().execute(held).fetchone() == (3,)
    with pytest.raises(Exception, match="not a SQL query with a result set"):
        made[0].result_snapshot()
    warehouse.close()
