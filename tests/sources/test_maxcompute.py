"""MaxComputeSource: the series of the same records in files, by both ways, and clear refusals."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flowpatch.errors import (
    ColumnError,
    FlowpatchError,
    NoPermissionError,
    QueryError,
    RecordError,
    SettingsError,
    TableChangedError,
    TableNotFoundError,
)
from flowpatch.maxcompute.queries import Queries
from flowpatch.maxcompute.settings import MaxComputeSettings
from flowpatch.preprocessing.build import preprocess
from flowpatch.sources import maxcompute_tunnel
from flowpatch.store.sample_store import SampleStore
from maxcompute_city import City, Service, settings


@pytest.fixture(scope="module")
def city() -> City:
    return City()


def build(service: Service, *places: Any, **changes: Any) -> SampleStore:
    reached = MaxComputeSettings(odps_endpoint=service.endpoint, workers=2, patience_minutes=0.3)
    return preprocess(settings(*places, **changes), reached)


WAYS = ["sql", "tunnel", "auto"]


@pytest.mark.parametrize("aggregate", ["mean", "sum", "max", "last"])
@pytest.mark.parametrize("pushdown", WAYS)
def test_the_series_and_the_counts_are_those_of_the_files(
    city: City, service: Service, tmp_path: Path, pushdown: str, aggregate: str
) -> None:
    changes = {"aggregate": aggregate, "null_value": 9}
    raw, meta = city.load(service)
    # What was lost in another test, with its connection, may still lie there.
    before = set(service.tables())
    files = build(service, *city.write(tmp_path / "city"), tmp_path / "files.store", **changes)
    there = build(
        service,
        raw.address,
        meta.address,
        tmp_path / "there.store",
        pushdown=pushdown,
        **changes,
    )
    np.testing.assert_array_equal(there.read(), files.read())
    assert there.manifest.counts == files.manifest.counts
    assert there.manifest.content_hash == files.manifest.content_hash
    made = set(service.tables()) - before
    assert not {name for name in made if name.startswith("tmp_flowpatch")}


def test_workers_give_the_series_of_one_process(
    city: City, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, meta = city.load(service)
    places = (raw.address, meta.address)
    alone = build(service, *places, tmp_path / "alone.store", pushdown="tunnel")
    monkeypatch.setattr(maxcompute_tunnel, "FEW_ROWS", 0)
    monkeypatch.setattr(maxcompute_tunnel, "RANGE_ROWS", 100)
    several = build(service, *places, tmp_path / "several.store", pushdown="tunnel")
    assert several.manifest.content_hash == alone.manifest.content_hash
    ranges = [entry for entry in service.requests("rowrange") if raw.table in entry["path"]]
    assert len(ranges) > 10


@pytest.mark.parametrize("pushdown", ["sql", "tunnel"])
def test_only_the_partitions_of_the_period_are_read(
    city: City, service: Service, tmp_path: Path, pushdown: str
) -> None:
    raw, meta = city.load(service)
    service.forget_requests()
    store = build(
        service,
        raw.address,
        meta.address,
        tmp_path / "s.store",
        pushdown=pushdown,
        start_date="20250920",
        end_date="20250921",
        train_ratio=0.5,
        val_ratio=0.25,
        test_ratio=0.25,
    )
    assert store.axis.days == 2
    assert store.manifest.counts.out_of_period == 0
    assert not service.requests("partition=ds%3D20250919")
    read = store.manifest.source["records"]["partitions"]
    assert list(read) == ["ds='20250920'", "ds='20250921'"]


def test_nodes_may_come_from_a_file_with_other_names(
    city: City, service: Service, tmp_path: Path
) -> None:
    raw, _ = city.load(service)
    nodes = city.nodes.rename_columns(["nds_id", "next_nds_id", "i", "latitude", "longitude"])
    pq.write_table(nodes, tmp_path / "nodes.parquet")
    store = build(service, raw.address, tmp_path / "nodes.parquet", tmp_path / "s.store")
    assert len(store.nodes) == len(nodes)


def test_the_newest_partition_of_a_node_table_is_taken(
    city: City, service: Service, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    raw, _ = city.load(service)
    meta = service.name("meta")
    twice = pa.concat_tables([city.nodes.slice(0, 3), city.nodes])
    columns = "nds_id string, next_nds_id string, inter_id string, lat double, lng double"
    service.load(meta, twice, columns, ["20250101"] * 3 + ["20250601"] * len(city.nodes))
    store = build(service, raw.address, meta.address, tmp_path / "s.store")
    assert len(store.nodes) == len(city.nodes)
    assert "ds='20250601'" in capfd.readouterr().err


@pytest.mark.parametrize("pushdown", ["sql", "tunnel"])
@pytest.mark.parametrize("kind", ["datetime", "timestamp", "timestamp_ntz"])
def test_native_instants_are_read_on_the_clock_of_the_zone(
    city: City, service: Service, tmp_path: Path, kind: str, pushdown: str
) -> None:
    wall = pa.array(city.records["passts_time"].to_pylist()).cast(pa.timestamp("s"))
    zoned = wall if kind == "timestamp_ntz" else pa.compute.assume_timezone(wall, "Asia/Shanghai")
    instants = pa.compute.cast(
        zoned, pa.timestamp("ns" if kind != "datetime" else "ms", zoned.type.tz)
    )
    records = city.records.set_column(2, "passts_time", instants)
    raw, (_, meta) = service.name("raw"), city.load(service)
    columns = city.columns.replace("passts_time string", f"passts_time {kind}")
    service.load(raw, records, columns, city.ds)
    files = build(service, *city.write(tmp_path / "city"), tmp_path / "files.store")
    there = build(
        service,
        raw.address,
        meta.address,
        tmp_path / "there.store",
        pushdown=pushdown,
        time_zone="Asia/Shanghai",
    )
    np.testing.assert_array_equal(there.read(), files.read())


@pytest.mark.parametrize(
    ("time", "readable"),
    [
        ("2025-09-19T08:00:00", True),
        ("2025-09-19 08:00:00+08:00", True),
        ("\n2025-09-19 08:00:00", True),
        ("2025-02-30 08:00:00", True),
        ("garbage", False),
    ],
)
def test_auto_leaves_to_the_tunnel_what_sql_may_misread(
    city: City, service: Service, tmp_path: Path, time: str, readable: bool
) -> None:
    times = city.records["passts_time"].to_pylist()
    times[0] = time
    records = city.records.set_column(2, "passts_time", pa.array(times))
    raw, (_, meta) = service.name("raw"), city.load(service)
    service.load(raw, records, city.columns, city.ds)
    places = (raw.address, meta.address)
    pq.write_table(records, tmp_path / "records.parquet")
    pq.write_table(city.nodes, tmp_path / "nodes.parquet")
    in_files = (tmp_path / "records.parquet", tmp_path / "nodes.parquet")
    files = build(service, *in_files, tmp_path / "files.store")
    auto = build(service, *places, tmp_path / "auto.store")
    assert auto.manifest.content_hash == files.manifest.content_hash
    assert auto.manifest.counts == files.manifest.counts
    if readable:
        with pytest.raises(FlowpatchError, match="--pushdown tunnel"):
            build(service, *places, tmp_path / "sql.store", pushdown="sql")
    else:
        sql = build(service, *places, tmp_path / "sql.store", pushdown="sql")
        assert sql.manifest.counts == files.manifest.counts


def test_a_key_in_an_odd_spelling_is_left_to_the_tunnel(
    city: City, service: Service, tmp_path: Path
) -> None:
    keys = [key and key.replace("1001", "\n1001") for key in city.records["nds_id"].to_pylist()]
    records = city.records.set_column(0, "nds_id", pa.array(keys))
    raw, (_, meta) = service.name("raw"), city.load(service)
    service.load(raw, records, city.columns, city.ds)
    pq.write_table(records, tmp_path / "records.parquet")
    pq.write_table(city.nodes, tmp_path / "nodes.parquet")
    in_files = (tmp_path / "records.parquet", tmp_path / "nodes.parquet")
    files = build(service, *in_files, tmp_path / "files.store")
    auto = build(service, raw.address, meta.address, tmp_path / "auto.store")
    assert auto.manifest.content_hash == files.manifest.content_hash


def test_a_changed_node_table_is_built_anew(city: City, service: Service, tmp_path: Path) -> None:
    raw, meta = city.load(service)
    reached = MaxComputeSettings(odps_endpoint=service.endpoint)
    changes = {"overwrite": True, "max_dropped_share": 1}
    given = settings(raw.address, meta.address, tmp_path / "s.store", **changes)
    first = preprocess(given, reached, keep_if_same=True)
    assert preprocess(given, reached, keep_if_same=True).version == first.version
    with service.client.get_table(meta.table).open_writer(arrow=True, overwrite=True) as writer:
        writer.write(city.nodes.slice(0, 6))
    assert len(preprocess(given, reached, keep_if_same=True).nodes) == 6


def test_a_table_without_partitions_is_read_whole(
    city: City, service: Service, tmp_path: Path
) -> None:
    _, meta = city.load(service)
    raw = service.name("raw")
    service.load(raw, city.records, city.columns)
    files = build(service, *city.write(tmp_path / "city"), tmp_path / "files.store")
    for pushdown in ("sql", "tunnel"):
        store = build(
            service, raw.address, meta.address, tmp_path / f"{pushdown}.store", pushdown=pushdown
        )
        assert store.manifest.content_hash == files.manifest.content_hash


def test_a_table_written_while_it_is_read_is_an_error(
    city: City, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, meta = city.load(service)
    survey = maxcompute_tunnel.TunnelWay.survey

    def write_meanwhile(self: Any, chosen: Any) -> Any:
        found = survey(self, chosen)
        with service.client.get_table(raw.table).open_writer("ds=20250919", arrow=True) as writer:
            writer.write(city.records.slice(0, 3))
        return found

    monkeypatch.setattr(maxcompute_tunnel.TunnelWay, "survey", write_meanwhile)
    with pytest.raises(TableChangedError, match="run the command again"):
        build(service, raw.address, meta.address, tmp_path / "s.store", pushdown="tunnel")
    assert not (tmp_path / "s.store").exists()


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"time_column": "when"}, ColumnError, "--time-column"),
        ({"value_column": "flow"}, ColumnError, "--value-column"),
        ({"node_columns": ("a", "b")}, ColumnError, "--node-columns"),
        ({"adcode_column": "city"}, ColumnError, "--adcode-column"),
        ({"start_date": date(2024, 1, 1), "end_date": date(2024, 1, 2)}, RecordError, "ds="),
        ({"adcode": "x' OR '1'='1"}, SettingsError, "--adcode"),
        ({"value_column": "a`b"}, SettingsError, "column"),
        ({"adcode": "999999"}, RecordError, "no record"),
    ],
)
def test_what_is_not_there_is_named(
    city: City,
    service: Service,
    tmp_path: Path,
    changes: dict[str, Any],
    error: type[Exception],
    said: str,
) -> None:
    raw, meta = city.load(service)
    with pytest.raises(error, match=said):
        build(service, raw.address, meta.address, tmp_path / "s.store", **changes)
    assert not (tmp_path / "s.store").exists()


@pytest.mark.parametrize("refused", ["SELECT", "CREATE TABLE"])
def test_where_sql_is_not_allowed_rows_are_read_instead(
    city: City,
    service: Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    refused: str,
) -> None:
    run = Queries.run

    def refuse(self: Queries, sql: str, *arguments: Any) -> Any:
        if sql.startswith(refused):
            raise NoPermissionError("no right to do that")
        return run(self, sql, *arguments)

    monkeypatch.setattr(Queries, "run", refuse)
    raw, meta = city.load(service)
    places = (raw.address, meta.address)
    files = build(service, *city.write(tmp_path / "city"), tmp_path / "files.store")
    auto = build(service, *places, tmp_path / "auto.store")
    assert auto.manifest.content_hash == files.manifest.content_hash
    assert "read row by row" in capfd.readouterr().err
    with pytest.raises(NoPermissionError):
        build(service, *places, tmp_path / "sql.store", pushdown="sql")


def test_a_missing_table_and_a_view_are_named(city: City, service: Service, tmp_path: Path) -> None:
    raw, meta = city.load(service)
    with pytest.raises(TableNotFoundError, match="no_such_table"):
        build(service, "odps://demo/no_such_table", meta.address, tmp_path / "s.store")
    view = service.name("view")
    service.client.execute_sql(f"CREATE VIEW {view.table} AS SELECT * FROM {raw.table}")
    with pytest.raises(QueryError, match="is a view"):
        build(service, view.address, meta.address, tmp_path / "s.store")


@pytest.mark.soak
@pytest.mark.parametrize("place", ["ingolstadt_simulated", "aarhus"])
def test_real_records_give_the_series_of_their_files(
    service: Service, tmp_path: Path, shared: Path, place: str
) -> None:
    """Millions of rows by both ways, with workers, against the same Parquet file."""
    folder = shared / "data" / place
    keys = ["nds_id", "next_nds_id"] if place == "ingolstadt_simulated" else ["sensor_id"]
    records = pq.read_table(
        folder / "records.parquet", columns=[*keys, "passts_time", "flow_label"]
    )
    changes = {"node_columns": tuple(keys), "adcode": None, "step_minutes": 5}
    nodes = folder / "nodes.csv"
    files = build(service, folder / "records.parquet", nodes, tmp_path / "f.store", **changes)

    times = pa.compute.strftime(
        pa.compute.cast(records["passts_time"], pa.timestamp("s")), "%Y-%m-%d %H:%M:%S"
    )
    table = pa.table(
        {
            **{key: pa.compute.cast(records[key], pa.string()) for key in keys},
            "passts_time": times,
            "flow_label": pa.compute.cast(records["flow_label"], pa.float64()),
        }
    )
    days = pa.compute.strftime(pa.compute.cast(records["passts_time"], pa.timestamp("s")), "%Y%m%d")
    raw = service.name(place)
    columns = ", ".join(f"{key} string" for key in keys)
    made = service.client.create_table(
        raw.table, (f"{columns}, passts_time string, flow_label double", "ds string")
    )
    for day in pa.compute.unique(days).to_pylist():
        with made.open_writer(f"ds={day}", create_partition=True, arrow=True) as writer:
            writer.write(table.filter(pa.compute.equal(days, day)))
    for pushdown in ("sql", "tunnel"):
        there = build(
            service,
            raw.address,
            nodes,
            tmp_path / f"{pushdown}.store",
            pushdown=pushdown,
            **changes,
        )
        assert there.manifest.content_hash == files.manifest.content_hash
        assert there.manifest.counts == files.manifest.counts
