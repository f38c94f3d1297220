import os
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowpatch.errors import OutputError, SettingsError
from flowpatch.sources import simulated
from flowpatch.sources.simulated import SimulateSettings, simulate
from flowpatch.sources.simulated_flow import generator, instants_in_step, observed_cells
from flowpatch.sources.simulated_network import build_network, nearest, scatter_intersections

COLUMNS = ["nds_id", "next_nds_id", "passts_time", "flow_label"]


def make(out: Path, **changes: Any) -> simulated.SimulatedCity:
    small: dict[str, Any] = {"nodes": 40, "days": 2, "step_minutes": 60}
    return simulate(SimulateSettings(out=out, **{**small, **changes}))


def read_records(city: simulated.SimulatedCity) -> pa.Table:
    paths = sorted(city.records_path.glob("*/*.parquet"))
    return pa.concat_tables([pq.ParquetFile(path).read() for path in paths])


def all_bytes(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def only_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# What is written


def test_paths_schema_and_figures(tmp_path: Path) -> None:
    city = make(tmp_path / "deep" / "city", days=2, start_date="20250228")
    assert only_in(tmp_path / "deep") == ["city"]
    assert only_in(tmp_path / "deep" / "city") == ["nodes.csv", "records"]
    assert sorted(all_bytes(city.records_path)) == [
        "ds=20250228/part-0.parquet",
        "ds=20250301/part-0.parquet",
    ]
    table = read_records(city)
    assert table.schema.names == COLUMNS
    assert table.schema.types == [pa.int64(), pa.int64(), pa.timestamp("ms"), pa.int32()]
    assert city.nodes == 40
    assert city.records == len(table)
    assert city.bytes == sum(len(content) for content in all_bytes(tmp_path).values())
    assert min(table["flow_label"].to_pylist()) >= 0
    nodes = pa_csv.read_csv(city.nodes_path)
    assert nodes.schema.names == ["nds_id", "next_nds_id", "inter_id", "lat", "lng"]


@settings(max_examples=40, deadline=None)
@given(nodes=st.integers(2, 700), seed=st.integers(0, 2**40))
def test_a_network_has_exactly_the_nodes_asked_for_under_unique_keys(nodes: int, seed: int) -> None:
    network = build_network(nodes, generator(seed, "network"))
    keys = set(zip(network.nds_id.tolist(), network.next_nds_id.tolist(), strict=True))
    assert network.nodes == len(keys) == nodes
    assert sorted(keys) == list(zip(network.nds_id, network.next_nds_id, strict=True))
    assert max(network.in_link.max(), network.out_link.max()) < network.links


def test_nodes_share_intersections_and_intersections_have_one_place(tmp_path: Path) -> None:
    city = make(tmp_path / "city", nodes=500, days=1)
    nodes = pa_csv.read_csv(city.nodes_path)
    places = set(
        zip(*(nodes[name].to_pylist() for name in ("inter_id", "lat", "lng")), strict=True)
    )
    intersections = set(nodes["inter_id"].to_pylist())
    assert len(nodes) == 500
    assert len(places) == len(intersections) < 250
    assert all(abs(lat - 48.76) < 0.1 and abs(lng - 11.42) < 0.1 for _, lat, lng in places)


def test_a_town_is_denser_in_its_centre_and_grows_with_the_root_of_its_nodes() -> None:
    small, large = (build_network(nodes, generator(1, "network")) for nodes in (1000, 16_000))
    radius_small, radius_large = (np.hypot(*network.position.T) for network in (small, large))
    inner_share = float((radius_large < radius_large.max() / 2).mean())
    assert inner_share > 0.3  # an even disc has 0.25
    assert 3 < radius_large.max() / radius_small.max() < 5


def test_strips_find_the_nearest_intersections() -> None:
    position = scatter_intersections(1500, np.random.default_rng(3))
    distance = np.square(position[:, None] - position).sum(axis=-1)
    np.fill_diagonal(distance, np.inf)
    expected = np.sort(np.argsort(distance, axis=1)[:, :3])
    agree = (np.sort(nearest(position, 3)) == expected).all(axis=1)
    assert agree.mean() > 0.99


def test_a_hundred_thousand_nodes_are_joined_without_a_square_matrix() -> None:
    network = build_network(100_000, generator(1, "network"))
    upstream = np.bincount(network.out_link, minlength=network.links)[network.in_link]
    assert network.nodes == 100_000
    assert (upstream > 0).mean() > 0.95


def test_csv_holds_what_parquet_holds(tmp_path: Path) -> None:
    parquet = make(tmp_path / "parquet", records=5000)
    text = make(tmp_path / "csv", records=5000, format="csv")
    path = text.records_path / "ds=20250303" / "part-0.csv"
    header, first = path.read_text().splitlines()[:2]
    assert header == "nds_id,next_nds_id,passts_time,flow_label"
    assert len(first.split(",")[2]) == len("2025-03-03 00:00:00")
    tables = [pa_csv.read_csv(file) for file in sorted(text.records_path.glob("*/*.csv"))]
    table = pa.concat_tables(tables).cast(read_records(parquet).schema)
    assert table.equals(read_records(parquet))
    assert text.nodes_path.read_bytes() == parquet.nodes_path.read_bytes()


def test_duckdb_reads_the_hive_folder(tmp_path: Path) -> None:
    city = make(tmp_path / "city")
    with duckdb.connect() as connection:
        days = connection.execute(
            "SELECT ds, count(*), min(passts_time)::DATE, max(passts_time)::DATE "
            "FROM read_parquet(?, hive_partitioning = true) GROUP BY ds ORDER BY ds",
            [f"{city.records_path}/**/*.parquet"],
        ).fetchall()
    assert [row[0] for row in days] == [20250303, 20250304]
    assert [row[2:] for row in days] == [(date(2025, 3, day),) * 2 for day in (3, 4)]
    assert sum(row[1] for row in days) == city.records


# The same settings, the same bytes


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        make(tmp_path / name, nodes=300, records=9000, seed=seed)
    a, b, c = (all_bytes(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert all(a[name] != c[name] for name in a)


def test_a_day_does_not_depend_on_how_many_follow(tmp_path: Path) -> None:
    short, long = make(tmp_path / "short", days=1), make(tmp_path / "long", days=3)
    day = "ds=20250303/part-0.parquet"
    assert all_bytes(short.records_path)[day] == all_bytes(long.records_path)[day]


def test_shuffling_changes_the_order_alone(tmp_path: Path) -> None:
    shuffled = read_records(make(tmp_path / "shuffled"))
    ordered = read_records(make(tmp_path / "ordered", shuffle=False))
    hours = ordered["passts_time"].to_numpy().astype("datetime64[h]")
    assert (np.diff(hours) >= np.timedelta64(0, "h")).all()
    assert not shuffled.equals(ordered)
    by = [(name, "ascending") for name in COLUMNS]
    assert shuffled.sort_by(by).equals(ordered.sort_by(by))


# How many records, and when


@pytest.mark.parametrize("records", [20_000, 91_200, 300_000])
def test_the_number_of_records_comes_near_its_target(tmp_path: Path, records: int) -> None:
    # 96,000 cells, of which 91,200 are observed.
    city = make(tmp_path / "city", nodes=2000, records=records)
    assert city.records == pytest.approx(records, rel=0.01)


@pytest.mark.parametrize("missing", [0.0, 0.05, 0.4])
def test_about_the_share_asked_for_is_missing(tmp_path: Path, missing: float) -> None:
    city = make(tmp_path / "city", nodes=2000, missing=missing)
    assert city.records / (2000 * 48) == pytest.approx(1 - missing, rel=0.01)


@pytest.mark.parametrize("step_minutes", [1, 60, 1440])
def test_missing_cells_are_single_ones_and_outages(step_minutes: int) -> None:
    steps = 1440 // step_minutes
    observed = observed_cells(steps, 3000, 0.1, step_minutes, generator(1, "missing"))
    assert 1 - observed.mean() == pytest.approx(0.1, rel=0.05)
    if steps > 1:
        # Were all missing cells independent, one in ten would follow upon another.
        after_missing = ~observed[1:][~observed[:-1]]
        assert after_missing.mean() > 0.25


def test_instants_lie_in_the_period_and_differ_within_a_cell(tmp_path: Path) -> None:
    city = make(tmp_path / "city", records=40 * 48 * 5)
    table = read_records(city)
    instant = table["passts_time"].to_numpy()
    assert instant.min() >= np.datetime64("2025-03-03T00:00:00")
    assert instant.max() < np.datetime64("2025-03-05T00:00:00")
    keys = list(zip(*(table[name].to_pylist() for name in COLUMNS[:3]), strict=True))
    assert len(set(keys)) == len(keys) == city.records
    cells = {(*key[:2], key[2].replace(minute=0, second=0)) for key in keys}
    assert len(cells) == pytest.approx(40 * 48 * 0.95, rel=0.03)


@given(
    counts=st.lists(st.integers(0, 60), min_size=1, max_size=30),
    step_minutes=st.sampled_from([1, 5]),
    seed=st.integers(0, 1000),
)
def test_instants_of_a_cell_are_distinct_up_to_one_a_second(
    counts: list[int], step_minutes: int, seed: int
) -> None:
    step_seconds = 60 * step_minutes
    instants = instants_in_step(np.array(counts), step_seconds, np.random.default_rng(seed))
    for cell in np.split(instants, np.cumsum(counts)[:-1]):
        assert len(set(cell.tolist())) == len(cell)
    assert ((instants >= 0) & (instants < step_seconds)).all()


def test_every_second_of_every_cell_can_be_asked_for(tmp_path: Path) -> None:
    city = make(tmp_path / "city", nodes=2, days=1, missing=0, step_minutes=1, records=2 * 86_400)
    assert city.records == 2 * 86_400
    table = read_records(city).group_by(COLUMNS[:3]).aggregate([])
    assert len(table) == 2 * 86_400


# What the flow is like


@dataclass(frozen=True)
class Town:
    """One week in steps of 15 minutes: flow (T, N), NaN where missing, and its nodes."""

    flow: NDArray[np.float64]
    nds_id: NDArray[np.int64]
    next_nds_id: NDArray[np.int64]
    position: NDArray[np.float64]

    @property
    def by_day(self) -> NDArray[np.float64]:
        """(7, 96, N)."""
        return self.flow.reshape(7, 96, -1)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    city = make(tmp_path_factory.mktemp("town") / "city", nodes=400, days=7, step_minutes=15)
    nodes = pa_csv.read_csv(city.nodes_path)
    nds_id, next_nds_id, lat, lng = (
        nodes[name].to_numpy() for name in ("nds_id", "next_nds_id", "lat", "lng")
    )
    index = {key: row for row, key in enumerate(zip(nds_id, next_nds_id, strict=True))}
    table = read_records(city)
    keys = zip(table["nds_id"].to_pylist(), table["next_nds_id"].to_pylist(), strict=True)
    since = table["passts_time"].to_numpy() - np.datetime64("2025-03-03")
    flow = np.full((7 * 96, 400), np.nan)
    flow[since // np.timedelta64(15, "m"), [index[key] for key in keys]] = table["flow_label"]
    return Town(flow, nds_id, next_nds_id, np.stack([lat, lng * np.cos(np.radians(48.76))], 1))


def correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    return float(np.corrcoef(a[both], b[both])[0, 1])


def test_the_next_day_is_like_this_one_at_the_same_time(town: Town) -> None:
    monday, tuesday = town.by_day[0], town.by_day[1]
    # Each node's own rhythm, not the difference between large and small nodes.
    monday, tuesday = (day / np.nanmean(day, axis=0) for day in (monday, tuesday))
    same_time = correlation(monday, tuesday)
    six_hours_later = correlation(monday, np.roll(tuesday, -24, axis=0))
    assert same_time > 0.6
    assert six_hours_later < same_time - 0.3


def test_mornings_rest_at_weekends(town: Town) -> None:
    morning = np.nanmean(town.by_day[:, 28:36], axis=(1, 2))
    assert morning[5:].mean() < 0.6 * morning[:5].mean()
    assert np.nanmean(town.by_day[5:]) < 0.9 * np.nanmean(town.by_day[:5])


def test_few_nodes_carry_much(town: Town) -> None:
    per_node = np.sort(np.nanmean(town.flow, axis=0))
    assert per_node[-40:].sum() > 0.2 * per_node.sum()
    assert per_node[-1] > 4 * np.median(per_node)


def test_neighbours_resemble_each_other_more_than_strangers(town: Town) -> None:
    profile = np.nanmean(town.by_day[:5], axis=0)
    alike = np.corrcoef((profile / profile.mean(axis=0) - 1).T)
    distance = np.linalg.norm(town.position[:, None] - town.position, axis=-1)
    apart = distance > 0
    near = alike[apart & (distance < np.quantile(distance[apart], 0.1))].mean()
    far = alike[distance > np.quantile(distance[apart], 0.6)].mean()
    assert near > far + 0.1


def test_disturbances_travel_downstream(town: Town) -> None:
    logarithm = np.log1p(town.by_day[:5])
    residual = (logarithm - np.nanmean(logarithm, axis=0)).reshape(5 * 96, -1)
    # What is left after the district's common mood is what moves from node to node.
    residual -= np.nanmean(residual, axis=1, keepdims=True)
    rng = np.random.default_rng(0)
    upstream, random, downstream = [], [], []
    for node, link in enumerate(town.nds_id):
        leading = np.flatnonzero(town.next_nds_id == link)
        if len(leading) == 0:
            continue
        stranger = rng.integers(0, len(town.nds_id), len(leading))
        now = residual[1:, node]
        upstream.append(correlation(residual[:-1, leading].mean(axis=1), now))
        random.append(correlation(residual[:-1, stranger].mean(axis=1), now))
        downstream.append(correlation(residual[1:, leading].mean(axis=1), residual[:-1, node]))
    assert len(upstream) > 300
    assert np.mean(upstream) > np.mean(random) + 0.1
    # It has a direction: a node tells less about what comes to it next than the other way round.
    assert np.mean(upstream) > np.mean(downstream) + 0.05


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": 1}, "Bad value '1' for nodes"),
        ({"days": 0}, "Bad value '0' for days"),
        ({"step_minutes": 7}, "A step of 7 minutes does not divide a day"),
        ({"step_minutes": 0}, "Bad value '0' for step_minutes"),
        ({"missing": 1.0}, "Bad value '1.0' for missing"),
        ({"missing": float("nan")}, "Bad value 'nan' for missing"),
        ({"records": 0}, "Bad value '0' for records"),
        ({"records": 40 * 2 * 86_400}, "hold at most 6566400, one in a second"),
        ({"seed": -1}, "Bad value '-1' for seed"),
        ({"format": "xml"}, "Unknown format 'xml'. Allowed: parquet, csv"),
        ({"start_date": "3.3.2025"}, "'3.3.2025' is no date. Write it as"),
        ({"start_date": "9999-12-31"}, "Choose fewer days"),
        ({"node": 5}, "Unknown setting 'node'"),
    ],
)
def test_bad_settings_are_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        make(tmp_path / "city", **changes)
    assert message in str(caught.value)
    assert only_in(tmp_path) == []


@pytest.mark.parametrize("text", ["20250303", "2025-03-03", 20250303, date(2025, 3, 3)])
def test_a_date_is_read_with_and_without_hyphens(tmp_path: Path, text: Any) -> None:
    assert SimulateSettings(out=tmp_path, start_date=text).start_date == date(2025, 3, 3)


def test_an_existing_city_is_refused_untouched(tmp_path: Path) -> None:
    out = tmp_path / "city"
    make(out)
    before = all_bytes(out)
    with pytest.raises(OutputError, match="--overwrite"):
        make(out, seed=2)
    assert all_bytes(out) == before


def test_overwrite_replaces_a_city(tmp_path: Path) -> None:
    make(tmp_path / "city", days=3)
    make(tmp_path / "city", days=1, seed=2, overwrite=True)
    make(tmp_path / "fresh", days=1, seed=2)
    assert all_bytes(tmp_path / "city") == all_bytes(tmp_path / "fresh")
    assert only_in(tmp_path) == ["city", "fresh"]


@pytest.mark.parametrize(
    "strange", ["notes.txt", "nodes.csv", "records/notes.txt", "records/ds=20250303/x.csv"]
)
def test_overwrite_refuses_the_folder_of_a_stranger(tmp_path: Path, strange: str) -> None:
    path = tmp_path / "mine" / strange
    path.parent.mkdir(parents=True)
    path.write_text("precious")
    with pytest.raises(OutputError, match="something else than a simulated city"):
        make(tmp_path / "mine", overwrite=True)
    assert all_bytes(tmp_path) == {f"mine/{strange}": b"precious"}


@pytest.mark.parametrize(
    "strange", ["notes.txt", "records/notes.txt", "records/ds=20250303/part-1.parquet", "nodes.csv"]
)
def test_overwrite_refuses_a_city_with_something_of_a_stranger(
    tmp_path: Path, strange: str
) -> None:
    make(tmp_path / "city")
    (tmp_path / "city" / strange).write_text("precious")
    before = all_bytes(tmp_path)
    with pytest.raises(OutputError, match="something else"):
        make(tmp_path / "city", overwrite=True)
    assert all_bytes(tmp_path) == before


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "city").write_text("precious")
    with pytest.raises(OutputError, match="something else"):
        make(tmp_path / "city", overwrite=True)
    assert all_bytes(tmp_path) == {"city": b"precious"}


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "city").mkdir()
    assert make(tmp_path / "city").records > 0
    assert only_in(tmp_path) == ["city"]


def test_a_full_disk_leaves_the_old_city_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "city")
    before = all_bytes(tmp_path)

    def full(*_: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(simulated, "write_records", full)
    with pytest.raises(OutputError, match=r"city.*No space left on device.*--out"):
        make(tmp_path / "city", seed=2, overwrite=True)
    assert all_bytes(tmp_path) == before
    assert only_in(tmp_path) == ["city"]


def test_a_failed_swap_puts_the_old_city_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "city")
    before = all_bytes(tmp_path)
    rename = Path.rename

    def fail_for_the_new(self: Path, target: Path) -> Path:
        if self.suffix == ".new":
            raise PermissionError(13, os.strerror(13))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new)
    with pytest.raises(OutputError, match="Permission denied"):
        make(tmp_path / "city", seed=2, overwrite=True)
    assert all_bytes(tmp_path) == before
    assert only_in(tmp_path) == ["city"]


def test_a_folder_that_fills_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_city = simulated._write_city

    def meanwhile(folder: Path, settings: SimulateSettings) -> int:
        (tmp_path / "city").mkdir()
        (tmp_path / "city" / "notes.txt").write_text("precious")
        return write_city(folder, settings)

    monkeypatch.setattr(simulated, "_write_city", meanwhile)
    with pytest.raises(OutputError, match="something else"):
        make(tmp_path / "city")
    assert all_bytes(tmp_path) == {"city/notes.txt": b"precious"}
    assert only_in(tmp_path) == ["city"]
