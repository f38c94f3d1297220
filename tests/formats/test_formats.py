"""Stores and runs of every format ever released: opened, read, trained on, updated."""

import csv
import json
import math
import re
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from flowpatch.errors import CheckpointDamagedError, StoreFormatError
from flowpatch.preprocessing.build import preprocess
from flowpatch.preprocessing.settings import PreprocessSettings
from flowpatch.preprocessing.update import update
from flowpatch.sources import files
from flowpatch.store.manifest import FORMAT
from flowpatch.store.sample_store import open_store
from flowpatch.training import checkpoint as checkpoints
from flowpatch.training.checkpoint import Checkpoint
from flowpatch.training.evaluation import evaluate
from flowpatch.training.runs import resume
from growing_city import copy_of, recomputed_hash

HERE = Path(__file__).parent
STORES = sorted(path.name for path in HERE.glob("store-*"))
RUNS = sorted(path.name for path in HERE.glob("run-*"))
BUILT_IN = "/srv/city"
"""Where all of them were written; it need not be there."""
every_store = pytest.mark.parametrize("name", STORES)
every_run = pytest.mark.parametrize("name", RUNS)


def plain_series() -> np.ndarray:
    """The records by plain Python: hourly means of four nodes over six days."""
    found = defaultdict(list)
    with (HERE / "records.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            day, hour = int(row["passts_time"][8:10]) - 3, int(row["passts_time"][11:13])
            found[day * 24 + hour, int(row["sensor_id"]) - 10].append(float(row["flow_label"]))
    values = np.full((6 * 24, 4), np.nan, dtype=np.float32)
    for cell, several in found.items():
        values[cell] = math.fsum(several) / len(several)
    return values


def number_of(name: str) -> int:
    return int(name.split("-")[1])


@pytest.fixture
def city(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the records, also under the name that it had when the stores were built."""
    for name in ("records.csv", "nodes.csv"):
        shutil.copy(HERE / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    find = files.find_files
    monkeypatch.setattr(
        files, "find_files", lambda place, flag: find(place.replace(BUILT_IN, str(tmp_path)), flag)
    )
    return tmp_path


def test_every_format_up_to_todays_is_kept() -> None:
    assert {number_of(name) for name in STORES} == set(range(1, FORMAT + 1))
    assert {number_of(name) for name in RUNS} >= set(range(1, checkpoints.FORMAT + 1))


@every_store
def test_a_store_of_every_format_opens_with_its_values(name: str) -> None:
    store = open_store(HERE / name)
    assert store.manifest.format == number_of(name)
    np.testing.assert_array_equal(store.read(), plain_series())
    assert recomputed_hash(store) == store.manifest.content_hash
    assert store.nodes.keys[0].tolist() == [10, 11, 12, 13]
    assert store.nodes.latitude.tolist() == pytest.approx([56.0, 56.01, 56.02, 56.03])
    assert np.array_equal(store.observed_at, (~np.isnan(plain_series())).sum(axis=1))
    assert (store.ledger is None) == (store.manifest.format == 1)
    for info in store.versions():
        older = open_store(HERE / name, info.version)
        np.testing.assert_array_equal(older.read(), plain_series()[: older.axis.length])


@every_store
def test_nothing_of_the_machine_that_wrote_it_is_inside(name: str) -> None:
    recipe, source = (
        getattr(open_store(HERE / name).manifest, part) for part in ("recipe", "source")
    )
    told = json.dumps([recipe, source])
    for path in re.findall(r'"([^"]*\.csv)"', told):
        assert Path(path).parent in (Path(), Path(BUILT_IN)), path


@every_store
def test_a_store_of_every_format_is_updated_to_todays(name: str, city: Path) -> None:
    """By the sixth day again, corrected, and a seventh."""
    store = copy_of(HERE / name, city / name)
    before = open_store(store)
    with (city / "records.csv").open("a") as file:
        file.writelines(f"10,2025-03-0{day} 05:00:00,{day}\n" for day in (8, 9))
    updated = update(store)
    assert updated.manifest.format == FORMAT
    assert updated.manifest.parent == before.version
    assert updated.ledger is not None
    built = preprocess(
        PreprocessSettings(
            records="records.csv", nodes="nodes.csv", node_columns="sensor_id", step_minutes=60,
            input_len=4, output_len=2, store=city / "built",
        )
    )  # fmt: skip
    assert built.axis.days == 7
    np.testing.assert_array_equal(updated.read(), built.read())
    assert recomputed_hash(updated) == updated.manifest.content_hash == built.manifest.content_hash
    # The version before is still of its own format.
    assert open_store(store, before.version).manifest.format == number_of(name)
    np.testing.assert_array_equal(open_store(store, before.version).read(), plain_series())


def store_of(run: str) -> Path:
    return HERE / run.replace("run", "store")


@every_run
def test_a_run_of_every_format_trains_on(name: str, tmp_path: Path) -> None:
    run, store = copy_of(HERE / name, tmp_path / name), copy_of(store_of(name), tmp_path / "moved")
    before = Checkpoint.load(run / "checkpoints/last.safetensors")
    assert before.store.path.startswith(BUILT_IN)
    resume(run, store, max_epoch=2)
    after = Checkpoint.load(run / "checkpoints/last.safetensors")
    assert (before.progress.epoch, after.progress.epoch) == (1, 2)
    assert after.progress.step == 2 * before.progress.step
    assert any(
        not torch.equal(after.weights[name], tensor) for name, tensor in before.weights.items()
    )
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows if row["kind"] == "epoch"] == [1, 2]


@every_run
@pytest.mark.parametrize("which", ["best", "last"])
def test_a_run_of_every_format_is_evaluated(name: str, which: str, tmp_path: Path) -> None:
    store = copy_of(store_of(name), tmp_path / "moved")
    before = {path: path.read_bytes() for path in (HERE / name).rglob("*") if path.is_file()}
    val = evaluate(HERE / name, "val", which, store).tables["PatchSTG"].pooled
    logged = json.loads((HERE / name / "metrics.jsonl").read_text().splitlines()[-1])
    assert val.mae == pytest.approx(logged["val_mae"], rel=1e-5)
    assert {path: path.read_bytes() for path in before} == before


def test_a_store_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = copy_of(HERE / f"store-{FORMAT}", tmp_path / "s")
    repository = open_store(path)._repository._opened
    session = repository.writable_session("main")
    group = zarr.open_group(session.store, mode="a")
    manifest = {**group.attrs["flowpatch"], "format": FORMAT + 1, "code_version": "9.8.7"}
    group.attrs["flowpatch"] = manifest
    session.commit("newer", {"content_hash": "x"})
    with pytest.raises(
        StoreFormatError, match=rf"'{path}' has store format {FORMAT + 1}, .*9.8.7.*Up"
    ):
        open_store(path)
    with pytest.raises(StoreFormatError, match=r"9\.8\.7"):
        update(path)


def test_a_run_of_a_newer_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.safetensors"
    newer = checkpoints.FORMAT + 1
    with monkeypatch.context() as later:
        later.setattr(checkpoints, "FORMAT", newer)
        Checkpoint.load(HERE / RUNS[-1] / "checkpoints/last.safetensors").save(path)
    with pytest.raises(
        CheckpointDamagedError, match=f"'{path}' has checkpoint format {newer}.*Upgra"
    ):
        Checkpoint.load(path)
    assert [file.name for file in tmp_path.iterdir()] == ["last.safetensors"]
