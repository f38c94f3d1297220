"""preprocess: real data against a series computed apart, the same twice, and what bad input leaves.

Every refusal is checked for its class, for a message with the bad value and the next step, and
for what it leaves on disk: nothing new, and an existing store as it was.
"""

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flowpatch.errors import (
    ColumnError,
    FlowpatchError,
    NodeTableError,
    PeriodError,
    RecordError,
    SettingsError,
    SourceError,
    SourceNotFoundError,
    StoreExistsError,
)
from flowpatch.preprocessing import stretches
from flowpatch.preprocessing.build import preprocess
from flowpatch.preprocessing.settings import PreprocessSettings
from flowpatch.store.sample_store import SampleStore, open_store


def settings_of(folder: Path, store: Path, **changes: Any) -> PreprocessSettings:
    given = {
        "records": str(folder / "records.parquet"),
        "nodes": str(folder / "nodes.csv"),
        "store": store,
        "node_columns": "sensor_id",
        "step_minutes": 30,
    }
    return PreprocessSettings(**{**given, **changes})


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """records.parquet and nodes.csv: 12 nodes, 5 days of 30-minute steps, some cells missing."""
    folder = tmp_path_factory.mktemp("city")
    generator = np.random.default_rng(7)
    step, node = np.nonzero(generator.random((5 * 48, 12)) < 0.95)
    columns = {
        "sensor_id": 100 + node,
        "passts_time": np.datetime64("2025-03-03T00:00", "ms") + step * np.timedelta64(30, "m"),
        "flow_label": generator.poisson(20 + node, len(node)),
    }
    pq.write_table(pa.table(columns), folder / "records.parquet")
    rows = [f"{100 + i},{56.1 + i / 100},{10.1 + i % 5 / 100}" for i in range(12)]
    (folder / "nodes.csv").write_text("\n".join(["sensor_id,lat,lng", *rows]) + "\n")
    return folder


# --- real data ------------------------------------------------------------------------------------


def direct_series(
    records: Path, nodes: Path, keys: list[str], first: str, days: int, step_minutes: int
) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """Sorted keys and mean series by SQL that shares no line with the source under test."""
    names = ", ".join(keys)
    connection = duckdb.connect()
    table = connection.sql(
        f"SELECT {names} FROM read_csv('{nodes}') WHERE lat IS NOT NULL ORDER BY {names}"
    ).fetchall()
    connection.register(
        "known",
        pa.table(
            {
                **{key: [row[i] for row in table] for i, key in enumerate(keys)},
                "node": np.arange(len(table)),
            }
        ),
    )
    steps = days * 1440 // step_minutes
    found = connection.sql(
        f"""SELECT date_diff('second', TIMESTAMP '{first}', passts_time) // {60 * step_minutes} s,
                   node, avg(flow_label) v
            FROM '{records}' JOIN known USING ({names})
            GROUP BY ALL HAVING s BETWEEN 0 AND {steps - 1}"""
    ).fetchnumpy()
    values = np.full((steps, len(table)), np.nan, np.float32)
    values[found["s"], found["node"]] = found["v"]
    return table, values


@pytest.fixture(scope="module")
def aarhus(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> SampleStore:
    folder = shared / "data" / "aarhus"
    store = tmp_path_factory.mktemp("aarhus") / "aarhus.store"
    return preprocess(settings_of(folder, store, step_minutes=5))


def test_aarhus_is_the_series_that_sql_gives(aarhus: SampleStore, shared: Path) -> None:
    folder = shared / "data" / "aarhus"
    keys, expected = direct_series(
        folder / "records.parquet", folder / "nodes.csv", ["sensor_id"], "2014-08-01", 61, 5
    )
    assert aarhus.nodes.keys[0].tolist() == [key for (key,) in keys]
    np.testing.assert_array_equal(aarhus.read(), expected)


def test_aarhus_counts_and_findings_are_the_known_ones(aarhus: SampleStore) -> None:
    counts, quality = aarhus.manifest.counts, aarhus.manifest.quality
    assert (counts.read, counts.used, counts.repeated) == (7_135_969, 7_135_969, 0)
    values = aarhus.read(quality.first_step, quality.stop_step)
    observed = ~np.isnan(values)
    assert quality.observed == observed.sum() == counts.used - counts.repeated
    assert quality.coverage == pytest.approx(observed.mean())
    assert quality.zeros == (values == 0).sum()
    gaps = np.diff(np.concatenate([[0], ~observed.any(axis=1), [0]]).astype(int)) == 1
    assert quality.network_gaps == gaps.sum()


def test_aarhus_scales_by_its_training_values_alone(aarhus: SampleStore) -> None:
    training = aarhus.read(*aarhus.splits.bounds("train")).astype(np.float64)
    assert aarhus.statistics.mean == pytest.approx(np.nanmean(training), rel=1e-12)
    assert aarhus.statistics.deviation == pytest.approx(np.nanstd(training), rel=1e-9)
    steps = aarhus.splits.stop - aarhus.splits.first
    assert aarhus.splits.val_start == aarhus.splits.first + steps * 6 // 10


def test_ingolstadt_is_the_series_that_sql_gives_and_the_same_twice(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two key columns; the second build gathers one day at a time."""
    folder, keys = shared / "data" / "ingolstadt_simulated", ["nds_id", "next_nds_id"]
    period = {"step_minutes": 1, "start_date": "20250304", "end_date": "20250305"}
    store = preprocess(settings_of(folder, tmp_path / "a", node_columns=keys, **period))
    monkeypatch.setattr(stretches, "GATHER_BYTES", 1)
    again = preprocess(settings_of(folder, tmp_path / "b", node_columns=keys, **period))
    assert again.manifest.content_hash == store.manifest.content_hash

    records, nodes = folder / "records.parquet", folder / "nodes.csv"
    rows, expected = direct_series(records, nodes, keys, "2025-03-04", 2, 1)
    assert list(zip(*(key.tolist() for key in store.nodes.keys), strict=True)) == rows
    np.testing.assert_array_equal(store.read(), expected)
    counts = store.manifest.counts
    assert counts.read == 3_311_312
    assert counts.used + counts.out_of_period == counts.read


def test_xarray_reads_labelled_time_nodes_and_places(aarhus: SampleStore) -> None:
    xarray = pytest.importorskip("xarray")
    with xarray.open_zarr(aarhus.zarr_store, consolidated=False) as opened:
        value = opened["value"]
        assert value.dims == ("time", "node")
        assert {"time", "node", "latitude", "longitude"} <= set(value.coords)
        np.testing.assert_array_equal(value["time"].values, aarhus.axis.instants())
        np.testing.assert_array_equal(value["node"].values, aarhus.nodes.keys[0])
        np.testing.assert_array_equal(value["latitude"].values, aarhus.nodes.latitude)
        assert value["latitude"].dims == value["longitude"].dims == ("node",)
        one = value.sel(node=158324, time="2014-08-01T07:50")
        node = aarhus.nodes.keys[0].tolist().index(158324)
        step = aarhus.axis.step_of(np.datetime64("2014-08-01T07:50"))
        assert float(one) == aarhus.read(step, step + 1)[0, node] == 5


# --- the same again -------------------------------------------------------------------------------


@pytest.mark.parametrize("aggregate", ["mean", "last"])
def test_the_same_input_gives_the_same_content_in_one_stretch_or_many(
    city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aggregate: str
) -> None:
    monkeypatch.setattr("flowpatch.store.arrays.BLOCK_BYTES", 1)
    stores = [preprocess(settings_of(city, tmp_path / n, aggregate=aggregate)) for n in "ab"]
    monkeypatch.setattr(stretches, "GATHER_BYTES", 1)
    stores.append(preprocess(settings_of(city, tmp_path / "c", aggregate=aggregate)))
    assert len({store.manifest.content_hash for store in stores}) == 1
    assert len({str(asdict(store.manifest.counts)) for store in stores}) == 1
    assert len({str(store.manifest.quality) for store in stores}) == 1
    np.testing.assert_array_equal(stores[0].read(), stores[2].read())


@pytest.mark.parametrize("aggregate", ["mean", "sum", "max", "last"])
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_ways_for_many_records_give_the_same_content_and_counts(
    city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, aggregate: str
) -> None:
    """Compiled loops, row groups in threads, and plain lines of CSV."""
    table = pq.read_table(city / "records.parquet")
    bad = {
        "sensor_id": pa.array([100, None, 999, 101], table["sensor_id"].type),
        "passts_time": pa.array([None, *table["passts_time"][:3].to_pylist()], pa.timestamp("ms")),
        "flow_label": pa.array([1, 2, 3, None], table["flow_label"].type),
    }
    records = tmp_path / f"records.{suffix}"
    joined = pa.concat_tables([table, pa.table(bad)])
    if suffix == "parquet":
        pq.write_table(joined, records, row_group_size=100)
    else:
        connection = duckdb.connect()
        connection.register("joined", joined)
        connection.sql("SELECT * FROM joined").write_csv(str(records))
    changes = {"records": str(records), "aggregate": aggregate}
    plain = preprocess(settings_of(city, tmp_path / "plain.store", **changes))
    for module in ("flowpatch.sources.files", "flowpatch.preprocessing.stretches"):
        monkeypatch.setattr(f"{module}.MANY_RECORDS", 0)
    monkeypatch.setattr("flowpatch.sources.files.COPY_BYTES", 0)
    monkeypatch.setattr("flowpatch.sources.files.PLAIN_BYTES", 0)
    many = preprocess(settings_of(city, tmp_path / "many.store", **changes))
    assert many.manifest.content_hash == plain.manifest.content_hash
    assert many.manifest.counts == plain.manifest.counts
    assert plain.manifest.counts.without_time == plain.manifest.counts.not_a_number == 1
    assert plain.manifest.counts.unknown_node == 2
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {records.name, "plain.store", "many.store"} | {
        name for name in left if name.endswith(".lock")
    }


def test_a_tiny_memory_does_cut_the_axis(
    city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above would mean nothing otherwise."""
    monkeypatch.setattr("flowpatch.store.arrays.BLOCK_BYTES", 1)
    monkeypatch.setattr(stretches, "GATHER_BYTES", 1)
    gathered = []
    gather = stretches.gather_stretch

    def watch(gathering, axis, scatter, first, stop, after_block):
        gathered.append((first, stop))
        return gather(gathering, axis, scatter, first, stop, after_block)

    monkeypatch.setattr(stretches, "gather_stretch", watch)
    preprocess(settings_of(city, tmp_path / "a"))
    assert gathered == [(first, first + 48) for first in range(0, 240, 48)]


def test_the_order_and_the_cut_of_files_change_nothing(city: Path, tmp_path: Path) -> None:
    table = pq.read_table(city / "records.parquet")
    order = np.random.default_rng(3).permutation(len(table))
    (tmp_path / "r").mkdir()
    for i, part in enumerate(np.array_split(order, 3)):
        pq.write_table(table.take(part), tmp_path / f"r/{9 - i}.parquet")
    lines = (city / "nodes.csv").read_text().splitlines()
    (tmp_path / "n.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]))
    changed = settings_of(
        city, tmp_path / "b", records=str(tmp_path / "r"), nodes=str(tmp_path / "n.csv")
    )
    straight = preprocess(settings_of(city, tmp_path / "a"))
    assert preprocess(changed).manifest.content_hash == straight.manifest.content_hash


def test_another_setting_gives_another_content(city: Path, tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {}, {"step_minutes": 60}, {"end_date": "20250306"}, {"null_value": 20},
        {"train_ratio": 0.5, "val_ratio": 0.3}, {"time_zone": "Europe/Berlin"},
    ]  # fmt: skip
    hashes = {
        preprocess(settings_of(city, tmp_path / str(i), **change)).manifest.content_hash
        for i, change in enumerate(changes)
    }
    assert len(hashes) == len(changes)


def test_the_manifest_repeats_the_settings_and_names_the_files(city: Path, tmp_path: Path) -> None:
    settings = settings_of(city, tmp_path / "s", null_value=0, start_date="20250303")
    recipe = open_store(preprocess(settings).path).manifest.recipe
    assert PreprocessSettings(**recipe, store=tmp_path / "s") == settings


# --- counts ---------------------------------------------------------------------------------------


def dirty_csv(city: Path, path: Path) -> dict[str, int]:
    """Writes the city's records with some of every fault; returns the counts that are due."""
    table = pq.read_table(city / "records.parquet")
    rows = [[str(field) for field in row.values()] for row in table.to_pylist()]
    for row in rows[:40]:
        row[2] = "0"
    key, time, _ = rows[50]
    faults = [
        ("999", time, "1", "unknown_node", 3),
        ("500", time, "1", "node_without_coordinates", 2),
        (key, "soon", "1", "without_time", 4),
        (key, time, "", "not_a_number", 5),
        (key, time, "inf", "not_a_number", 6),
        (key, time, "9.5", "repeated", 7),
        (key, "2025-03-02 23:59:59.999", "1", "out_of_period", 8),
        (key, "2025-03-08 00:00:00", "1", "out_of_period", 9),
    ]
    due = {"null_value": 40}
    for *row, cause, times in faults:
        rows += [row] * times
        due[cause] = due.get(cause, 0) + times
    path.write_text("\n".join(map(",".join, [table.column_names, *rows])) + "\n")
    left_out = sum(times for cause, times in due.items() if cause != "repeated")
    return {**due, "read": len(rows), "used": len(rows) - left_out}


def test_every_cause_is_counted_exactly(city: Path, tmp_path: Path) -> None:
    due = dirty_csv(city, tmp_path / "r.csv")
    (tmp_path / "n.csv").write_text((city / "nodes.csv").read_text() + "500,,10.1\n")
    settings = settings_of(
        city, tmp_path / "s", records=str(tmp_path / "r.csv"), nodes=str(tmp_path / "n.csv"),
        null_value=0, start_date="20250303", end_date="20250307",
    )  # fmt: skip
    store = preprocess(settings)
    counts = asdict(store.manifest.counts)
    assert counts == {**dict.fromkeys(counts, 0), **due}
    assert counts["used"] - counts["repeated"] == store.manifest.quality.observed
    assert (len(store.nodes), store.manifest.nodes_without_coordinates) == (12, 1)


def test_a_period_keeps_whole_days_and_the_rest_is_out_of_it(city: Path, tmp_path: Path) -> None:
    whole = preprocess(settings_of(city, tmp_path / "a"))
    part = preprocess(
        settings_of(city, tmp_path / "b", start_date="20250304", end_date="2025-03-06")
    )
    assert str(part.axis.start) == "2025-03-04T00:00"
    assert part.axis.days == 3
    np.testing.assert_array_equal(part.read(), whole.read(48, 4 * 48))
    counts = part.manifest.counts
    assert counts.out_of_period == whole.manifest.counts.used - counts.used > 0


# --- refusals -------------------------------------------------------------------------------------

Change = Callable[[Path, Path], dict[str, Any]]
"""(city, folder for changed files) -> settings that must be refused."""


def table_of(write: Callable[[list[str]], list[str]]) -> Change:
    """A changed node table."""

    def change(city: Path, folder: Path) -> dict[str, Any]:
        lines = write((city / "nodes.csv").read_text().splitlines())
        (folder / "n.csv").write_text("\n".join(lines) + "\n")
        return {"nodes": str(folder / "n.csv")}

    return change


def records_of(write: Callable[[pa.Table], pa.Table], **settings: Any) -> Change:
    """Changed records."""

    def change(city: Path, folder: Path) -> dict[str, Any]:
        pq.write_table(write(pq.read_table(city / "records.parquet")), folder / "r.parquet")
        return {"records": str(folder / "r.parquet"), **settings}

    return change


def plain(**settings: Any) -> Change:
    return lambda city, folder: settings


def put(name: str, column: Callable[[int], Any]) -> Callable[[pa.Table], pa.Table]:
    return lambda t: t.set_column(t.schema.get_field_index(name), name, column(len(t)))


def truncated(city: Path, folder: Path) -> dict[str, Any]:
    content = (city / "records.parquet").read_bytes()
    (folder / "r.parquet").write_bytes(content[: len(content) // 2])
    return {"records": str(folder / "r.parquet")}


def mixed(city: Path, folder: Path) -> dict[str, Any]:
    (folder / "m").mkdir()
    (folder / "m/a.csv").touch()
    (folder / "m/b.parquet").touch()
    return {"records": str(folder / "m")}


def empty_folder(city: Path, folder: Path) -> dict[str, Any]:
    (folder / "empty").mkdir()
    return {"records": str(folder / "empty")}


def swap_all_unknown(table: pa.Table) -> pa.Table:
    return put("sensor_id", lambda n: pa.array(np.where(np.arange(n) % 10, 100, 5)))(table)


REFUSALS: dict[str, tuple[Change, type[FlowpatchError], str]] = {
    "missing file": (
        plain(records="/no/such.parquet"), SourceNotFoundError, r"'/no/such.parquet'.*--records"),
    "missing nodes": (
        plain(nodes="/no/nodes.csv"), SourceNotFoundError, r"'/no/nodes.csv'.*--nodes"),
    "empty glob": (
        plain(records="/no/*.parquet"), SourceNotFoundError, r"'/no/\*.parquet'.*--records"),
    "empty folder": (empty_folder, SourceError, r"empty' holds no file.*Allowed: .parquet"),
    "empty name": (plain(records=""), SourceNotFoundError, r"--records '' is empty. Give a file"),
    "mixed formats": (mixed, SourceError, r"both Parquet and CSV.*Name one kind"),
    "no key column": (
        plain(node_columns="link"), ColumnError, r"'link'.*Columns there: sensor_id.*--node-col"),
    "no time column": (
        plain(time_column="when"), ColumnError, r"'when'.*Columns there: sensor_id.*--time-col"),
    "no value column": (
        plain(value_column="n"), ColumnError, r"'n'.*Columns there: sensor_id.*--value-column"),
    "no adcode column": (
        plain(adcode="1"), ColumnError, r"'adcode'.*Columns there: sensor_id.*--adcode-column"),
    "no such city": (
        records_of(lambda t: t.append_column("adcode", pa.array(["a"] * len(t))), adcode="b"),
        RecordError, r"no record with adcode = 'b'. Check --records"),
    "no record": (records_of(lambda t: t.slice(0, 0)), RecordError, "holds no record. Check --rec"),
    "no latitude column": (
        table_of(lambda rows: [rows[0].replace("lat", "a"), *rows[1:]]),
        ColumnError, r"'lat'.*Columns there: sensor_id, a, lng.*--lat-column"),
    "no longitude column": (
        table_of(lambda rows: [rows[0].replace("lng", "b"), *rows[1:]]),
        ColumnError, r"'lng'.*Columns there: sensor_id, lat, b.*--lng-column"),
    "no coordinates": (
        table_of(lambda rows: [rows[0], *(row.split(",")[0] + ",," for row in rows[1:])]),
        NodeTableError, r"No node has coordinates.*--lat-column"),
    "text for coordinates": (
        table_of(lambda rows: [rows[0], *(row.split(",")[0] + ",north,x" for row in rows[1:])]),
        NodeTableError, r"No node has coordinates.*--lat-column"),
    "repeated keys": (
        table_of(lambda rows: [*rows, rows[1]]), NodeTableError, r"such as sensor_id=100.*one row"),
    "no nodes": (table_of(lambda rows: rows[:1]), NodeTableError, r"no rows. Check --nodes"),
    "unreadable times": (
        records_of(put("passts_time", lambda n: pa.array(["20250303T08"] * n))),
        RecordError, r"such as '20250303T08' in column 'passts_time'.*--time-format"),
    "numbers for times": (
        records_of(put("passts_time", lambda n: pa.array([1741000000] * n))),
        ColumnError, r"'passts_time'.* is BIGINT, not a time.*unix_s"),
    "milliseconds for seconds": (
        records_of(put("passts_time", lambda n: pa.array([1741000000000] * n)),
                   time_format="unix_s"),
        RecordError, r"such as '1741000000000'.*unix_ms"),
    "bad pattern": (
        records_of(put("passts_time", lambda n: pa.array(["x"] * n)), time_format="%Q"),
        SettingsError, r"--time-format '%Q'.*%Y%m%d"),
    "no record in the period": (
        plain(start_date="20240101", end_date="20240131"),
        RecordError, r"2024-01-01 to 2024-01-31: the records run from 2025-03-03.*--start-date"),
    "period begins after the records": (
        plain(start_date="20260101"), RecordError, r"No record in the period 2026-01-01"),
    "period ends before the records": (
        plain(end_date="20240101"), RecordError, r"No record in the period .* to 2024-01-01"),
    "every value null": (
        records_of(put("flow_label", lambda n: pa.array([7] * n)), null_value=7),
        RecordError, r"Every value is missing.*null value.*--null-value"),
    "every value missing": (
        records_of(put("flow_label", lambda n: pa.nulls(n, pa.int32())), max_dropped_share=1),
        RecordError, r"Every value is missing.*not a number.*--value-column"),
    "time for a value": (
        plain(value_column="passts_time"), RecordError, r"\(100.0%\).*not a number. Allowed: 5.0%"),
    "too many dropped": (
        records_of(swap_all_unknown), RecordError, r"unknown node. Allowed: 5.0%.*--max-drop"),
    "truncated file": (truncated, SourceError, r"Cannot read '.*r.parquet'"),
    "shorter than a window": (
        plain(input_len=200, output_len=41), PeriodError, r"240 steps.*200 \+ 41.*--input-len"),
    "split without a window": (
        plain(train_ratio=0.9, val_ratio=0.05, test_ratio=0.05, output_len=24),
        PeriodError, r"split 'val' of 12 steps holds no window.*needs 24.*--val-ratio"),
    "nothing to train on": (
        plain(input_len=140), PeriodError, r"split 'train'.*--train-ratio"),
}  # fmt: skip


def snapshot(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(scope="module")
def finished(city: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that refused builds must leave as it is."""
    return preprocess(settings_of(city, tmp_path_factory.mktemp("done") / "s")).path


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refused_build_explains_itself_and_leaves_nothing(
    city: Path, tmp_path: Path, finished: Path, name: str
) -> None:
    change, error, message = REFUSALS[name]
    changes = change(city, tmp_path)
    (tmp_path / "out").mkdir()
    with pytest.raises(error, match=message) as caught:
        preprocess(settings_of(city, tmp_path / "out/s", **changes))
    assert type(caught.value) is error
    assert list((tmp_path / "out").iterdir()) == []

    before, version = snapshot(finished), open_store(finished).version
    with pytest.raises(error, match=message):
        preprocess(settings_of(city, finished, overwrite=True, **changes))
    assert open_store(finished).version == version
    committed = snapshot(finished)
    assert {file: committed.get(file) for file in before} == before
    assert [path.name for path in finished.parent.iterdir()] == [finished.name]


def test_a_store_that_exists_is_refused_before_anything_is_read(city: Path, finished: Path) -> None:
    before = snapshot(finished)
    with pytest.raises(StoreExistsError, match=r"already at '.*s'.*--store, or --overwrite"):
        preprocess(settings_of(city, finished, records="/no/such.parquet"))
    assert snapshot(finished) == before


def test_a_folder_that_is_no_store_is_never_written_over(city: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_bytes(b"cat")
    for overwrite in (False, True):
        with pytest.raises(StoreExistsError, match=r"no sample store.*nothing was touched"):
            preprocess(settings_of(city, tmp_path / "photos", overwrite=overwrite))
    assert snapshot(tmp_path) == {"photos/cat.jpg": hashlib.sha256(b"cat").hexdigest()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_ratio": 0.7}, r"0.7 \+ 0.2 \+ 0.2 = 1.1.*add to 1.*--train-ratio"),
        ({"train_ratio": 0.8, "val_ratio": 0.0}, r"each be above 0"),
        ({"start_date": "20250305", "end_date": "20250304"},
         r"--end-date 2025-03-04 lies before --start-date 2025-03-05"),
        ({"start_date": "20251301"}, r"'20251301' is no date. Write it as"),
        ({"step_minutes": 7}, r"step of 7 minutes.*Near it: .*6, 8"),
        ({"time_zone": "Mars"}, r"Unknown time zone 'Mars'. Give a name"),
        ({"aggregate": "avg"}, r"Unknown aggregate 'avg'. Allowed: mean, sum, max, last."),
        ({"node_columns": ""}, r"--node-columns '' must name one or more"),
        ({"node_columns": "a,a"}, r"--node-columns 'a,a' must name .* different"),
        ({"max_dropped_share": 1.5}, r"'1.5' for max_dropped_share.*less than or equal to 1"),
        ({"input_len": 0}, r"'0' for input_len"),
        ({"output_len": -1}, r"'-1' for output_len"),
        ({"null_value": float("nan")}, r"'nan' for null_value"),
        ({"agregate": "mean"}, r"Unknown setting 'agregate'. Allowed: .*aggregate"),
    ],
)  # fmt: skip
def test_settings_that_are_wrong_in_themselves_are_misuse(
    city: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        settings_of(city, tmp_path / "s", **changes)
    assert caught.value.exit_code == 2


def test_a_day_that_the_records_lack_is_a_gap(city: Path, tmp_path: Path) -> None:
    """The axis has every step, and the gap is one of the findings."""

    def without_a_day(table: pa.Table) -> pa.Table:
        day = np.array(table["passts_time"]).astype("datetime64[D]")
        return table.filter(pa.array(day != np.datetime64("2025-03-05")))

    changes = records_of(without_a_day)(city, tmp_path)
    store = preprocess(settings_of(city, tmp_path / "s", **changes))
    assert store.axis.days == 5
    assert np.isnan(store.read(2 * 48, 3 * 48)).all()
    quality = store.manifest.quality
    assert (quality.network_gaps, quality.longest_network_gap_steps) == (1, 48)
    assert (quality.lowest_day, quality.lowest_day_coverage) == ("2025-03-05", 0.0)


def test_dates_bound_the_axis_even_beyond_the_records(city: Path, tmp_path: Path) -> None:
    first, last = date(2025, 3, 1), date(2025, 3, 9)
    store = preprocess(settings_of(city, tmp_path / "s", start_date=first, end_date=last))
    assert (str(store.axis.start)[:10], str(store.axis.stop)[:10]) == (
        str(first),
        str(last + timedelta(days=1)),
    )
    assert (store.splits.first, store.splits.stop) == (2 * 48, 7 * 48)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_build_leaves_nothing_and_ends(
    shared: Path, tmp_path: Path, number: signal.Signals
) -> None:
    # In another process: an exception in the midst of an import once left a build hanging.
    data, store = shared / "data" / "aarhus", tmp_path / "aarhus.store"
    records, nodes = data / "records.parquet", data / "nodes.csv"
    command = [sys.executable, "-m", "flowpatch", "preprocess", "--node-columns", "sensor_id"]
    process = subprocess.Popen(
        [*command, "--store", store, "--records", records, "--nodes", nodes],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    while not (store / "snapshots").exists():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.001)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Stopped; nothing was written" in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []
