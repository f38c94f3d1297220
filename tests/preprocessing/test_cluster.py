"""Built by a cluster, a store is the one that a single process builds, whatever happens meanwhile.

One cluster of two worker processes serves all tests but those in which it has to die.
"""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from distributed import Client, LocalCluster

from flowpatch.errors import (
    ClusterError,
    ClusterUnreachableError,
    MissingExtraError,
    RecordError,
    SettingsError,
    SourceError,
    StoreDraftError,
    UnfitWorkerError,
)
from flowpatch.preprocessing import block_work, cluster, spreading, stretches
from flowpatch.preprocessing.build import preprocess
from flowpatch.preprocessing.settings import PreprocessSettings
from flowpatch.preprocessing.update import update
from flowpatch.store.sample_store import SampleStore, open_store
from s3_server import KEYS, Remote
from tiny_stores import content, writer_of

STEPS, NODES, DAYS = 48, 9, 6
ARRAYS = (
    "value", "time", "node", "latitude", "longitude", "step_count", "step_mean", "step_m2",
    "day_counts", "day_extremes", "node_observed", "node_stuck",
)  # fmt: skip


# --- a city, and what two stores of it must have alike --------------------------------------------


def table(day: int) -> pa.Table:
    """Values with gaps and ties, records that cannot be used, and sensors that stand still."""
    random = np.random.default_rng(day)
    # Every cell once, and as many records again anywhere.
    step, node = (
        np.append(every.ravel(), random.integers(0, size, STEPS * NODES))
        for every, size in zip(np.indices((STEPS, NODES)), (STEPS, NODES), strict=True)
    )
    count = len(step)
    instant = np.datetime64("2025-03-03", "s") + day * 86_400 + step * 1800
    instant += random.integers(0, 1800, count).astype("timedelta64[s]")
    value = random.normal(20, 8, count).round(2)
    value[random.random(count) < 0.01] = np.nan
    value[random.random(count) < 0.02] = -1
    # The last two nodes stand still over every border of days, one of them for ever.
    value[(node == NODES - 1) & ((step >= STEPS - 9) | (step < 9))] = 5
    value[node == NODES - 2] = 7
    key = np.where(random.random(count) < 0.01, 999, 100 + node)
    once = np.arange(count) < STEPS * NODES
    kept = np.where(node >= NODES - 2, once, random.random(count) < 0.7)
    return pa.table(
        {
            "sensor_id": key[kept],
            "passts_time": pa.array(instant[kept], pa.timestamp("s")),
            "flow_label": pa.array(value[kept], pa.float64()),
        }
    )


def write_city(folder: Path, days: range, *, missing: int = 3, as_csv: bool = False) -> Path:
    """A Parquet file a day, of which one is missing, and one with records of all days; or a CSV."""
    records = folder / "records"
    records.mkdir(parents=True)
    tables = {f"{day:03}": table(day) for day in days if day != missing}
    everywhere = np.datetime64("2025-03-03", "s") + np.arange(40) * 4 * 3600
    late = table(100).slice(0, 40)
    tables["late"] = late.set_column(1, "passts_time", pa.array(everywhere, pa.timestamp("s")))
    if as_csv:
        pyarrow.csv.write_csv(pa.concat_tables(tables.values()), records / "all.csv")
    else:
        for name, content in tables.items():
            pq.write_table(content, records / f"{name}.parquet")
    rows = [f"{100 + i},{56 + i / 100},{10 + i % 5 / 50}" for i in range(NODES)]
    (folder / "nodes.csv").write_text("\n".join(["sensor_id,lat,lng", *rows]) + "\n")
    return folder


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_city(tmp_path_factory.mktemp("city"), range(DAYS))


@pytest.fixture(scope="module")
def csv_city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_city(tmp_path_factory.mktemp("city"), range(DAYS), as_csv=True)


def settings_of(folder: Path, store: Path | str, **changes: Any) -> PreprocessSettings:
    given = {
        "records": str(folder / "records"), "nodes": str(folder / "nodes.csv"), "store": store,
        "node_columns": "sensor_id", "step_minutes": 30, "null_value": -1,
    }  # fmt: skip
    return PreprocessSettings(**{**given, **changes})


def check_same(found: SampleStore, wanted: SampleStore) -> None:
    """All arrays, and all that the manifest says."""
    for name in ARRAYS:
        np.testing.assert_array_equal(found.array(name), wanted.array(name), err_msg=name)
    ours, theirs = (json.loads(json.dumps(one.manifest.to_json())) for one in (found, wanted))
    for name in ("manifest_hash", "parent"):
        ours.pop(name), theirs.pop(name)
    assert ours == theirs


@pytest.fixture(autouse=True)
def a_block_and_a_part_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowpatch.store.arrays.BLOCK_BYTES", 1)
    monkeypatch.setattr(stretches, "GATHER_BYTES", 1)


# --- a cluster ------------------------------------------------------------------------------------


@contextmanager
def running_cluster(workers: int = 2) -> Iterator[tuple[str, Client]]:
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, host="127.0.0.1", silence_logs=60,
            dashboard_address="127.0.0.1:0", worker_dashboard_address="127.0.0.1:0",
            preload=["flowpatch.preprocessing.quiet_worker"],
        ) as started,
        Client(started, set_as_default=False) as client,
    ):  # fmt: skip
        yield started.scheduler_address, client


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[tuple[str, Client]]:
    with running_cluster() as running:
        yield running


@pytest.fixture
def dask(shared_cluster: tuple[str, Client]) -> str:
    return shared_cluster[0]


@contextmanager
def on_workers(client: Client, change: Callable[..., None], *given: Any) -> Iterator[None]:
    """Changes what workers do, inside the block."""
    client.run(change, *given)
    try:
        yield
    finally:
        client.run(as_it_was)


def as_it_was() -> None:
    stretches.MANY_RECORDS = 5_000_000
    block_work.gather_stretch = stretches.gather_stretch
    block_work.clear_bench()


def take_compiled_loops() -> None:
    stretches.MANY_RECORDS = 0


def wait_for(sign: str, begun: str, from_day: int) -> None:
    """Days from one on are gathered once a file is there; `begun` is written as one begins."""

    def gather(gathering: Any, axis: Any, scatter: Any, first: int, *rest: Any) -> Any:
        if first >= from_day * axis.steps_a_day:
            Path(begun).write_text(str(os.getpid()))
            while not Path(sign).exists():
                time.sleep(0.01)
        return stretches.gather_stretch(gathering, axis, scatter, first, *rest)

    block_work.gather_stretch = gather  # type: ignore[assignment]


def until(path: Path, seconds: float = 30) -> str:
    """What is in a file, once something is."""
    end = time.monotonic() + seconds
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return path.read_text()


# --- the same store -------------------------------------------------------------------------------


@pytest.mark.parametrize("aggregate", ["mean", "sum", "max", "last"])
def test_a_cluster_builds_the_store_that_one_process_builds(
    aggregate: str, city: Path, dask: str, tmp_path: Path
) -> None:
    given = settings_of(city, tmp_path / "one", aggregate=aggregate)
    one = preprocess(given)
    assert one.manifest.quality.stuck > STEPS * 2, "there are runs over the borders of days"
    check_same(preprocess(given.replace(store=tmp_path / "many", dask=dask)), one)


@pytest.mark.parametrize("days_a_block", [2, 3])
def test_blocks_of_several_days_are_not_cut(
    days_a_block: int,
    city: Path,
    dask: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flowpatch.store.arrays.BLOCK_BYTES", days_a_block * 4 * NODES * STEPS)
    given = settings_of(city, tmp_path / "one")
    check_same(preprocess(given.replace(store=tmp_path / "many", dask=dask)), preprocess(given))


def test_text_is_read_by_every_worker(csv_city: Path, dask: str, tmp_path: Path) -> None:
    given = settings_of(csv_city, tmp_path / "one")
    check_same(preprocess(given.replace(store=tmp_path / "many", dask=dask)), preprocess(given))


@pytest.mark.parametrize("way", ["row groups", "plain lines", "typed copy"])
def test_ways_for_many_records_are_taken_by_workers_too(
    way: str,
    city: Path,
    csv_city: Path,
    shared_cluster: tuple[str, Client],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is put aside or copied is so once, by the one who surveys."""
    dask, client = shared_cluster
    folder = city if way == "row groups" else csv_city
    one = preprocess(settings_of(folder, tmp_path / "one"))
    for module in ("flowpatch.sources.files", "flowpatch.preprocessing.stretches"):
        monkeypatch.setattr(f"{module}.MANY_RECORDS", 0)
    monkeypatch.setattr("flowpatch.sources.files.COPY_BYTES", 0)
    monkeypatch.setattr("flowpatch.sources.files.PLAIN_BYTES", 0 if way == "plain lines" else 2**60)
    with on_workers(client, take_compiled_loops):
        many = preprocess(settings_of(folder, tmp_path / "many", dask=dask))
    check_same(many, one)
    assert not list(tmp_path.glob(".flowpatch-*")), "what was put aside is gone"


def test_the_store_may_be_in_a_bucket(
    city: Path, remote: Remote, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Processes of this machine get the keys from the environment; no message shows any."""
    given = settings_of(city, remote.address("many"), workers=2)
    check_same(preprocess(given), preprocess(settings_of(city, tmp_path / "one")))
    said = "".join(capfd.readouterr())
    assert "MARKER" not in said.upper()


def test_what_is_sent_to_workers_holds_no_keys(remote: Remote) -> None:
    """They are in the environment of each worker."""
    wanted = content()
    with writer_of(remote.address("s"), wanted) as writer:
        sent = pickle.dumps(writer.fork())
        assert pickle.loads(sent).opened().value.shape == wanted.values.shape  # noqa: S301
    assert b"flowpatch-tests" in sent, "the bucket is named, so a key would be seen"
    assert [name for name, key in KEYS.items() if key.encode() in sent] == []


def test_the_store_may_be_named_from_another_folder(
    city: Path, dask: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder in which a worker runs is another one."""
    monkeypatch.chdir(tmp_path)
    many = preprocess(settings_of(city, "many", dask=dask))
    check_same(many, preprocess(settings_of(city, "one")))


def test_how_it_was_built_is_forgotten(city: Path, dask: str, tmp_path: Path) -> None:
    """An update runs in one process, and a build of the same is found to be there already."""
    given = settings_of(city, tmp_path / "s", dask=dask)
    built = preprocess(given)
    assert not {"dask", "workers"} & built.manifest.recipe.keys()
    again = preprocess(given.replace(dask=None), keep_if_same=True)
    assert again.version == built.version
    assert update(tmp_path / "s").version == built.version


# --- what may happen meanwhile --------------------------------------------------------------------


def test_a_worker_that_is_killed_is_done_without(
    city: Path, shared_cluster: tuple[str, Client], tmp_path: Path
) -> None:
    dask, client = shared_cluster
    begun, sign = tmp_path / "begun", tmp_path / "sign"
    killed: list[int] = []

    def kill() -> None:
        killed.append(int(until(begun)))
        sign.write_text("go on")
        os.kill(killed[0], signal.SIGKILL)

    with on_workers(client, wait_for, str(sign), str(begun), 2):
        killing = Thread(target=kill)
        killing.start()
        many = preprocess(settings_of(city, tmp_path / "many", dask=dask))
        killing.join()
    check_same(many, preprocess(settings_of(city, tmp_path / "one")))
    assert killed
    client.wait_for_workers(2, timeout=30)


def test_a_scheduler_that_is_killed_at_once_leaves_a_place_to_begin_anew(
    city: Path, tmp_path: Path
) -> None:
    begun, sign = tmp_path / "begun", tmp_path / "sign"
    given = settings_of(city, tmp_path / "many")
    with running_cluster(1) as (address, client):
        client.run(wait_for, str(sign), str(begun), 0)
        killing = Thread(target=lambda: (until(begun), client.shutdown()))
        killing.start()
        with pytest.raises(ClusterUnreachableError, match=r"went away\. Nothing is kept: run"):
            preprocess(given.replace(dask=address))
        killing.join()
    check_same(preprocess(given), preprocess(given.replace(store=tmp_path / "one")))


@pytest.mark.parametrize("resume_on", ["one process", "another cluster"])
def test_a_scheduler_that_is_killed_is_an_error_and_resume_finishes(
    resume_on: str, city: Path, dask: str, tmp_path: Path
) -> None:
    begun, sign = tmp_path / "begun", tmp_path / "sign"
    store = tmp_path / "many"
    with running_cluster(1) as (address, client):
        client.run(wait_for, str(sign), str(begun), 2)
        killing = Thread(target=lambda: (until(begun), client.shutdown()))
        killing.start()
        started = time.monotonic()
        with pytest.raises(
            ClusterUnreachableError,
            match=r"went away\. [12] days are kept\. .*--resume, on this or another cluster, or",
        ):
            preprocess(settings_of(city, store, dask=address))
        assert time.monotonic() - started < 25
        killing.join()
    finish = settings_of(city, store, resume=True)
    finish = finish.replace(dask=dask) if resume_on == "another cluster" else finish
    check_same(preprocess(finish), preprocess(settings_of(city, tmp_path / "one")))
    assert len(open_store(store).versions()) == 1


def test_days_that_one_process_made_safe_are_not_gathered_by_a_cluster(
    city: Path,
    shared_cluster: tuple[str, Client],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dask, client = shared_cluster
    stop_at(monkeypatch, 4)
    given = settings_of(city, tmp_path / "many")
    with pytest.raises(SourceError, match="as told"):
        preprocess(given)
    monkeypatch.undo()
    monkeypatch.setattr("flowpatch.store.arrays.BLOCK_BYTES", 1)
    monkeypatch.setattr(stretches, "GATHER_BYTES", 1)
    with on_workers(client, refuse_before, 3):
        many = preprocess(given.replace(resume=True, dask=dask))
    check_same(many, preprocess(settings_of(city, tmp_path / "one")))


def stop_at(monkeypatch: pytest.MonkeyPatch, day: int) -> None:
    gather = stretches.gather_stretch

    def refusing(gathering: Any, axis: Any, scatter: Any, first: int, *rest: Any) -> Any:
        if first >= day * axis.steps_a_day:
            raise SourceError("as told")
        return gather(gathering, axis, scatter, first, *rest)

    monkeypatch.setattr(stretches, "gather_stretch", refusing)


def refuse_before(day: int) -> None:
    def refusing(gathering: Any, axis: Any, scatter: Any, first: int, *rest: Any) -> Any:
        if first < day * axis.steps_a_day:
            raise SourceError("this day is safe")
        return stretches.gather_stretch(gathering, axis, scatter, first, *rest)

    block_work.gather_stretch = refusing  # type: ignore[assignment]


def refuse_from(day: int) -> None:
    def refusing(gathering: Any, axis: Any, scatter: Any, first: int, *rest: Any) -> Any:
        if first >= day * axis.steps_a_day:
            raise SourceError("as told")
        return stretches.gather_stretch(gathering, axis, scatter, first, *rest)

    block_work.gather_stretch = refusing  # type: ignore[assignment]


def test_one_process_goes_on_with_what_a_cluster_kept(
    city: Path,
    shared_cluster: tuple[str, Client],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dask, client = shared_cluster
    given = settings_of(city, tmp_path / "many")
    with (
        on_workers(client, refuse_from, 5),
        pytest.raises(SourceError, match="as told") as met,
    ):
        preprocess(given.replace(dask=dask))
    assert str(met.value) == "as told"
    gathered: list[int] = []
    gather = stretches.gather_stretch
    monkeypatch.setattr(
        stretches, "gather_stretch", lambda *given: gathered.append(given[3]) or gather(*given)
    )
    many = preprocess(given.replace(resume=True))
    assert min(gathered) >= 3 * STEPS, "days that are safe are not gathered again"
    check_same(many, preprocess(settings_of(city, tmp_path / "one")))


def test_damage_of_safe_days_is_found_by_workers(
    city: Path,
    shared_cluster: tuple[str, Client],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dask, client = shared_cluster
    given = settings_of(city, tmp_path / "many", dask=dask)
    with on_workers(client, refuse_from, 5), pytest.raises(SourceError):
        preprocess(given)
    known = stretches.StoreWriter.is_safe
    monkeypatch.setattr(
        stretches.StoreWriter, "is_safe", lambda self, *steps: damage(self) or known(self, *steps)
    )
    with pytest.raises(StoreDraftError, match=r"day 1 is not what was written.*without --resume"):
        preprocess(given.replace(resume=True))


def damage(writer: Any) -> None:
    writer._safe.day_hashes[0] = "another"


COMMAND = """
import sys
from flowpatch.cli import entry
from flowpatch.preprocessing import stretches
from flowpatch.store import arrays

stretches.GATHER_BYTES = arrays.BLOCK_BYTES = 1
if __name__ == "__main__":
    entry()
"""


@contextmanager
def command(folder: Path, city: Path, store: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """The command as it is typed in a terminal: all its processes are one group."""
    program = folder / "command.py"
    program.write_text(COMMAND)
    given = [
        "preprocess", "--records", str(city / "records"), "--nodes", str(city / "nodes.csv"),
        "--node-columns", "sensor_id", "--step-minutes", "30", "--null-value=-1",
        "--store", str(store), *more,
    ]  # fmt: skip
    started = subprocess.Popen(
        [sys.executable, str(program), *given],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    with started:
        try:
            yield started
        finally:
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)


def wait_for_snapshots(store: Path, count: int) -> None:
    """Waits until something was made safe: of an empty repository there are two."""
    end = time.monotonic() + 60
    while len(list(store.glob("snapshots/*"))) < count:
        assert time.monotonic() < end
        time.sleep(0.005)


def check_gone(group: int) -> None:
    """No process of the command is left."""
    end = time.monotonic() + 20
    with suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.killpg(group, 0)
            time.sleep(0.05)
        pytest.fail("processes are left")


@pytest.fixture(scope="module")
def long_city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_city(tmp_path_factory.mktemp("city"), range(25))


def test_ctrl_c_keeps_what_is_safe_and_one_process_goes_on(long_city: Path, tmp_path: Path) -> None:
    store = tmp_path / "many"
    with command(tmp_path, long_city, store, "--workers", "2") as running:
        wait_for_snapshots(store, 4)
        os.killpg(running.pid, signal.SIGINT)
        out, said = running.communicate(timeout=60)
        check_gone(running.pid)
    assert (running.returncode, out) == (130, "")
    counted, stopped = said.splitlines()
    assert counted.endswith("25 days from 2025-03-03, 1,200 steps")
    kept = re.fullmatch(r"Stopped; (\d+) days are kept\. Go on .*: .* with --resume\.", stopped)
    assert kept
    assert 2 <= int(kept[1]) < 25
    many = preprocess(settings_of(long_city, store, resume=True))
    check_same(many, preprocess(settings_of(long_city, tmp_path / "one")))


def test_killed_a_command_leaves_no_process_and_a_cluster_goes_on(
    long_city: Path, dask: str, tmp_path: Path
) -> None:
    store = tmp_path / "many"
    with command(tmp_path, long_city, store, "--workers", "2") as running:
        wait_for_snapshots(store, 4)
        running.kill()
        running.wait(timeout=30)
        check_gone(running.pid)
    many = preprocess(settings_of(long_city, store, resume=True, dask=dask))
    check_same(many, preprocess(settings_of(long_city, tmp_path / "one")))


# --- refusals -------------------------------------------------------------------------------------


def test_bad_records_are_told_by_the_error_of_a_build_and_nothing_is_left(
    dask: str, tmp_path: Path
) -> None:
    folder = write_city(tmp_path / "city", range(4))
    huge = table(2).slice(0, 2).set_column(2, "flow_label", pa.array([3e38, 3e38], pa.float64()))
    for name in ("huge", "huge too"):
        pq.write_table(huge, folder / "records" / f"{name}.parquet")
    errors = []
    for changes in ({}, {"dask": dask}):
        with pytest.raises(RecordError) as met:
            preprocess(settings_of(folder, tmp_path / "s", aggregate="sum", **changes))
        errors.append(str(met.value))
        assert not (tmp_path / "s").exists()
    assert errors[0] == errors[1]
    assert "too large for a float32" in errors[0]


def test_a_scheduler_that_is_not_there(
    city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 1.0)
    with pytest.raises(ClusterUnreachableError, match=r"tcp://127\.0\.0\.1:9 .*Check --dask"):
        preprocess(settings_of(city, tmp_path / "s", dask="tcp://127.0.0.1:9"))
    assert list(tmp_path.iterdir()) == []


def test_a_scheduler_without_workers(
    city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 1.0)
    with (
        running_cluster(0) as (address, _),
        pytest.raises(ClusterUnreachableError, match=r"has no worker\. Start one.*dask worker"),
    ):
        preprocess(settings_of(city, tmp_path / "s", dask=address))
    assert list(tmp_path.iterdir()) == []


def test_workers_that_vanish_for_good(
    city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "GONE_S", 1.0)
    monkeypatch.setattr(cluster, "COUNT_S", 0.2)
    begun, sign = tmp_path / "begun", tmp_path / "sign"
    with running_cluster(1) as (address, client):
        client.run(wait_for, str(sign), str(begun), 2)

        def retire() -> None:
            until(begun)
            client.cluster.scale(0)
            sign.write_text("go on")

        retiring = Thread(target=retire)
        retiring.start()
        with pytest.raises(ClusterUnreachableError, match=r"has had no worker for 1 seconds\. \d"):
            preprocess(settings_of(city, tmp_path / "s", dask=address))
        retiring.join()


@pytest.mark.parametrize("package", block_work.SAME_VERSIONS)
def test_workers_of_another_version(
    package: str, city: Path, dask: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = block_work.installed_version
    monkeypatch.setattr(
        spreading, "installed_version", lambda name: "9.9" if name == package else installed(name)
    )
    with pytest.raises(
        UnfitWorkerError, match=rf"worker tcp://.* has {package} .*this command 9\.9\. .*\[dask\]"
    ):
        preprocess(settings_of(city, tmp_path / "s", dask=dask))
    assert list(tmp_path.iterdir()) == []


def test_workers_that_see_other_records(
    city: Path, dask: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = block_work.Needs
    monkeypatch.setattr(
        spreading,
        "Needs",
        lambda versions, files, paths: needs(versions, (("/not/there.parquet", 1),), paths),
    )
    with pytest.raises(UnfitWorkerError, match=r"cannot see the records '/not/there.parquet'"):
        preprocess(settings_of(city, tmp_path / "s", dask=dask))
    assert list(tmp_path.iterdir()) == []


def test_what_a_worker_lacks(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("12345")
    needs = block_work.Needs({}, ((str(tmp_path / "r.csv"), 5),), (str(tmp_path / "r.csv"),))
    assert needs.lacking() is None
    for changes, said in (
        ({"versions": {"no-such-package": "1"}}, "has no-such-package not at all"),
        ({"files": ((str(tmp_path / "r.csv"), 6),)}, "with 5 bytes, which has 6 here"),
        ({"files": ((str(tmp_path / "x.csv"), 6),)}, "No such file"),
        ({"paths": (str(tmp_path / "x" / "sign"),)}, f"cannot see the folder '{tmp_path / 'x'}'"),
    ):
        assert said in str(replace(needs, **changes).lacking())


def test_a_worker_that_joins_late_is_looked_at_too(
    city: Path, dask: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.Cluster, "check", lambda *_: None)
    monkeypatch.setattr(spreading, "installed_version", lambda _: "9.9")
    with pytest.raises(UnfitWorkerError, match=r"A worker has flowpatch"):
        preprocess(settings_of(city, tmp_path / "s", dask=dask))


def nothing() -> None:
    pass


def crash(_item: int, _threads: int) -> None:
    os._exit(1)


def test_work_that_brings_down_every_worker_is_given_up() -> None:
    with running_cluster(1) as (address, client):
        found = cluster.Cluster(client, "The cluster")
        with pytest.raises(ClusterError, match=r"brought down one worker after another.*memory"):
            list(found.work_off(crash, [1], nothing, nothing))
        assert address


def test_without_dask_it_is_told_what_brings_it(
    city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtraError, match=r"'distributed'.*pip install 'flowpatch\[dask\]'"):
        preprocess(settings_of(city, tmp_path / "s", workers=2))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dask": "tcp://h:8786", "workers": 2}, "exclude each other"),
        ({"dask": "h:8786"}, "no address of a Dask scheduler. Give one such as tcp://sch"),
        ({"dask": "tcp://h"}, "no address"),
        ({"dask": "tcp://h:port"}, "no address"),
        ({"dask": ""}, "no address"),
        ({"workers": 0}, "workers"),
        ({"workers": 65}, "workers"),
        (
            {"dask": "tcp://h:8786", "records": "odps://p/t", "nodes": "odps://p/n"},
            "--dask builds from files",
        ),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=said):
        settings_of(tmp_path, tmp_path / "s", **changes)


def test_one_worker_is_one_process(tmp_path: Path) -> None:
    assert not settings_of(tmp_path, tmp_path / "s", workers=1).on_cluster
    assert settings_of(tmp_path, tmp_path / "s", workers=2).on_cluster
    there = {"records": "odps://p/t", "nodes": "odps://p/n"}
    assert not settings_of(tmp_path, tmp_path / "s", workers=2, **there).on_cluster


# --- everything with everything -------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.parametrize("aggregate", ["mean", "sum", "max", "last"])
@pytest.mark.parametrize("as_csv", [False, True])
@pytest.mark.parametrize("days_a_block", [1, 4])
@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_every_kind_of_build_stopped_and_finished_by_any_mixture(
    aggregate: str,
    as_csv: bool,
    days_a_block: int,
    place: str,
    tmp_path: Path,
    remote: Remote,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A cluster that has the keys of the bucket; each build begins on it or without it."""
    monkeypatch.setattr("flowpatch.store.arrays.BLOCK_BYTES", days_a_block * 4 * NODES * STEPS)
    folder = write_city(tmp_path / "city", range(12), as_csv=as_csv)
    given = settings_of(folder, tmp_path / "one", aggregate=aggregate)
    one = preprocess(given)
    with running_cluster() as (dask, client):
        for begun_on, ended_on in ((dask, None), (None, dask), (dask, dask)):
            name = f"{begun_on is None}-{ended_on is None}"
            store = tmp_path / name if place == "folder" else remote.address(name)
            many = given.replace(store=store)
            with monkeypatch.context() as patched, on_workers(client, refuse_from, 8):
                stop_at(patched, 8)
                with pytest.raises(SourceError, match="as told"):
                    preprocess(many.replace(dask=begun_on))
            check_same(preprocess(many.replace(dask=ended_on, resume=True)), one)
