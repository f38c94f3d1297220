"""Updates against builds: whatever happened to the source, both give the same store."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowpatch.errors import (
    FlowpatchError,
    NodeTableError,
    PeriodError,
    SettingsError,
    SourceError,
    StoreDraftError,
)
from flowpatch.preprocessing import stretches
from flowpatch.preprocessing.build import preprocess
from flowpatch.preprocessing.settings import PreprocessSettings, UpdateSettings
from flowpatch.preprocessing.update import update
from flowpatch.sources.files import FilesSource
from flowpatch.sources.listing import Listing
from flowpatch.store.sample_store import SampleStore, open_store

FIRST = np.datetime64("2025-03-03")
STEPS = 24


@dataclass
class City:
    """A folder of records, a file a day unless a test says otherwise, and a node table."""

    folder: Path
    seed: int = 0
    nodes: list[int] = field(default_factory=lambda: [10, 20, 30, 40])

    def __post_init__(self) -> None:
        (self.folder / "records").mkdir(parents=True, exist_ok=True)
        self.write_nodes(self.nodes)

    def write_nodes(
        self, keys: list[Any], moved: float = 0.0, without: tuple[Any, ...] = ()
    ) -> None:
        rows = [
            f"{key},,," if key in without else f"{key},{56 + i / 100 + moved},{10 + i / 50}"
            for i, key in enumerate(keys)
        ]
        (self.folder / "nodes.csv").write_text("\n".join(["id,lat,lng", *rows]) + "\n")

    def records(self, day: int, keys: list[int], seed: int, share: float = 0.9) -> pa.Table:
        rng = np.random.default_rng([self.seed, day, seed])
        step, node = np.nonzero(rng.random((STEPS, len(keys))) < share)
        # Stretches that stand still, across midnight too, so that stuck values are found and lost.
        value = np.where(rng.random(len(step)) < 0.7, 5, rng.integers(-2, 30, len(step)))
        instant = (FIRST + day).astype("datetime64[ms]") + step * np.timedelta64(60, "m")
        return pa.table(
            {
                "id": pa.array(np.array(keys, dtype=np.int64)[node]),
                "t": pa.array(instant, pa.timestamp("ms")),
                "v": pa.array(value.astype(np.float32)),
            }
        )

    def write_day(self, day: int, keys: list[int] | None = None, seed: int = 0, **how: Any) -> None:
        name = how.pop("name", f"{day:03}.parquet")
        pq.write_table(
            self.records(day, self.nodes if keys is None else keys, seed, **how),
            self.folder / "records" / name,
        )

    def settings(self, store: Path, **changes: Any) -> PreprocessSettings:
        given = {
            "records": str(self.folder / "records"),
            "nodes": str(self.folder / "nodes.csv"),
            "node_columns": "id",
            "time_column": "t",
            "value_column": "v",
            "step_minutes": 60,
            "input_len": 3,
            "output_len": 2,
            "max_dropped_share": 1.0,
            "store": store,
        }
        return PreprocessSettings(**{**given, **changes})


def same(updated: SampleStore, built: SampleStore) -> None:
    """Every part of the content, and everything that is said about it."""
    one, other = updated.manifest, built.manifest
    np.testing.assert_array_equal(updated.read(), built.read())
    assert one.content_hash == other.content_hash
    assert (one.axis, one.splits, one.statistics) == (other.axis, other.splits, other.statistics)
    assert asdict(one.quality) == asdict(other.quality)
    assert one.counts == other.counts
    assert updated.nodes.fingerprint() == built.nodes.fingerprint()
    assert one.nodes_without_coordinates == other.nodes_without_coordinates
    for name, array in updated.ledger.to_arrays().items():
        np.testing.assert_array_equal(array, built.ledger.to_arrays()[name], err_msg=name)
    time = updated._group["time"][:]
    np.testing.assert_array_equal(time, built._group["time"][:])


@pytest.fixture(params=["one day a chunk", "many days a chunk"])
def chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "one day a chunk":
        monkeypatch.setattr("flowpatch.store.arrays.BLOCK_BYTES", 1)
        monkeypatch.setattr(stretches, "GATHER_BYTES", 1)


@pytest.fixture
def city(tmp_path: Path) -> City:
    made = City(tmp_path / "city")
    for day in range(4):
        made.write_day(day)
    return made


def rebuilt(city: City, store: Path, **changes: Any) -> SampleStore:
    return preprocess(city.settings(store, **changes))


def test_a_new_day_is_all_that_is_read(
    chunks: None, city: City, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = preprocess(city.settings(tmp_path / "s"))
    city.write_day(4)
    read: list[Any] = []
    only = FilesSource.only
    monkeypatch.setattr(
        FilesSource, "only", lambda self, names: read.append(sorted(names)) or only(self, names)
    )
    second = update(tmp_path / "s")
    assert read == [[str(city.folder / "records" / "004.parquet")]]
    assert second.manifest.parent == first.version
    assert second.axis.days == 5
    same(second, rebuilt(city, tmp_path / "t"))
    # The version before is as it was.
    np.testing.assert_array_equal(open_store(tmp_path / "s", first.version).read(), first.read())


def test_a_second_update_does_nothing_and_says_so(
    city: City, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preprocess(city.settings(tmp_path / "s"))
    city.write_day(4)
    second = update(tmp_path / "s")
    capsys.readouterr()
    third = update(tmp_path / "s")
    assert "is up to date: nothing is new since version" in capsys.readouterr().err
    assert third.version == second.version
    assert len(third.versions()) == 2


@dataclass(frozen=True)
class Change:
    """Something that happens to a source before an update."""

    kind: str
    day: int
    seed: int
    keys: tuple[int, ...]

    def happen(self, city: City) -> None:
        keys = list(self.keys)
        match self.kind:
            case "new":
                city.write_day(self.day, keys, self.seed)
            case "late":
                city.write_day(
                    self.day, keys, self.seed, name=f"late-{self.day}-{self.seed}.parquet"
                )
            case "two days":
                tables = [city.records(day, keys, self.seed) for day in (self.day, self.day + 1)]
                path = city.folder / "records" / f"two-{self.day}-{self.seed}.parquet"
                pq.write_table(pa.concat_tables(tables), path)
            case "empty":
                city.write_day(self.day, keys, self.seed, share=0.0)


changes = st.builds(
    Change,
    st.sampled_from(["new", "new", "late", "two days", "empty"]),
    st.integers(0, 8),
    st.integers(0, 3),
    st.lists(st.sampled_from([10, 20, 30, 40, 99]), min_size=1, max_size=5, unique=True).map(
        lambda keys: tuple(sorted(keys))
    ),
)


@settings(
    max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    seed=st.integers(0, 99),
    rounds=st.lists(st.lists(changes, max_size=3), min_size=1, max_size=3),
    revise=st.integers(0, 3),
    keep_days=st.none() | st.integers(3, 6),
    aggregate=st.sampled_from(["mean", "sum", "max", "last"]),
    extend=st.booleans(),
)
def test_any_updates_give_what_a_build_gives(
    chunks: None,
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    rounds: list[list[Change]],
    revise: int,
    keep_days: int | None,
    aggregate: str,
    extend: bool,
) -> None:
    folder = tmp_path_factory.mktemp("u")
    city = City(folder / "city", seed)
    for day in range(2, 6):
        city.write_day(day)
    settings = {"aggregate": aggregate, "null_value": 0}
    store = preprocess(city.settings(folder / "s", **settings))
    for number, happening in enumerate(rounds):
        for change in happening:
            change.happen(city)
        if extend and number == len(rounds) - 1:
            city.write_nodes([5, *city.nodes, 99])
        how = UpdateSettings(
            revise=revise, keep_days=keep_days, nodes="extend" if extend else "keep"
        )
        try:
            store = update(folder / "s", how)
        except PeriodError:
            # Nothing but records without a node is left in the last days.
            assert open_store(folder / "s").version == store.version
            assert keep_days is not None
            return
    # An update never shortens the period, where a build's ends with the last record.
    start, last = (
        day.astype("datetime64[D]").item()
        for day in (store.axis.start, store.axis.stop - np.timedelta64(1, "m"))
    )
    same(store, rebuilt(city, folder / "t", start_date=start, end_date=last, **settings))


# --- the period -----------------------------------------------------------------------------------


def test_until_is_the_last_day_and_the_next_update_goes_on(city: City, tmp_path: Path) -> None:
    preprocess(city.settings(tmp_path / "s"))
    for day in range(4, 8):
        city.write_day(day)
    store = update(tmp_path / "s", UpdateSettings(until="20250308"))
    assert store.axis.days == 6
    same(store, rebuilt(city, tmp_path / "t", end_date="20250308"))
    store = update(tmp_path / "s")
    assert store.axis.days == 8
    same(store, rebuilt(city, tmp_path / "u"))


def test_an_end_date_of_the_first_build_does_not_end_updates(city: City, tmp_path: Path) -> None:
    store = preprocess(city.settings(tmp_path / "s", end_date="20250304"))
    assert store.axis.days == 2
    assert update(tmp_path / "s").axis.days == 4


def test_an_update_takes_no_day_away(city: City, tmp_path: Path) -> None:
    preprocess(city.settings(tmp_path / "s"))
    with pytest.raises(SettingsError, match=r"--until 2025-03-04 lies before 2025-03-06"):
        update(tmp_path / "s", UpdateSettings(until="20250304"))


def test_older_days_than_the_first_are_taken_too(chunks: None, tmp_path: Path) -> None:
    city = City(tmp_path / "city")
    for day in range(3, 6):
        city.write_day(day)
    preprocess(city.settings(tmp_path / "s"))
    city.write_day(0)
    city.write_day(6)
    store = update(tmp_path / "s")
    assert store.axis.start.astype("datetime64[D]") == FIRST
    same(store, rebuilt(city, tmp_path / "t"))


def test_the_oldest_days_are_dropped(chunks: None, city: City, tmp_path: Path) -> None:
    preprocess(city.settings(tmp_path / "s"))
    for day in range(4, 7):
        city.write_day(day)
        store = update(tmp_path / "s", UpdateSettings(keep_days=4))
        assert store.axis.days == 4
        first = (FIRST + day - 3).item()
        assert store.manifest.recipe["start_date"] == str(first)
        same(store, rebuilt(city, tmp_path / f"t{day}", start_date=first))
    # What was dropped does not come back because its files are still there.
    assert update(tmp_path / "s").version == store.version


def test_days_can_be_dropped_alone(chunks: None, city: City, tmp_path: Path) -> None:
    preprocess(city.settings(tmp_path / "s"))
    store = update(tmp_path / "s", UpdateSettings(keep_days=3))
    assert store.axis.days == 3
    same(store, rebuilt(city, tmp_path / "t", start_date=(FIRST + 1).item()))


def test_all_days_that_there_were_may_be_dropped(chunks: None, city: City, tmp_path: Path) -> None:
    preprocess(city.settings(tmp_path / "s"))
    for day in range(8, 10):
        city.write_day(day)
    store = update(tmp_path / "s", UpdateSettings(keep_days=3))
    assert store.axis.start.astype("datetime64[D]") == FIRST + 7
    same(store, rebuilt(city, tmp_path / "t", start_date=(FIRST + 7).item()))


# --- records that come late, are corrected, or are gone -------------------------------------------


def test_a_corrected_day_is_read_again_and_its_neighbours_are_not(
    chunks: None, city: City, tmp_path: Path
) -> None:
    before = preprocess(city.settings(tmp_path / "s"))
    city.write_day(1, seed=5)
    store = update(tmp_path / "s")
    changed = [
        day
        for day, (old, new) in enumerate(
            zip(before.manifest.day_hashes, store.manifest.day_hashes, strict=True)
        )
        if old != new
    ]
    assert changed == [1]
    same(store, rebuilt(city, tmp_path / "t"))


def test_a_file_that_was_only_touched_makes_no_version(
    city: City, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = preprocess(city.settings(tmp_path / "s"))
    (city.folder / "records" / "001.parquet").touch()
    assert update(tmp_path / "s").version == before.version
    assert "what was read again is as it was" in capsys.readouterr().err
    assert len(before.versions()) == 1


def test_revise_reads_the_last_days_whatever_the_files_say(
    city: City, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither size nor time of change tells that a file is another one."""
    monkeypatch.setattr(
        Listing,
        "identity",
        lambda files: [{"file": str(one), "bytes": 1, "changed_ns": 1} for one in files.paths],
    )
    before = preprocess(city.settings(tmp_path / "s"))
    city.write_day(3, seed=5)
    assert update(tmp_path / "s").version == before.version
    store = update(tmp_path / "s", UpdateSettings(revise=1))
    assert store.version != before.version
    same(store, rebuilt(city, tmp_path / "t"))
    assert update(tmp_path / "s", UpdateSettings(revise=2)).version == store.version


def test_days_of_files_that_are_gone_stay_as_they_were(
    chunks: None, city: City, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A source that keeps 30 days must not empty a store that keeps a year."""
    built = preprocess(city.settings(tmp_path / "s"))
    whole = built.read()
    for name in ("000.parquet", "001.parquet"):
        (city.folder / "records" / name).unlink()
    assert update(tmp_path / "s").version == built.version
    assert "2 parts of the source are gone: their days stay" in capsys.readouterr().err
    city.write_day(4)
    store = update(tmp_path / "s", UpdateSettings(revise=5))
    np.testing.assert_array_equal(store.read(0, 4 * STEPS), whole)
    assert (
        store.manifest.counts.used
        == built.manifest.counts.used + np.isfinite(store.read(4 * STEPS)).sum()
    )


def test_one_file_in_place_of_many_is_read_once(city: City, tmp_path: Path) -> None:
    preprocess(city.settings(tmp_path / "s"))
    tables = []
    for path in sorted((city.folder / "records").iterdir()):
        tables.append(pq.read_table(path))
        path.unlink()
    pq.write_table(pa.concat_tables(tables), city.folder / "records" / "march.parquet")
    city.write_day(4)
    store = update(tmp_path / "s")
    assert len(store.manifest.source["parts"]) == 2
    same(store, rebuilt(city, tmp_path / "t"))


def test_no_record_at_all_is_an_error(city: City, tmp_path: Path) -> None:
    before = preprocess(city.settings(tmp_path / "s"))
    for path in (city.folder / "records").iterdir():
        path.unlink()
    with pytest.raises(FlowpatchError, match="holds no file"):
        update(tmp_path / "s")
    assert open_store(tmp_path / "s").version == before.version


# --- nodes ----------------------------------------------------------------------------------------


def test_new_nodes_are_left_out_and_told_of(
    city: City, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preprocess(city.settings(tmp_path / "s"))
    city.write_nodes([10, 20, 25, 30, 40])
    city.write_day(4, keys=[10, 20, 25, 30, 40])
    store = update(tmp_path / "s")
    assert "1 nodes are new: left out (--nodes extend takes them)" in capsys.readouterr().err
    assert store.nodes.keys[0].tolist() == [10, 20, 30, 40]
    assert store.manifest.counts.unknown_node > 0


def test_a_new_node_is_nan_before_its_first_record(
    chunks: None, city: City, tmp_path: Path
) -> None:
    preprocess(city.settings(tmp_path / "s"))
    city.nodes = [10, 20, 25, 30, 40]
    city.write_nodes(city.nodes)
    city.write_day(4)
    store = update(tmp_path / "s", UpdateSettings(nodes="extend"))
    assert np.isnan(store.read(0, 4 * STEPS)[:, 2]).all()
    assert np.isfinite(store.read(4 * STEPS)[:, 2]).any()
    same(store, rebuilt(city, tmp_path / "t"))


def test_records_that_had_no_node_are_found_when_it_comes(
    chunks: None, city: City, tmp_path: Path
) -> None:
    city.write_day(1, keys=[10, 25])
    preprocess(city.settings(tmp_path / "s"))
    city.write_nodes([10, 20, 25, 30, 40])
    store = update(tmp_path / "s", UpdateSettings(nodes="extend"))
    assert np.isfinite(store.read(STEPS, 2 * STEPS)[:, 2]).any()
    same(store, rebuilt(city, tmp_path / "t"))


def test_nodes_that_are_gone_and_places_that_moved(
    city: City, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built = preprocess(city.settings(tmp_path / "s"))
    city.write_nodes([10, 20, 30], moved=0.5)
    assert update(tmp_path / "s").version == built.version
    told = capsys.readouterr().err
    assert "1 nodes are no longer in the node table: kept" in told
    assert "3 nodes have other coordinates: kept" in told
    store = update(tmp_path / "s", UpdateSettings(nodes="extend"))
    assert store.nodes.keys[0].tolist() == [10, 20, 30, 40]
    np.testing.assert_allclose(store.nodes.latitude[:3], built.nodes.latitude[:3] + 0.5)
    np.testing.assert_array_equal(store.read(), built.read())


def test_keys_of_another_kind_are_refused(city: City, tmp_path: Path) -> None:
    preprocess(city.settings(tmp_path / "s"))
    city.write_nodes([10, 20, 30, "north"])
    with pytest.raises(NodeTableError, match="of another kind"):
        update(tmp_path / "s")


# --- splits ---------------------------------------------------------------------------------------


def test_fixed_borders_stay_and_new_days_are_in_the_test(city: City, tmp_path: Path) -> None:
    first = preprocess(city.settings(tmp_path / "s", split_policy="fixed"))
    for day in (4, 5):
        city.write_day(day)
    store = update(tmp_path / "s", UpdateSettings(keep_days=5))
    for border in ("val_start", "test_start"):
        before, after = (one.axis.instant_of(getattr(one.splits, border)) for one in (first, store))
        assert before == after
    assert store.splits.stop > first.splits.stop - STEPS


def test_borders_on_days_are_the_same_for_a_build(city: City, tmp_path: Path) -> None:
    borders = {"val_start": "20250305", "test_start": "20250306"}
    preprocess(city.settings(tmp_path / "s", **borders))
    city.write_day(4)
    store = update(tmp_path / "s")
    assert store.splits.val_start == 2 * STEPS
    same(store, rebuilt(city, tmp_path / "t", **borders))


def test_borders_that_the_period_has_left_behind_are_an_error(city: City, tmp_path: Path) -> None:
    before = preprocess(city.settings(tmp_path / "s", val_start="20250304", test_start="20250305"))
    for day in range(4, 8):
        city.write_day(day)
    with pytest.raises(PeriodError, match="leave no training or no test"):
        update(tmp_path / "s", UpdateSettings(keep_days=3))
    assert open_store(tmp_path / "s").version == before.version


# --- stopped and resumed --------------------------------------------------------------------------


def test_a_stopped_update_goes_on(
    city: City, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowpatch.store.arrays.BLOCK_BYTES", 1)
    monkeypatch.setattr(stretches, "GATHER_BYTES", 1)
    before = preprocess(city.settings(tmp_path / "s"))
    for day in (1, 4, 5, 6):
        city.write_day(day, seed=3)
    gathered: list[int] = []
    gather = stretches.gather_stretch

    def fail_at_the_fourth(*arguments: Any) -> Any:
        gathered.append(arguments[3] // STEPS)
        if len(gathered) == 4:
            raise SourceError("the disk of the records is gone")
        return gather(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(stretches, "gather_stretch", fail_at_the_fourth)
        with pytest.raises(SourceError):
            update(tmp_path / "s")
    assert open_store(tmp_path / "s").version == before.version
    gathered.clear()
    monkeypatch.setattr(
        stretches, "gather_stretch", lambda *a: gathered.append(a[3] // STEPS) or gather(*a)
    )
    store = update(tmp_path / "s", UpdateSettings(resume=True))
    assert len(gathered) < 4, "days that were safe are not gathered again"
    assert gathered[-1] == 6
    same(store, rebuilt(city, tmp_path / "t"))


def test_a_stopped_update_can_begin_anew(
    city: City, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowpatch.store.arrays.BLOCK_BYTES", 1)
    monkeypatch.setattr(stretches, "GATHER_BYTES", 1)
    preprocess(city.settings(tmp_path / "s"))
    for day in (4, 5):
        city.write_day(day)
    gather = stretches.gather_stretch

    def fail_at_the_last(*arguments: Any) -> Any:
        if arguments[3] == 5 * STEPS:
            raise SourceError("gone")
        return gather(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(stretches, "gather_stretch", fail_at_the_last)
        with pytest.raises(SourceError):
            update(tmp_path / "s")
    city.write_day(6)
    with pytest.raises(StoreDraftError, match=r"another origin: source, axis differ"):
        update(tmp_path / "s", UpdateSettings(resume=True))
    same(update(tmp_path / "s"), rebuilt(city, tmp_path / "t"))


def test_a_fetched_store_is_not_updated_from_records(city: City, tmp_path: Path) -> None:
    store = preprocess(city.settings(tmp_path / "s"))
    recipe = {"table": "odps://p/t", "metadata": {}}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "flowpatch.preprocessing.update.open_store",
            lambda place: SimpleNamespace(
                manifest=SimpleNamespace(recipe=recipe), place=store.place
            ),
        )
        with pytest.raises(SettingsError, match="flowpatch samples fetch"):
            update(tmp_path / "s")


# --- real data ------------------------------------------------------------------------------------


def test_aarhus_day_by_day_is_aarhus_at_once(shared: Path, tmp_path: Path) -> None:
    """Real gaps, doubled keys and days that begin and end in the night."""
    table = pq.read_table(shared / "data" / "aarhus" / "records.parquet")
    days = pc.cast(pc.floor_temporal(table["passts_time"], unit="day"), pa.date32())
    records = tmp_path / "records"
    records.mkdir()
    wanted = sorted(set(days.to_pylist()))[:20]

    def write(day: Any) -> None:
        pq.write_table(table.filter(pc.equal(days, day)), records / f"{day}.parquet")

    how = {
        "records": str(records),
        "nodes": str(shared / "data" / "aarhus" / "nodes.csv"),
        "node_columns": "sensor_id",
    }
    for day in wanted[:14]:
        write(day)
    preprocess(PreprocessSettings(**how, store=tmp_path / "s"))
    for day in wanted[14:]:
        write(day)
        store = update(tmp_path / "s")
        assert store.axis.stop.astype("datetime64[D]") == np.datetime64(day) + 1
    same(store, preprocess(PreprocessSettings(**how, store=tmp_path / "t")))
