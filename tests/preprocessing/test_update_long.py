"""Updates against builds: whatever happened to the source, both give the same store."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowpatch.preprocessing import stretches
from flowpatch.preprocessing.build import preprocess
from flowpatch.preprocessing.settings import PreprocessSettings, UpdateSettings
from flowpatch.preprocessing.update import update
from flowpatch.sources.files import FilesSource
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
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
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
        store = update(folder / "s", how)
    # An update never shortens the period, where a build's ends with the last record.
    start, last = (
        day.astype("datetime64[D]").item()
        for day in (store.axis.start, store.axis.stop - np.timedelta64(1, "m"))
    )
    same(store, rebuilt(city, folder / "t", start_date=start, end_date=last, **settings))
