"""Store -> sample table -> store: value for value, whoever wrote the table, or a clear error."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flowpatch.errors import (
    OutOfPatienceError,
    SampleTableError,
    SettingsError,
    StoppedByUser,
    TableExistsError,
    TableNotFoundError,
)
from flowpatch.interruption import Interruption, StopAskedError
from flowpatch.maxcompute.names import TableName
from flowpatch.preprocessing.build import preprocess
from flowpatch.store.sample_store import SampleStore
from flowpatch.tables import codec, fetch, publication, publish, samples, unfinished
from flowpatch.tables.schema import COLUMNS, Metadata, read_metadata
from flowpatch.tables.settings import FetchSettings, PublishSettings
from maxcompute_city import City, Service, settings

TEXT_COLUMNS = ", ".join(f"{name.lower()} string" for name in COLUMNS)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SampleStore:
    folder = tmp_path_factory.mktemp("published")
    return preprocess(settings(*City().write(folder), folder / "city.store"))


class Samples:
    """Publishes and fetches with the settings of a test."""

    def __init__(self, service: Service, store: SampleStore, folder: Path) -> None:
        self.service, self.store, self.folder = service, store, folder
        self.table = service.name("samples")
        self.file = folder / "metadata.json"

    def publish(self, table: TableName | None = None, **changes: Any) -> Metadata:
        lengths = {key: changes.pop(key, None) for key in ("input_len", "output_len")}
        return publish.publish(
            self.service.connection(),
            changes.pop("store", self.store),
            table or self.table,
            self.file,
            PublishSettings(**changes),
            workers=0,
            **lengths,
        )

    def fetch(self, table: TableName | None = None, **changes: Any) -> SampleStore:
        return fetch.fetch(
            self.service.connection(changes.pop("patience_s", 20.0)),
            table or self.table,
            changes.pop("metadata", None) or read_metadata(self.file),
            FetchSettings(**changes),
            workers=0,
        )

    def rows(self) -> pa.Table:
        rows = self.service.rows(self.table)
        return pa.table({n.lower(): [row[i] for row in rows] for i, n in enumerate(COLUMNS)})

    def by_others(self, rows: pa.Table, **changes: Any) -> tuple[TableName, Metadata]:
        """A table that somebody else wrote, with no more metadata than is needed."""
        table = self.service.name("others")
        self.service.load(table, rows, TEXT_COLUMNS)
        written = json.loads(self.file.read_text())
        needed = ("input_len", "output_len", "step_minutes", "nodes")
        return table, Metadata(**{**{key: written[key] for key in needed}, **changes})


@pytest.fixture
def table(service: Service, store: SampleStore, tmp_path: Path) -> Samples:
    return Samples(service, store, tmp_path)


def same_series(found: SampleStore, store: SampleStore) -> None:
    """Value for value, NaN included, wherever the split's windows reach."""
    offset = found.axis.step_of(store.axis.start)
    assert offset == 0
    first, stop = store.splits.first, store.splits.stop
    np.testing.assert_array_equal(found.read(first, stop), store.read(first, stop))
    assert found.nodes.fingerprint() == store.nodes.fingerprint()


# Publish and fetch


@pytest.mark.parametrize("partitioned", [False, True])
@pytest.mark.parametrize("encoding", ["zstd", "text"])
@pytest.mark.parametrize("stride", [1, 5, 12])
def test_a_table_gives_back_the_store(
    table: Samples, encoding: str, stride: int, partitioned: bool
) -> None:
    metadata = table.publish(encoding=encoding, sample_stride=stride, partitioned=partitioned)
    found = table.fetch()
    assert found.manifest.content_hash == table.store.manifest.content_hash
    schema = table.service.client.get_table(table.table.table).table_schema
    names = [column.name.lower() for column in schema.columns]
    assert sorted(names) == sorted(name.lower() for name in COLUMNS)
    assert [c.name for c in schema.partitions] == (["split"] if partitioned else [])
    assert metadata.rows == sum(metadata.samples.values())


def test_a_row_is_its_window(table: Samples) -> None:
    table.publish(encoding="text")
    store, rows = table.store, table.rows().to_pylist()
    assert len({row["sample_id"] for row in rows}) == len(rows)
    for row in rows[::37]:
        origin = store.axis.step_of(np.datetime64(row["timestamp"]))
        window = store.read(origin - 6, origin + 6)
        x, y, nodes = (codec.decode(row[name], name, 10_000) for name in ("x", "y", "node_indices"))
        np.testing.assert_array_equal(nodes, np.arange(8))
        np.testing.assert_array_equal(x.reshape(6, 8), window[:6])
        np.testing.assert_array_equal(y.reshape(6, 8), window[6:])
        te_y = codec.decode(row["te_y"], "te_y", 10_000).reshape(6, 2)
        np.testing.assert_array_equal(te_y[:, 0], np.arange(origin, origin + 6) % 48)
        # 2025-09-19, the first day, was a Friday.
        np.testing.assert_array_equal(te_y[:, 1], (4 + np.arange(origin, origin + 6) // 48) % 7)
        first, stop = store.splits.bounds(row["split"])
        assert first <= origin <= stop - 6


def test_other_lengths_may_be_published(table: Samples) -> None:
    metadata = table.publish(input_len=4, output_len=9)
    assert (metadata.input_len, metadata.output_len) == (4, 9)
    assert table.fetch().manifest.content_hash == table.store.manifest.content_hash


def test_about_one_row_in_twelve_is_read(table: Samples) -> None:
    metadata = table.publish(input_len=12, output_len=12)
    table.service.forget_requests()
    table.fetch()
    read = [e for e in table.service.requests("rowrange") if "columns=x" in e["query"].lower()]
    rows = sum(entry["rows"] for entry in read)
    # At the two borders between splits there are no origins for 12 steps.
    assert rows <= metadata.rows / 12 + 6


@pytest.mark.parametrize("encoding", ["zstd", "text"])
def test_a_wide_city_is_cut_into_several_rows_an_origin(
    table: Samples, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 1024 + codec.longest_cell(3 * 6, encoding)
    for module in (samples,):
        monkeypatch.setattr(module, "CELL_BYTES", limit)
    metadata = table.publish(encoding=encoding)
    assert metadata.rows >= 2 * sum(metadata.samples.values())
    longest = max(len(cell) for name in ("x", "y") for cell in table.rows()[name].to_pylist())
    assert longest < limit
    assert table.fetch().manifest.content_hash == table.store.manifest.content_hash


# The cache


def test_a_second_fetch_reads_no_samples(table: Samples) -> None:
    table.publish()
    first = table.fetch()
    table.service.forget_requests()
    second = table.fetch()
    assert second.path == first.path
    assert not table.service.requests("rowrange")
    assert not table.service.requests("downloads")


def test_a_changed_table_is_fetched_anew(table: Samples) -> None:
    table.publish()
    first = table.fetch()
    table.publish(sample_stride=3, if_exists="replace")
    second = table.fetch()
    assert second.path != first.path
    assert second.manifest.content_hash == first.manifest.content_hash


def test_a_table_written_again_within_a_second_is_noticed(
    table: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "SETTLING_S", 2.0)
    table.publish(encoding="text")
    first = table.fetch()
    rows = table.rows().to_pylist()
    # As many characters as before: the size of the table tells nothing.
    changed = [
        {**row, "x": row["x"].replace("1", "2"), "y": row["y"].replace("1", "2")} for row in rows
    ]
    with table.service.client.get_table(table.table.table).open_writer(
        arrow=True, overwrite=True
    ) as writer:
        writer.write(pa.Table.from_pylist(changed))
    assert table.fetch().manifest.content_hash != first.manifest.content_hash


# Tables of others


def test_shuffled_rows_give_the_series(table: Samples) -> None:
    table.publish(encoding="text")
    rows = table.rows()
    order = np.random.default_rng(5).permutation(len(rows))
    others, metadata = table.by_others(rows.take(order))
    found = table.fetch(others, metadata=metadata)
    same_series(found, table.store)
    assert found.splits == table.store.splits


def test_missing_rows_leave_gaps_and_nothing_else(table: Samples) -> None:
    table.publish()
    rows = table.rows()
    kept = np.ones(len(rows), dtype=bool)
    kept[20:60] = False
    others, metadata = table.by_others(rows.filter(pa.array(kept)))
    found = table.fetch(others, metadata=metadata).read()
    whole = table.store.read()
    lacking = np.isnan(found) & ~np.isnan(whole)
    assert lacking.any()
    np.testing.assert_array_equal(found[~lacking], whole[~lacking])
    # Rows 20 to 59 are the origins 26 to 65: without them no window holds steps 31 to 59.
    assert set(np.flatnonzero(lacking.any(axis=1))) <= set(range(31, 60))


def test_windows_that_do_not_overlap_are_accepted(table: Samples) -> None:
    table.publish(sample_stride=12)
    others, metadata = table.by_others(table.rows())
    same_series(table.fetch(others, metadata=metadata), table.store)


def test_rows_of_single_nodes_are_put_together(table: Samples) -> None:
    """One row an origin, but each of another half of the nodes."""
    table.publish(encoding="text")
    halves = []
    for number, row in enumerate(table.rows().to_pylist()):
        for half in (np.array([5, 0, 3, 1]), np.array([2, 4, 6, 7])):
            if number in (2, 4, 6, 8) and half[0] == 5:
                continue
            narrow = dict(row)
            for name in ("x", "y"):
                values = codec.decode(row[name], name, 10_000).reshape(6, 8)
                narrow[name] = codec.encode(values[:, half], "text")
            narrow["node_indices"] = codec.encode(half, "text")
            halves.append(narrow)
    others, metadata = table.by_others(pa.Table.from_pylist(halves))
    same_series(table.fetch(others, metadata=metadata), table.store)


def test_narrow_rows_with_timestamps_of_their_own_are_noticed(table: Samples) -> None:
    table.publish(encoding="text")
    narrow = []
    for number, row in enumerate(table.rows().to_pylist()):
        half = np.arange(4) + 4 * (number % 2)
        values = {n: codec.decode(row[n], n, 10_000).reshape(6, 8)[:, half] for n in ("x", "y")}
        cells = {name: codec.encode(value, "text") for name, value in values.items()}
        narrow.append({**row, **cells, "node_indices": codec.encode(half, "text")})
    others, metadata = table.by_others(pa.Table.from_pylist(narrow))
    found = table.fetch(others, metadata=metadata).read()
    whole = table.store.read()
    lacking = np.isnan(found) & ~np.isnan(whole)
    assert set(np.flatnonzero(lacking.any(axis=1))) <= {0, len(whole) - 1}


@pytest.mark.parametrize(
    "stamp", ["20250919", "2025-09-19 08:00:30", "2025-09-19 08:00:00+08:00", "now", "", None]
)
def test_a_timestamp_that_is_no_instant_is_refused(table: Samples, stamp: str | None) -> None:
    table.publish(encoding="text")
    rows = table.rows().to_pylist()
    rows[7]["timestamp"] = stamp
    others, metadata = table.by_others(pa.Table.from_pylist(rows))
    with pytest.raises(SampleTableError, match="timestamp"):
        table.fetch(others, metadata=metadata)


def test_a_wrong_year_does_not_fill_the_disk(table: Samples) -> None:
    table.publish(encoding="text")
    rows = table.rows().to_pylist()
    rows[-1]["timestamp"] = "2120-01-01 00:00:00"
    others, metadata = table.by_others(pa.Table.from_pylist(rows))
    with pytest.raises(SampleTableError, match="wrong year"):
        table.fetch(others, metadata=metadata)


def test_splits_that_are_mixed_in_time_are_refused(table: Samples) -> None:
    table.publish(encoding="text")
    rows = table.rows().to_pylist()
    names = np.random.default_rng(2).choice(["train", "val", "test"], len(rows))
    mixed = [{**row, "split": str(name)} for row, name in zip(rows, names, strict=True)]
    others, metadata = table.by_others(pa.Table.from_pylist(mixed))
    with pytest.raises(SampleTableError, match="mixed in time"):
        table.fetch(others, metadata=metadata)
    loud = [{**row, "split": f" {row['split'].upper()}"} for row in rows]
    others, metadata = table.by_others(pa.Table.from_pylist(loud))
    assert table.fetch(others, metadata=metadata).splits == table.store.splits


@pytest.mark.parametrize("indices", ["0,0,2,3,4,5,6,7", "0,1,2,3,4,5,6,8", "0,1,2,3,4,5,6,nan"])
def test_nodes_that_are_not_there_or_twice_are_refused(table: Samples, indices: str) -> None:
    table.publish(encoding="text")
    rows = [{**row, "node_indices": indices} for row in table.rows().to_pylist()]
    others, metadata = table.by_others(pa.Table.from_pylist(rows))
    with pytest.raises(SampleTableError, match="node_indices"):
        table.fetch(others, metadata=metadata)


def test_contradictions_are_counted_and_above_a_share_an_error(
    table: Samples, capfd: pytest.CaptureFixture[str]
) -> None:
    table.publish(encoding="text")
    rows = table.rows().to_pylist()
    for row in rows[::2]:
        row["x"] = codec.encode(codec.decode(row["x"], "x", 10_000) + 1, "text")
    others, metadata = table.by_others(pa.Table.from_pylist(rows))
    with pytest.raises(SampleTableError, match="contradict each other"):
        table.fetch(others, metadata=metadata)
    found = table.fetch(others, metadata=metadata, max_conflict_share=1)
    assert "contradict" in capfd.readouterr().err
    # Labels were left alone, and they win.
    first, stop = table.store.splits.first + 6, table.store.splits.stop
    np.testing.assert_array_equal(found.read(first, stop), table.store.read(first, stop))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"input_len": 5}, "numbers"),
        ({"step_minutes": 60}, "between two steps"),
        ({"start": "2025-09-25", "length": 96}, "out of the period"),
    ],
)
def test_metadata_of_another_table_is_noticed(
    table: Samples, change: dict[str, Any], said: str
) -> None:
    table.publish()
    metadata = read_metadata(table.file).model_copy(update={"splits": None, **change})
    with pytest.raises(SampleTableError, match=said):
        table.fetch(metadata=metadata)


@pytest.mark.parametrize("missing", ["input_len", "step_minutes", "nodes"])
def test_metadata_without_what_is_needed_is_an_error(
    table: Samples, missing: str, tmp_path: Path
) -> None:
    table.publish()
    content = json.loads(table.file.read_text())
    del content[missing]
    (tmp_path / "m.json").write_text(json.dumps(content))
    with pytest.raises(SampleTableError, match=missing):
        read_metadata(tmp_path / "m.json")


def test_a_table_that_is_no_sample_table_is_named(table: Samples) -> None:
    table.publish()
    other = table.service.name("other")
    table.service.load(other, pa.table({"a": ["1"]}), "a string")
    with pytest.raises(SampleTableError, match="it lacks sample_id"):
        table.fetch(other)


def test_a_missing_table_names_the_command_that_makes_it(table: Samples) -> None:
    table.publish()
    with pytest.raises(TableNotFoundError, match="flowpatch preprocess"):
        table.fetch(table.service.name("absent"))


# If it exists


def test_fail_leaves_the_table_alone(table: Samples) -> None:
    table.publish(sample_stride=12)
    before = sorted(table.service.rows(table.table))
    with pytest.raises(TableExistsError, match="--if-exists"):
        table.publish()
    assert sorted(table.service.rows(table.table)) == before


@pytest.mark.parametrize("partitioned", [False, True])
def test_replace_takes_the_place_of_all_rows(table: Samples, partitioned: bool) -> None:
    table.publish(partitioned=partitioned)
    metadata = table.publish(if_exists="replace", sample_stride=6, partitioned=partitioned)
    assert len(table.service.rows(table.table, ["timestamp"])) == metadata.rows
    assert table.fetch().manifest.content_hash == table.store.manifest.content_hash


@pytest.mark.parametrize("partitioned", [False, True])
def test_append_adds_rows(table: Samples, partitioned: bool) -> None:
    first = table.publish(sample_stride=12, partitioned=partitioned)
    table.publish(if_exists="append", sample_stride=6, partitioned=partitioned)
    count = len(table.service.rows(table.table, ["timestamp"]))
    assert count > first.rows
    same_series(table.fetch(), table.store)


def test_a_table_of_other_columns_is_not_written_into(table: Samples) -> None:
    table.service.load(table.table, pa.table({"a": ["1"]}), "a string")
    for way in ("append", "replace"):
        with pytest.raises(SampleTableError, match="not those of a sample"):
            table.publish(if_exists=way)
    assert table.service.rows(table.table) == [("1",)]


def test_appending_needs_the_metadata_of_what_is_there(table: Samples) -> None:
    table.publish(sample_stride=12)
    before = sorted(table.service.rows(table.table))
    table.file.unlink()
    with pytest.raises(SampleTableError, match="--metadata-file"):
        table.publish(if_exists="append")
    assert sorted(table.service.rows(table.table)) == before


def test_a_stride_that_leaves_steps_out_is_refused(table: Samples) -> None:
    with pytest.raises(SettingsError, match=r"1\.\.12"):
        table.publish(sample_stride=13)


# Failures on the way


@pytest.mark.parametrize("if_exists", ["fail", "replace", "append"])
def test_a_write_that_fails_leaves_the_old_table_and_goes_on_later(
    table: Samples, if_exists: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publication, "BLOCK_BYTES", 20_000)
    before = []
    if if_exists != "fail":
        table.publish(sample_stride=12)
        before = sorted(table.service.rows(table.table))
    table.service.faults(
        {"kinds": ["throttled"], "match": r"PUT .*blockid=3", "rate": 1.0},
    )
    monkeypatch.setattr(Service, "connection", lambda self, patience_s=1.0: _connection(self))
    with pytest.raises(OutOfPatienceError, match=r"[Rr]un the command again"):
        table.publish(if_exists=if_exists)
    table.service.no_faults()
    exists = table.service.client.exist_table(table.table.table)
    assert exists == bool(before)
    if exists:
        assert sorted(table.service.rows(table.table)) == before
    table.service.forget_requests()
    metadata = table.publish(if_exists=if_exists)
    written_again = {e["query"] for e in table.service.requests("PUT") if "blockid" in e["query"]}
    assert not any("blockid=0" in query for query in written_again)
    rows = len(table.service.rows(table.table, ["timestamp"]))
    expected = len(samples.choose_samples(table.store.splits, 6, 6, 1))
    assert rows == expected + (len(before) if if_exists == "append" else 0)
    assert metadata.input_len == 6
    assert not list(table.folder.glob(".*unfinished"))


def crash(*_: Any) -> None:
    raise KeyboardInterrupt


def _connection(service: Service) -> Any:
    from flowpatch.maxcompute.connection import Connection

    return Connection(service.endpoint, "demo", patience_s=1.0)


@pytest.mark.parametrize("partitioned", [False, True])
@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("if_exists", ["fail", "replace", "append"])
@pytest.mark.parametrize("noted", [True, False])
def test_a_crash_before_the_metadata_is_written_is_gone_on_from(
    table: Samples,
    monkeypatch: pytest.MonkeyPatch,
    if_exists: str,
    there: bool,
    partitioned: bool,
    noted: bool,
) -> None:
    changes = {"if_exists": if_exists, "partitioned": partitioned}
    before = 0
    if there and if_exists != "fail":
        before = table.publish(sample_stride=12, partitioned=partitioned).rows or 0
    with monkeypatch.context() as patched:
        place, name = (publish, "write_metadata") if noted else (unfinished.Unfinished, "place")
        patched.setattr(place, name, crash)
        with pytest.raises(KeyboardInterrupt):
            table.publish(**changes)
    metadata = table.publish(**changes)
    expected = len(samples.choose_samples(table.store.splits, 6, 6, 1))
    expected += before if if_exists == "append" else 0
    assert len(table.service.rows(table.table, ["timestamp"])) == expected
    assert metadata.input_len == 6
    same_series(table.fetch(), table.store)
    assert not list(table.folder.glob(".*unfinished"))


def test_a_stopped_publication_goes_on(table: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publication, "BLOCK_BYTES", 20_000)

    calls = []

    def stop_soon(self: Interruption) -> None:
        calls.append(self)
        if len(calls) == 3:
            raise StopAskedError

    with monkeypatch.context() as patched:
        patched.setattr(Interruption, "raise_if_asked", stop_soon)
        with pytest.raises(StoppedByUser, match="is as it was"):
            table.publish()
    assert not table.service.client.exist_table(table.table.table)
    table.publish()
    assert table.fetch().manifest.content_hash == table.store.manifest.content_hash


def test_a_fetch_that_was_stopped_reads_no_row_twice(table: Samples) -> None:
    table.publish()
    table.service.faults({"kinds": ["throttled"], "match": r"rowrange=(%28|\()6\d", "rate": 1.0})
    with pytest.raises(OutOfPatienceError):
        table.fetch(patience_s=1.0)
    table.service.no_faults()
    before = {e["query"].split("rowrange")[1] for e in _reads(table) if e["status"] == 200}
    table.service.forget_requests()
    found = table.fetch()
    after = {e["query"].split("rowrange")[1] for e in _reads(table)}
    assert before
    assert not before & after
    assert found.manifest.content_hash == table.store.manifest.content_hash


def test_a_fetch_that_was_stopped_never_goes_on_with_another_table(
    table: Samples, tmp_path: Path
) -> None:
    table.publish()
    table.service.faults({"kinds": ["throttled"], "match": r"rowrange=(%28|\()6\d", "rate": 1.0})
    place = tmp_path / "mine.store"
    arguments = (FetchSettings(),)
    with pytest.raises(OutOfPatienceError):
        fetch.fetch(
            table.service.connection(1.0),
            table.table,
            read_metadata(table.file),
            *arguments,
            workers=0,
            store=place,
        )
    table.service.no_faults()
    folder = tmp_path / "other"
    other = preprocess(settings(*City(seed=4).write(folder), folder / "city.store"))
    table.publish(store=other, if_exists="replace")
    found = fetch.fetch(
        table.service.connection(),
        table.table,
        read_metadata(table.file),
        *arguments,
        workers=0,
        store=place,
    )
    assert found.manifest.content_hash == other.manifest.content_hash


def _reads(table: Samples) -> list[dict[str, Any]]:
    return [e for e in table.service.requests("rowrange") if "node_indices" in e["query"]]
