"""Runs: the same twice, and resumed as if they had never stopped."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from flowpatch.errors import (
    LayoutError,
    PeriodError,
    RunExistsError,
    RunMismatchError,
    RunNotFoundError,
    SettingsError,
    StoppedByUser,
    StoreNotFoundError,
    TrainingDivergedError,
)
from flowpatch.model.settings import ModelSettings
from flowpatch.preprocessing.build import preprocess
from flowpatch.preprocessing.settings import PreprocessSettings
from flowpatch.store.sample_store import open_store
from flowpatch.training.checkpoint import Checkpoint
from flowpatch.training.device import select_device
from flowpatch.training.run_folder import RunFolder
from flowpatch.training.runs import resume, train
from flowpatch.training.settings import TrainSettings
from tiny_runs import SHORT, TINY, curve, interrupt_after


@pytest.fixture(scope="module")
def whole_run(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody stopped."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    train(open_store(small_store), run, TINY, SHORT)
    return run


def test_a_run_learns(whole_run: Path) -> None:
    epochs = [row for row in RunFolder(whole_run).rows() if row["kind"] == "epoch"]
    assert [row["epoch"] for row in epochs] == [1, 2, 3]
    assert epochs[-1]["train_mae"] < 0.8 * epochs[0]["train_mae"]


def test_a_run_leaves_settings_checkpoints_and_events(whole_run: Path) -> None:
    settings = json.loads((whole_run / "settings.json").read_text())
    assert settings["training"]["batch_size"] == 8
    assert settings["store"]["version"] == RunFolder(whole_run).load("best").store.version
    assert {path.name for path in (whole_run / "checkpoints").iterdir()} == {
        "best.safetensors",
        "last.safetensors",
    }
    assert list((whole_run / "tensorboard").glob("events.*"))


def test_a_run_in_parts_says_so_and_learns_the_same(
    small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = TINY.replace(dropout=0.0)
    settings = SHORT.replace(max_epoch=1, precision="no")
    losses = []
    for micro_batch in (None, 3):
        run = tmp_path / str(micro_batch)
        train(open_store(small_store), run, model, settings.replace(micro_batch=micro_batch))
        said = capsys.readouterr().err
        assert ("8 windows of a step go through the model 3 at a time" in said) == bool(micro_batch)
        losses.append([row["loss"] for row in RunFolder(run).rows() if row["kind"] == "step"])
    assert losses[0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_the_same_run_twice_gives_the_same_curve_and_weights(
    small_store: Path, whole_run: Path, tmp_path: Path
) -> None:
    train(open_store(small_store), tmp_path / "again", TINY, SHORT)
    assert curve(tmp_path / "again") == curve(whole_run)
    first, second = (RunFolder(run).load("last").weights for run in (whole_run, tmp_path / "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_seed_gives_another_curve(
    small_store: Path, whole_run: Path, tmp_path: Path
) -> None:
    other = TrainSettings(**{**SHORT.model_dump(), "seed": 2})
    train(open_store(small_store), tmp_path / "other", TINY, other)
    assert curve(tmp_path / "other") != curve(whole_run)


@pytest.mark.parametrize("rows", [1, 5, 9, 14])
def test_a_run_stopped_by_ctrl_c_goes_on_as_if_it_never_stopped(
    small_store: Path, whole_run: Path, tmp_path: Path, rows: int
) -> None:
    run = tmp_path / "stopped"
    thread = interrupt_after(run, rows)
    with pytest.raises(StoppedByUser, match="--resume"):
        train(open_store(small_store), run, TINY, SHORT)
    thread.join()
    assert len(RunFolder(run).rows()) < len(RunFolder(whole_run).rows())
    resume(run)
    assert curve(run) == curve(whole_run)
    best, whole = RunFolder(run).load("best"), RunFolder(whole_run).load("best")
    assert all(torch.equal(best.weights[name], whole.weights[name]) for name in best.weights)


def test_dropout_draws_the_same_after_a_resume(small_store: Path, tmp_path: Path) -> None:
    # The other tests would pass without the random state if dropout were off.
    model = ModelSettings(**{**TINY.model_dump(), "dropout": 0.5})
    train(open_store(small_store), tmp_path / "whole", model, SHORT)
    thread = interrupt_after(tmp_path / "stopped", 3)
    with pytest.raises(StoppedByUser):
        train(open_store(small_store), tmp_path / "stopped", model, SHORT)
    thread.join()
    # Whatever else draws numbers between stop and resume must not matter.
    torch.rand(1000)
    resume(tmp_path / "stopped")
    assert curve(tmp_path / "stopped") == curve(tmp_path / "whole")


def test_a_killed_run_goes_on_from_its_last_checkpoint(
    small_store: Path, whole_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    code = (
        "import sys; from flowpatch.store.sample_store import open_store;"
        "from flowpatch.training.runs import train;"
        "from flowpatch.model.settings import ModelSettings as M;"
        "from flowpatch.training.settings import TrainSettings as T;"
        f"train(open_store({str(small_store)!r}), {str(run)!r}, M(**{TINY.model_dump()!r}),"
        f" T(**{SHORT.model_dump()!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 90
    while not any(row["kind"] == "epoch" for row in RunFolder(run).rows()):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.002)
    process.kill()
    process.wait()
    resume(run)
    assert curve(run) == curve(whole_run)


def test_a_resumed_run_may_take_more_epochs(whole_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "longer"
    shutil.copytree(whole_run, run)
    resume(run, max_epoch=4)
    epochs = [row["epoch"] for row in RunFolder(run).rows() if row["kind"] == "epoch"]
    assert epochs == [1, 2, 3, 4]
    assert curve(run)[: len(curve(whole_run))] == curve(whole_run)


def test_a_finished_run_resumed_is_left_as_it_is(whole_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "finished"
    shutil.copytree(whole_run, run)
    resume(run)
    assert curve(run) == curve(whole_run)


def test_training_reads_the_version_it_began_with(
    small_city: Path, small_store: Path, tmp_path: Path
) -> None:
    store = tmp_path / "city.store"
    shutil.copytree(small_store, store)
    began = open_store(store)
    thread = interrupt_after(tmp_path / "run", 2)
    with pytest.raises(StoppedByUser):
        train(began, tmp_path / "run", TINY, SHORT)
    thread.join()
    recipe = began.manifest.recipe
    newer = preprocess(
        PreprocessSettings(**{**recipe, "aggregate": "max", "store": store, "overwrite": True})
    )
    assert newer.version != began.version
    assert resume(tmp_path / "run").store.version == began.version


def test_a_moved_store_is_named_on_resume(
    small_store: Path, whole_run: Path, tmp_path: Path
) -> None:
    run, moved = tmp_path / "run", tmp_path / "moved.store"
    shutil.copytree(small_store, tmp_path / "city.store")
    train(open_store(tmp_path / "city.store"), run, TINY, SHORT)
    (tmp_path / "city.store").rename(moved)
    with pytest.raises(StoreNotFoundError, match=r"city\.store'. If it was moved, .*--resume"):
        resume(run, max_epoch=4)
    assert resume(run, store_path=moved, max_epoch=4).progress.epoch <= 4


def test_another_store_is_refused_on_resume(
    small_city: Path, whole_run: Path, tmp_path: Path
) -> None:
    other = preprocess(
        PreprocessSettings(
            records=str(small_city / "records.parquet"),
            nodes=str(small_city / "nodes.csv"),
            node_columns="sensor_id",
            step_minutes=60,
            input_len=4,
            output_len=2,
            store=tmp_path / "other.store",
        )
    )
    with pytest.raises((RunMismatchError, StoreNotFoundError)):
        resume(whole_run, store_path=other.path)


def test_a_checkpoint_refuses_other_nodes_and_steps(
    small_city: Path, small_store: Path, whole_run: Path, tmp_path: Path
) -> None:
    trained = RunFolder(whole_run).load("best")
    trained.check_store(open_store(small_store))
    lines = (small_city / "nodes.csv").read_text().splitlines()
    (tmp_path / "fewer.csv").write_text("\n".join(lines[:-1]) + "\n")
    settings = {
        "records": str(small_city / "records.parquet"),
        "node_columns": "sensor_id",
        "max_dropped_share": 0.2,
        "input_len": 4,
        "output_len": 2,
    }
    fewer = preprocess(
        PreprocessSettings(
            **settings, nodes=str(tmp_path / "fewer.csv"), step_minutes=30, store=tmp_path / "a"
        )
    )
    with pytest.raises(RunMismatchError, match="11 nodes"):
        trained.check_store(fewer)
    coarser = preprocess(
        PreprocessSettings(
            **settings, nodes=str(small_city / "nodes.csv"), step_minutes=60, store=tmp_path / "b"
        )
    )
    with pytest.raises(RunMismatchError, match="60-minute"):
        trained.check_store(coarser)


def test_a_run_never_overwrites_another(small_store: Path, whole_run: Path) -> None:
    before = curve(whole_run)
    with pytest.raises(RunExistsError, match="--resume"):
        train(open_store(small_store), whole_run, TINY, SHORT)
    assert curve(whole_run) == before


@pytest.mark.parametrize(
    ("model", "training", "error", "message"),
    [
        ({"temporal_patch_size": 5}, {}, SettingsError, "1, 2, 4, 8"),
        ({"depth": 2}, {}, SettingsError, "--layout paper"),
        ({"factors": 13}, {}, LayoutError, r"1\.\.12"),
        ({"layout": "paper", "depth": 4}, {}, LayoutError, r"0\.\.3"),
        ({"layout": "paper", "factors": 3}, {}, LayoutError, "1, 2, 4"),
        ({}, {"input_len": 200}, PeriodError, "holds no window"),
        ({}, {"output_len": 60}, PeriodError, "holds no window"),
        ({}, {"device": "tpu"}, SettingsError, "auto, cpu, cuda"),
        ({}, {"device": "cuda:99"}, SettingsError, "GPUs"),
        ({}, {"precision": "fp16"}, SettingsError, "bf16 or no"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_folder_is_made(
    small_store: Path,
    tmp_path: Path,
    model: dict[str, object],
    training: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        train(
            open_store(small_store),
            tmp_path / "run",
            ModelSettings(**{**TINY.model_dump(), **model}),
            TrainSettings(**{**SHORT.model_dump(), **training}),
        )
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError, match="nowhere"):
        resume(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunNotFoundError, match="is no run"):
        resume(tmp_path / "empty")
    (tmp_path / "empty" / "settings.json").write_text("{}")
    with pytest.raises(RunNotFoundError, match="no checkpoint"):
        resume(tmp_path / "empty")


def test_a_loss_that_is_no_number_ends_the_run_with_advice(
    small_store: Path, tmp_path: Path
) -> None:
    wild = TrainSettings(
        **{**SHORT.model_dump(), "learning_rate": 1e30, "clip_norm": 0, "schedule": "constant"}
    )
    with pytest.raises(TrainingDivergedError, match="--learning-rate"):
        train(open_store(small_store), tmp_path / "run", TINY, wild)


def test_early_stopping_counts_epochs_without_gain(small_store: Path, tmp_path: Path) -> None:
    # A rate this small changes the weights by less than float32 holds: no epoch is ever better.
    still = TrainSettings(
        **{**SHORT.model_dump(), "learning_rate": 1e-30, "patience": 2, "max_epoch": 9}
    )
    trained = train(open_store(small_store), tmp_path / "run", TINY, still)
    epochs = [row for row in RunFolder(tmp_path / "run").rows() if row["kind"] == "epoch"]
    assert trained.progress.best_epoch == 1
    assert len(epochs) == 3


@pytest.mark.parametrize("layout", ["balanced", "paper"])
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_layouts_and_precisions_train(
    small_store: Path, tmp_path: Path, layout: str, precision: str
) -> None:
    model = ModelSettings(**{**TINY.model_dump(), "layout": layout})
    settings = TrainSettings(**{**SHORT.model_dump(), "precision": precision, "max_epoch": 1})
    trained = train(open_store(small_store), tmp_path / "run", model, settings)
    assert trained.layout.kind == layout
    assert trained.progress.best_val_mae is not None
    assert trained.progress.best_val_mae < 50


def test_output_may_be_longer_than_input(small_store: Path, tmp_path: Path) -> None:
    settings = TrainSettings(
        **{**SHORT.model_dump(), "input_len": 3, "output_len": 10, "max_epoch": 1}
    )
    trained = train(open_store(small_store), tmp_path / "run", TINY, settings)
    assert (trained.input_len, trained.output_len) == (3, 10)
    assert trained.weights["regression_conv.weight"].shape[0] == 10


def test_auto_takes_a_gpu_where_there_is_one() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert select_device("auto").type == expected


def test_the_best_checkpoint_is_that_of_the_lowest_validation_mae(whole_run: Path) -> None:
    epochs = [row for row in RunFolder(whole_run).rows() if row["kind"] == "epoch"]
    best = min(epochs, key=lambda row: row["val_mae"])
    checkpoint = Checkpoint.load(RunFolder(whole_run).checkpoint("best"))
    assert checkpoint.progress.best_epoch == best["epoch"]
    assert checkpoint.progress.best_val_mae == best["val_mae"]
    assert not checkpoint.resume


@pytest.mark.parametrize("silent", ["train", "val"])
def test_a_split_without_a_label_is_refused_rather_than_scored_0(
    small_city: Path, tmp_path: Path, silent: str
) -> None:
    # Three days of 24 hours: the silent split keeps values only where no label of it can be.
    hours = {"train": {0, 1, 2, *range(44, 72)}, "val": {*range(43), *range(57, 72)}}[silent]
    lines = [
        f"{node},2025-03-{3 + hour // 24:02} {hour % 24:02}:00:00,{hour}"
        for hour in sorted(hours)
        for node in (100, 101)
    ]
    (tmp_path / "r.csv").write_text("\n".join(["sensor_id,passts_time,flow_label", *lines]) + "\n")
    store = preprocess(
        PreprocessSettings(
            records=str(tmp_path / "r.csv"),
            nodes=str(small_city / "nodes.csv"),
            node_columns="sensor_id",
            step_minutes=60,
            input_len=3,
            output_len=1,
            store=tmp_path / "s",
        )
    )
    with pytest.raises(PeriodError, match=f"'{silent}' has no observed label"):
        train(store, tmp_path / "run", TINY, SHORT)
    assert not (tmp_path / "run").exists()
