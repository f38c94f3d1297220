"""SampleStore: what is written is read back, whole or not at all, whatever happens meanwhile."""

import asyncio
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import icechunk
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from zarr.codecs import BloscCodec

from flowpatch.errors import (
    StoreDamagedError,
    StoreError,
    StoreExistsError,
    StoreFormatError,
    StoreLockedError,
    StoreNotFoundError,
    StoreWriteError,
)
from flowpatch.series.nodes import NodeTable
from flowpatch.series.splits import Splits
from flowpatch.series.statistics import StepMoments
from flowpatch.store import manifest as manifest_module
from flowpatch.store.arrays import (
    BLOCK_BYTES,
    CHUNK_BYTES,
    block_days,
    chunk_steps,
    hash_values,
)
from flowpatch.store.draft import Origin
from flowpatch.store.manifest import hash_content
from flowpatch.store.sample_store import SampleStore, open_store
from flowpatch.store.writer import StoreWriter, check_free
from flowpatch.time_axis import TimeAxis


def axis_of(days: int, step_minutes: int = 360) -> TimeAxis:
    return TimeAxis.of_days(np.datetime64("2025-03-03"), days, step_minutes)


def nodes_of(*columns: Any, names: tuple[str, ...] = ("sensor_id",)) -> NodeTable:
    keys = tuple(
        np.array(column, dtype=np.int64 if isinstance(column[0], int) else object)
        for column in columns
    )
    places = np.arange(len(columns[0])) / 7
    return NodeTable(names, keys, 50 + places, 10 - places)


def splits_of(axis: TimeAxis) -> Splits:
    return Splits(0, max(1, axis.length // 2), max(1, axis.length * 3 // 4), axis.length)


def fill(writer: StoreWriter, values: np.ndarray) -> None:
    for first in range(0, writer.axis.length, writer.block_steps):
        writer.write(first, values[first : first + writer.block_steps])


def commit(writer: StoreWriter) -> SampleStore:
    return writer.commit(
        input_len=2, output_len=1, counts=writer.counts(), nodes_without_coordinates=0,
        splits=splits_of(writer.axis),
    )  # fmt: skip


def writer_of(path: Path, axis: TimeAxis, nodes: NodeTable, **options: Any) -> StoreWriter:
    base = options.get("base")
    origin = Origin(
        {"aggregate": "mean"}, {"kind": "test"}, axis.to_json(), nodes.fingerprint(),
        base and base.version,
    )  # fmt: skip
    return StoreWriter(path, axis, nodes, origin, **options)


def build(
    path: Path, values: np.ndarray, nodes: NodeTable, step_minutes: int = 360, **options: bool
) -> SampleStore:
    axis = axis_of(len(values) * step_minutes // 1440, step_minutes)
    with writer_of(path, axis, nodes, overwrite=options.get("overwrite", False)) as writer:
        fill(writer, values)
        return commit(writer)


def example(seed: int = 0, days: int = 3, nodes: int = 5) -> np.ndarray:
    values = np.random.default_rng(seed).normal(20, 5, (days * 4, nodes)).astype(np.float32)
    values[3, 1] = np.nan
    return values


def snapshot(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def recomputed_hash(store: SampleStore) -> str:
    """The content hash of what reading gives, and not of what the manifest says."""
    steps, values = store.axis.steps_a_day, store.read()
    days = [hash_values(values[i : i + steps]) for i in range(0, len(values), steps)]
    return hash_content(store.axis, store.nodes, store.splits, store.statistics, days)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One day a block, so that a small series has several."""
    monkeypatch.setattr("flowpatch.store.arrays.BLOCK_BYTES", 1)


# --- there and back -------------------------------------------------------------------------------

# Any text that a file can hold, with those that break quoting more often than by chance.
texts = st.one_of(
    st.sampled_from(["杭州", "'", '"', "", "a->b", "007", "\\", "\x1b[31m", "😀", "nan", "ü"]),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=12),
)
numbers = st.integers(-(2**63), 2**63 - 1)
column_names = st.one_of(
    st.sampled_from(
        ["value", "time", "node", "latitude", "step_mean", "../x", "/", "..", "a b", "", "key_0",
         "key_1", "key_2", "__x", "zarr.json", "c", "编号", '"', "nds_id", "n" * 300]
    ),
    texts,
)  # fmt: skip
awkward_floats = st.sampled_from(
    [np.nan, -0.0, 0.0, np.float32(3e38), np.float32(1e-45), -1.5, 7.0, 1 / 3]
)


@st.composite
def contents(draw: st.DrawFn) -> tuple[np.ndarray, NodeTable, int]:
    nodes = draw(st.integers(1, 6))
    names = tuple(draw(st.lists(column_names, min_size=1, max_size=3, unique=True)))
    columns = [
        draw(st.lists(draw(st.sampled_from([numbers, texts])), min_size=nodes, max_size=nodes))
        for _ in names
    ]
    step_minutes = draw(st.sampled_from([1440, 720, 360, 60]))
    shape = (draw(st.integers(1, 5)) * 1440 // step_minutes, nodes)
    values = draw(hnp.arrays(np.float32, shape, elements=awkward_floats))
    values[0, 0] = 1  # Something to train on.
    return values, nodes_of(*columns, names=names), step_minutes


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=contents())
def test_what_is_written_is_read_back(
    small_blocks: None, tmp_path: Path, content: tuple[np.ndarray, NodeTable, int]
) -> None:
    values, nodes, step_minutes = content
    path = tmp_path / "s"
    build(path, values, nodes, step_minutes, overwrite=True)
    store = open_store(path)
    # Bit for bit: -0.0 is not 0.0 here.
    assert np.array_equal(store.read().view(np.uint32), values.view(np.uint32))
    half = len(values) // 2
    assert np.array_equal(store.read(half, half + 3), values[half : half + 3], equal_nan=True)
    assert store.nodes.key_columns == nodes.key_columns
    assert [key.tolist() for key in store.nodes.keys] == [key.tolist() for key in nodes.keys]
    assert store.nodes.fingerprint() == nodes.fingerprint()
    expected = StepMoments.empty(len(values))
    expected.set(0, values)
    for name in ("count", "mean", "m2"):
        assert np.array_equal(getattr(store.ledger.moments, name), getattr(expected, name))
    assert recomputed_hash(store) == store.manifest.content_hash
    shutil.rmtree(path)


def test_the_manifest_is_kept_with_the_version(tmp_path: Path) -> None:
    store = build(tmp_path / "s", example(), nodes_of([1, 2, 3, 4, 5]))
    again = open_store(str(tmp_path / "s"))
    assert again.manifest == store.manifest
    assert (again.axis, again.splits) == (axis_of(3), splits_of(axis_of(3)))
    assert again.statistics.observed == (~np.isnan(example()[:6])).sum()
    assert again.manifest.recipe == {"aggregate": "mean"}
    assert again.bytes_on_disk() == sum(
        file.stat().st_size for file in (tmp_path / "s").rglob("*") if file.is_file()
    )


def test_xarray_opens_it_with_labels(tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    names = ("link", "到")
    nodes = nodes_of([1, 1, 2, 2, 3], ["甲", '"', "", "'", "b"], names=names)
    store = build(tmp_path / "s", example(), nodes)
    with xarray.open_zarr(store.zarr_store, consolidated=False) as opened:
        value = opened["value"]
        assert value.dims == ("time", "node")
        assert set(value.coords) == {"time", "node", "latitude", "longitude", *names}
        np.testing.assert_array_equal(value["time"].values, store.axis.instants())
        assert value["node"].values.tolist() == ["1->甲", '1->"', "2->", "2->'", "3->b"]
        assert value["到"].values.tolist() == ["甲", '"', "", "'", "b"]
        np.testing.assert_array_equal(value.values, example())


# --- blocks and chunks ----------------------------------------------------------------------------


def test_several_blocks_may_come_at_once(small_blocks: None, tmp_path: Path) -> None:
    values, nodes = example(days=6), nodes_of([1, 2, 3, 4, 5])
    with writer_of(tmp_path / "s", axis_of(6), nodes, overwrite=False) as writer:
        for first, stop in [(0, 4), (4, 12), (12, 16), (16, 24)]:
            writer.write(first, values[first:stop])
        store = commit(writer)
    straight = build(tmp_path / "t", values, nodes)
    assert store.manifest.content_hash == straight.manifest.content_hash
    np.testing.assert_array_equal(store.read(), values)


@pytest.mark.parametrize(
    ("first", "shape"),
    [(1, (4, 5)), (-4, (4, 5)), (12, (4, 5)), (8, (8, 5)), (0, (3, 5)), (0, (5, 5)), (0, (0, 5)),
     (0, (4, 4)), (0, (4, 6)), (0, (4, 1))],
)  # fmt: skip
def test_what_is_no_whole_day_of_all_nodes_is_refused(
    small_blocks: None, tmp_path: Path, first: int, shape: tuple[int, int]
) -> None:
    values, nodes = example(), nodes_of([1, 2, 3, 4, 5])
    with writer_of(tmp_path / "s", axis_of(3), nodes, overwrite=False) as writer:
        fill(writer, values)
        with pytest.raises(ValueError, match=r"no whole days|are not the 5 nodes"):
            writer.write(first, np.ones(shape, np.float32))
        store = commit(writer)
    np.testing.assert_array_equal(store.read(), values)


def test_a_version_with_a_day_that_was_not_written_is_refused(
    small_blocks: None, tmp_path: Path
) -> None:
    """It would read as missing values, which nobody observed to be missing."""
    with writer_of(tmp_path / "s", axis_of(3), nodes_of([1] * 5), overwrite=False) as writer:
        writer.write(0, example()[:4])
        writer.write(8, example()[8:])
        with pytest.raises(ValueError, match="day 1 was not written"):
            commit(writer)
    assert list(tmp_path.iterdir()) == []


@given(
    days=st.integers(1, 400),
    step_minutes=st.sampled_from([1, 5, 15, 60, 1440]),
    nodes=st.integers(1, 20_000_000),
)
def test_blocks_are_whole_days_and_chunks_whole_parts_of_a_block(
    days: int, step_minutes: int, nodes: int
) -> None:
    axis = axis_of(days, step_minutes)
    block, chunk = block_days(axis, nodes) * axis.steps_a_day, chunk_steps(axis, nodes)
    assert axis.steps_a_day <= block
    assert block == axis.steps_a_day or 4 * nodes * block <= BLOCK_BYTES
    # Two blocks in one chunk would have to be written twice.
    assert block % chunk == 0
    assert chunk == 1 or 4 * nodes * chunk <= CHUNK_BYTES


# --- the content hash -----------------------------------------------------------------------------


def test_the_same_input_gives_the_same_hash_and_any_other_input_another(tmp_path: Path) -> None:
    values, keys = example(), [1, 2, 3, 4, 5]
    first = build(tmp_path / "a", values, nodes_of(keys))
    assert build(tmp_path / "b", values, nodes_of(keys)).manifest.content_hash == (
        first.manifest.content_hash
    )
    changed, missing = values.copy(), values.copy()
    changed[7, 2] = np.nextafter(changed[7, 2], np.float32(0))
    missing[7, 2] = np.nan
    others = [
        (changed, nodes_of(keys)),
        (missing, nodes_of(keys)),
        (values, nodes_of([1, 2, 3, 4, 6])),
        (values, nodes_of(["1", "2", "3", "4", "5"])),
        (values, nodes_of(keys, names=("link",))),
    ]
    hashes = {
        build(tmp_path / str(i), *other).manifest.content_hash for i, other in enumerate(others)
    }
    assert len(hashes | {first.manifest.content_hash}) == len(others) + 1


@given(
    values=hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2), elements=awkward_floats)
)
def test_the_hash_of_values_is_that_of_their_canonical_bytes(values: np.ndarray) -> None:
    slow = hashlib.sha256()
    for value in values.ravel().tolist():
        nan, zero = b"\x00\x00\xc0\x7f", bytes(4)
        canonical = nan if np.isnan(value) else zero if value == 0 else None
        slow.update(canonical or np.array(value, "<f4").tobytes())
    assert hash_values(values) == slow.hexdigest()
    assert hash_values(values.astype(">f4")) == slow.hexdigest(), "the machine's order of bytes"
    assert hash_values(np.asfortranarray(values)) == slow.hexdigest()
    negative_nan = np.frombuffer(b"\x01\x00\xc0\xff", "<f4")[0]
    assert hash_values(np.where(np.isnan(values), negative_nan, values)) == slow.hexdigest()


# --- versions, and nothing before a commit --------------------------------------------------------


def test_nothing_is_visible_before_the_commit(tmp_path: Path) -> None:
    path, nodes = tmp_path / "s", nodes_of([1, 2, 3, 4, 5])
    with writer_of(path, axis_of(3), nodes, overwrite=False) as writer:
        fill(writer, example())
        with pytest.raises(StoreNotFoundError, match=r"no finished version.*flowpatch preprocess"):
            open_store(path)
        commit(writer)
    before = open_store(path)
    with writer_of(path, axis_of(3), nodes, overwrite=True) as writer:
        fill(writer, example(1))
        assert open_store(path).version == before.version
        np.testing.assert_array_equal(open_store(path).read(), example())
        commit(writer)
    np.testing.assert_array_equal(open_store(path).read(), example(1))


def test_every_version_opens_by_its_id_and_keeps_its_content(tmp_path: Path) -> None:
    path, keys = tmp_path / "s", [1, 2, 3, 4, 5]
    written = [
        build(path, example(0), nodes_of(keys)),
        build(path, example(1, days=5, nodes=2), nodes_of(["甲", "乙"]), overwrite=True),
        build(path, example(2), nodes_of(keys), overwrite=True),
    ]
    infos = open_store(path).versions()
    assert [info.version for info in infos] == [store.version for store in reversed(written)]
    assert len({info.version for info in infos}) == 3
    assert [info.content_hash for info in reversed(infos)] == [
        store.manifest.content_hash for store in written
    ]
    for store, expected in zip(
        written, [example(0), example(1, days=5, nodes=2), example(2)], strict=True
    ):
        reopened = open_store(path, store.version)
        np.testing.assert_array_equal(reopened.read(), expected)
        assert recomputed_hash(reopened) == reopened.manifest.content_hash
        # The one that was open all the while reads the same.
        np.testing.assert_array_equal(store.read(), expected)


def test_two_old_versions_are_open_at_once(tmp_path: Path) -> None:
    path, nodes = tmp_path / "s", nodes_of([1, 2, 3, 4, 5])
    ids = [build(path, example(i), nodes, overwrite=i > 0).version for i in range(3)]
    one, other = open_store(path, ids[0]), open_store(path, ids[1])
    for _ in range(2):
        np.testing.assert_array_equal(one.read(4, 8), example(0)[4:8])
        np.testing.assert_array_equal(other.read(4, 8), example(1)[4:8])


def test_an_unknown_version_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    store = build(tmp_path / "s", example(), nodes_of([1, 2, 3, 4, 5]))
    for asked in ("nope", "", "main", store.version.lower(), "../x"):
        with pytest.raises(StoreNotFoundError, match=f"'{asked}'.*{store.version}"):
            open_store(tmp_path / "s", asked)


def fail_half_way(path: Path, error: BaseException, *, overwrite: bool) -> None:
    with writer_of(path, axis_of(3), nodes_of([9] * 5), overwrite=overwrite) as writer:
        fill(writer, example(1))
        raise error


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt()])
def test_a_failing_writer_leaves_no_folder(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "deep" / "s"
    with pytest.raises(type(error)):
        fail_half_way(path, error, overwrite=False)
    assert list((tmp_path / "deep").iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt()])
def test_a_failing_writer_leaves_the_old_version_untouched(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "s"
    old = build(path, example(), nodes_of([1, 2, 3, 4, 5]))
    before = snapshot(path)
    with pytest.raises(type(error)):
        fail_half_way(path, error, overwrite=True)
    after = snapshot(path)
    # Icechunk 2 keeps all references in one object.
    kept = before.keys() - {"repo"}
    assert {name: after.get(name) for name in kept} == {name: before[name] for name in kept}
    assert [info.version for info in open_store(path).versions()] == [old.version]
    assert recomputed_hash(open_store(path, old.version)) == old.manifest.content_hash
    assert [file.name for file in tmp_path.iterdir()] == ["s"]


# --- other processes ------------------------------------------------------------------------------

MID_BUILD = """
import sys
import numpy as np
from pathlib import Path
from flowpatch.series.nodes import NodeTable
from flowpatch.store import arrays
from flowpatch.store.draft import Origin
from flowpatch.store.writer import StoreWriter
from flowpatch.time_axis import TimeAxis
arrays.BLOCK_BYTES = 1
axis = TimeAxis.of_days(np.datetime64("2025-03-03"), 3, 360)
nodes = NodeTable(("sensor_id",), (np.arange(5),), np.zeros(5), np.zeros(5))
origin = Origin({}, {}, axis.to_json(), nodes.fingerprint(), None)
with StoreWriter(sys.argv[1], axis, nodes, origin, overwrite=True) as writer:
    writer.write(0, np.random.default_rng(0).random((4, 5)).astype(np.float32))
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def start_build() -> Iterator[Callable[[Path], "subprocess.Popen[str]"]]:
    """Starts a build in another process that stands still half-way, its first block written."""
    started: list[subprocess.Popen[str]] = []

    def start(path: Path) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", MID_BUILD, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "writing\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_first_build_that_was_killed_is_told_apart_and_replaced(
    tmp_path: Path, start_build: Callable[[Path], "subprocess.Popen[str]"]
) -> None:
    path, nodes = tmp_path / "s", nodes_of([1, 2, 3, 4, 5])
    process = start_build(path)
    with pytest.raises(StoreLockedError, match=f"process {process.pid} on"):
        build(path, example(), nodes)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    left = snapshot(path)
    assert left
    with pytest.raises(StoreNotFoundError, match=r"no finished version.*Build it again: flowpatch"):
        open_store(path)
    # Without overwrite: there is nothing to write over.
    store = build(path, example(), nodes)
    np.testing.assert_array_equal(open_store(path).read(), example())
    assert len(store.versions()) == 1
    assert not any(name.startswith("chunks") and name in left for name in snapshot(path))


def test_a_second_build_that_was_killed_leaves_the_old_version(
    tmp_path: Path, start_build: Callable[[Path], "subprocess.Popen[str]"]
) -> None:
    path, nodes = tmp_path / "s", nodes_of([1, 2, 3, 4, 5])
    old = build(path, example(), nodes)
    process = start_build(path)
    np.testing.assert_array_equal(open_store(path).read(), example())
    with pytest.raises(StoreLockedError):
        build(path, example(1), nodes, overwrite=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert open_store(path).version == old.version
    assert recomputed_hash(open_store(path)) == old.manifest.content_hash
    build(path, example(1), nodes, overwrite=True)
    np.testing.assert_array_equal(open_store(path).read(), example(1))
    np.testing.assert_array_equal(open_store(path, old.version).read(), example())


# --- what is at the path --------------------------------------------------------------------------


def test_a_store_that_exists_is_refused_and_untouched(tmp_path: Path) -> None:
    build(tmp_path / "s", example(), nodes_of([1, 2, 3, 4, 5]))
    before = snapshot(tmp_path)
    for attempt in (
        lambda: check_free(tmp_path / "s", overwrite=False),
        lambda: build(tmp_path / "s", example(1), nodes_of([1] * 5)),
    ):
        with pytest.raises(StoreExistsError, match=r"already at '.*/s'.*--overwrite"):
            attempt()
    assert snapshot(tmp_path) == before
    check_free(tmp_path / "s", overwrite=True)


def strange(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / kind
    if kind == "file":
        path.write_text("mine")
    elif kind == "broken link":
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.mkdir()
        (path / ("chunks" if kind == "folder like a store" else "cat.jpg")).write_text("mine")
    return path


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["file", "folder", "folder like a store", "broken link"])
def test_what_is_no_store_is_never_touched(tmp_path: Path, kind: str, overwrite: bool) -> None:
    path = strange(tmp_path, kind)
    before = snapshot(tmp_path)
    with pytest.raises(StoreExistsError, match=r"is no sample store.*--store; nothing was touched"):
        build(path, example(), nodes_of([1] * 5), overwrite=overwrite)
    with pytest.raises(StoreNotFoundError, match=r"is no sample store. Check the path"):
        open_store(path)
    assert snapshot(tmp_path) == before
    assert path.is_symlink() == (kind == "broken link")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("branch", ["main", "other"])
def test_somebody_elses_repository_is_never_touched(
    tmp_path: Path, branch: str, overwrite: bool
) -> None:
    """It looks like a build of ours that was stopped: a repository without a version of ours."""
    path = tmp_path / "theirs"
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(path)))
    if branch != "main":
        repository.create_branch(branch, repository.lookup_branch("main"))
    session = repository.writable_session(branch)
    zarr.create_group(session.store, attributes={"years": "of work"})
    session.commit("theirs")
    before = snapshot(tmp_path)
    with pytest.raises(StoreExistsError, match=r"is no sample store.*--store; nothing was touched"):
        build(path, example(), nodes_of([1] * 5), overwrite=overwrite)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    "left",
    [
        ["snapshots/1CECHNKREP0F1RSTCMT0#1"],
        ["snapshots/1CECHNKREP0F1RSTCMT0"],
        ["snapshots/1CECHNKREP0F1RSTCMT0", "refs/branch.main/ref.json#1"],
    ],
)
def test_what_a_writer_left_that_died_at_once_is_replaced(
    tmp_path: Path, left: list[str], resume: bool
) -> None:
    """Each moment at which a repository that is being created can be killed."""
    path, nodes = tmp_path / "s", nodes_of([1, 2, 3, 4, 5])
    for name in left:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(b"")
    with pytest.raises(StoreNotFoundError, match="no sample store"):
        open_store(path)
    with writer_of(path, axis_of(3), nodes, resume=resume) as writer:
        fill(writer, example())
        commit(writer)
    np.testing.assert_array_equal(open_store(path).read(), example())


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 20])
def test_a_draft_whose_reference_is_damaged_makes_way(tmp_path: Path, content: bytes) -> None:
    path, nodes = tmp_path / "s", nodes_of([1, 2, 3, 4, 5])
    before = build(path, example(), nodes)
    reference = path / "refs/branch.unfinished/ref.json"
    reference.parent.mkdir(exist_ok=True)
    reference.write_bytes(content)
    store = build(path, example(1), nodes, overwrite=True)
    np.testing.assert_array_equal(store.read(), example(1))
    np.testing.assert_array_equal(open_store(path, before.version).read(), example())


def test_a_file_more_than_a_dead_writer_leaves_belongs_to_somebody(tmp_path: Path) -> None:
    path = tmp_path / "s"
    (path / "snapshots").mkdir(parents=True)
    (path / "snapshots/1CECHNKREP0F1RSTCMT0").write_bytes(b"")
    (path / "snapshots/mine").write_bytes(b"1")
    with pytest.raises(StoreExistsError, match="nothing was touched"):
        build(path, example(), nodes_of([1, 2, 3, 4, 5]), overwrite=True)
    assert (path / "snapshots/mine").read_bytes() == b"1"


def test_an_empty_folder_may_become_a_store(tmp_path: Path) -> None:
    store = build(tmp_path, example(), nodes_of([1, 2, 3, 4, 5]))
    np.testing.assert_array_equal(open_store(store.path).read(), example())


@pytest.mark.parametrize("path", ["no/such", "x" * 300, "null\0byte"])
def test_no_store_at_a_path_says_so(tmp_path: Path, path: str) -> None:
    with pytest.raises(StoreNotFoundError, match=r"No sample store"):
        open_store(tmp_path / path)


@pytest.mark.parametrize("path", ["file/s", "x" * 300, "x" * 250])
def test_a_path_that_no_store_can_have_is_explained(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreWriteError):
        build(tmp_path / path, example(), nodes_of([1] * 5))
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("path", ["x" * 300, "null\0byte"])
def test_such_a_path_is_refused_before_any_work(tmp_path: Path, path: str) -> None:
    with pytest.raises(StoreWriteError, match="No sample store can be at"):
        check_free(tmp_path / path, overwrite=False)


def test_a_newer_format_is_refused_with_the_version_that_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(manifest_module, "FORMAT", 3)
        patched.setattr("flowpatch.store.writer.installed_version", lambda _: "7.8.9")
        build(tmp_path / "s", example(), nodes_of([1] * 5))
    with pytest.raises(StoreFormatError, match=r"format 3, written by flowpatch 7.8.9.*up to 2"):
        open_store(tmp_path / "s")


# --- damage ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> SampleStore:
    """Several chunks as files, others inside Icechunk's own files."""
    path = tmp_path_factory.mktemp("damage") / "s"
    values = np.random.default_rng(5).normal(size=(3 * 24, 100)).astype(np.float32)
    nodes = nodes_of(list(range(100)), [f"杭{i * 7919}" for i in range(100)], names=("a", "b"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("flowpatch.store.arrays.BLOCK_BYTES", 1)
        return build(path, values, nodes, 60)


def look(path: Path, whole: SampleStore) -> str:
    """Opens, reads everything and hashes; raises StoreError where damage was noticed."""
    store = open_store(path)
    if recomputed_hash(store) != store.manifest.content_hash:
        return "hash differs"
    assert np.array_equal(store.read(), whole.read())
    assert store.nodes.fingerprint() == whole.nodes.fingerprint()
    for name in ("count", "mean", "m2"):
        found, expected = (getattr(one.ledger.moments, name) for one in (store, whole))
        assert np.array_equal(found, expected)
    return "right"


def damage(whole: SampleStore, copy: Path, name: str, change: Callable[[bytes], bytes]) -> str:
    shutil.copytree(whole.path, copy)
    try:
        (copy / name).write_bytes(change((whole.path / name).read_bytes()))
        return look(copy, whole)
    except StoreDamagedError:
        return "damaged"
    except StoreError as error:
        return type(error).__name__
    finally:
        shutil.rmtree(copy)


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes, byte: int) -> bytes:
    return content[:byte] + bytes([content[byte] ^ 1]) + content[byte + 1 :]


def test_a_whole_copy_is_right(whole: SampleStore, tmp_path: Path) -> None:
    """The damage below would mean nothing otherwise."""
    assert damage(whole, tmp_path / "c", next(iter(snapshot(whole.path))), bytes) == "right"


def test_a_truncated_file_is_noticed_wherever_it_matters(
    whole: SampleStore, tmp_path: Path
) -> None:
    for name in snapshot(whole.path):
        for change in (half, lambda content: b""):
            found = damage(whole, tmp_path / "c", name, change)
            # Icechunk reads the log of a transaction, and the root before it, only to merge.
            assert found == "damaged" or (found == "right" and "/" in name), name
            if name.startswith(("chunks", "refs")):
                assert found == "damaged", name


def test_a_missing_chunk_is_not_read_as_missing_values(whole: SampleStore, tmp_path: Path) -> None:
    shutil.copytree(whole.path, tmp_path / "c")
    for file in (tmp_path / "c/chunks").iterdir():
        file.unlink()
    with pytest.raises(StoreDamagedError, match=r"damaged or unreadable.*build it again"):
        open_store(tmp_path / "c").read()


def test_a_lost_reference_to_a_chunk_is_not_read_as_missing_values(tmp_path: Path) -> None:
    store = build(tmp_path / "s", example(), nodes_of([1, 2, 3, 4, 5]))
    session = store._repository._opened.writable_session("main")
    zarr.open_group(session.store, mode="a")["step_mean"].resize((0,))
    with pytest.raises(StoreDamagedError, match="not the array that its manifest tells of"):
        committed(store, session).ledger  # noqa: B018
    session = store._repository._opened.writable_session("main")
    asyncio.run(session.store.delete("value/c/0/0"))
    with pytest.raises(StoreDamagedError, match=r"chunk 'value/c/0/0' is missing"):
        committed(store, session).read()


def committed(store: SampleStore, session: Any) -> SampleStore:
    """The version that a session makes, passed off as one of ours."""
    session.commit("x", metadata={"content_hash": "x"})
    return open_store(store.path)


def test_a_flipped_bit_in_any_chunk_is_noticed_by_reading_alone(
    whole: SampleStore, tmp_path: Path
) -> None:
    chunks = [name for name in snapshot(whole.path) if name.startswith("chunks")]
    assert len(chunks) >= 3
    generator = np.random.default_rng(0)
    for name in chunks:
        size = (whole.path / name).stat().st_size
        for byte in (0, size - 1, *generator.integers(size, size=2).tolist()):
            found = damage(whole, tmp_path / "c", name, lambda c, byte=byte: flipped(c, byte))
            assert found == "damaged", (name, byte)


def test_a_flipped_bit_anywhere_is_an_error_of_ours_or_does_no_harm(
    whole: SampleStore, tmp_path: Path
) -> None:
    """Icechunk's own files hold no checksum: the content hash is the last guard."""
    generator = np.random.default_rng(1)
    for name in snapshot(whole.path):
        size = (whole.path / name).stat().st_size
        for byte in generator.integers(size, size=3).tolist():
            found = damage(whole, tmp_path / "c", name, lambda c, byte=byte: flipped(c, byte))
            assert found in ("damaged", "hash differs", "right", "StoreNotFoundError"), (name, byte)


def test_attributes_that_are_no_manifest_are_damage(tmp_path: Path) -> None:
    store = build(tmp_path / "s", example(), nodes_of([1] * 5))
    session = store._repository._opened.writable_session("main")
    zarr.open_group(session.store, mode="a").attrs["flowpatch"] = "gone"
    session.commit("x", metadata={"content_hash": "x"})
    with pytest.raises(StoreDamagedError, match="has no manifest"):
        open_store(tmp_path / "s")
    # The version before is as good as ever.
    np.testing.assert_array_equal(open_store(tmp_path / "s", store.version).read(), example())


# --- a full disk ----------------------------------------------------------------------------------


NOISE = np.random.default_rng(0).random((3 * 24, 200)).astype(np.float32)


@pytest.mark.parametrize("left_kb", [0, 4, 8, 20, 40, 60])
def test_a_full_disk_leaves_no_store(
    small_disk: Path, fill_disk: Callable[[int], None], left_kb: int
) -> None:
    """Full at the lock, in the arrays, in a block, in the commit."""
    fill_disk(left_kb * 1024)
    with pytest.raises(StoreWriteError, match="No space left on device"):
        build(small_disk / "s", NOISE, nodes_of(list(range(200))), 60)
    assert [file.name for file in small_disk.iterdir()] == ["filler"]


def test_a_disk_that_fills_up_leaves_the_old_version(
    small_disk: Path, fill_disk: Callable[[int], None]
) -> None:
    old = build(small_disk / "s", example(), nodes_of([1, 2, 3, 4, 5]))
    fill_disk(40 * 1024)
    with pytest.raises(StoreWriteError, match=r"MB free.*Nothing was committed. Free some space"):
        build(small_disk / "s", NOISE, nodes_of(list(range(200))), 60, overwrite=True)
    assert open_store(small_disk / "s").version == old.version
    assert recomputed_hash(open_store(small_disk / "s")) == old.manifest.content_hash
    assert sorted(file.name for file in small_disk.iterdir()) == ["filler", "s"]


# --- chunks decoded straight into place -----------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(first=st.integers(-13, 14), stop=st.integers(-13, 14) | st.none(), older=st.booleans())
def test_reading_chunks_into_place_gives_what_zarr_gives(
    first: int, stop: int | None, older: bool
) -> None:
    kept = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=4)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        # Chunks of two steps; older stores are compressed otherwise.
        patched.setattr("flowpatch.store.arrays.CHUNK_BYTES", 2 * 4 * 5)
        patched.setattr("flowpatch.store.arrays.BLOCK_BYTES", 1)
        if older:
            patched.setattr("flowpatch.store.array_writer.COMPRESSOR", kept)
        store = build(Path(folder) / "s", example(), nodes_of([1, 2, 3, 4, 5]))
        plain = zarr.open_array(store.zarr_store, path="value", mode="r")
        assert plain.chunks == (2, 5)
        found = store.read(first, stop)
        np.testing.assert_array_equal(found, np.asarray(plain)[first:stop])
        assert found.dtype == np.float32


def test_values_in_another_form_than_any_store_has_are_refused(tmp_path: Path) -> None:
    store = build(tmp_path / "s", example(), nodes_of([1, 2, 3, 4, 5]))
    session = store._repository._opened.writable_session("main")
    zarr.create_array(
        session.store, name="value", data=example(), chunks=(4, 5), compressors=None, overwrite=True
    )
    with pytest.raises(StoreDamagedError, match="not the array that its manifest tells of"):
        committed(store, session).read()
