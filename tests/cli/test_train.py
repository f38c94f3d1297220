"""`flowpatch train`: a run from a store, gone on with, or refused without a trace."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flowpatch.training.run_folder import RunFolder


def test_it_prints_the_run_and_says_the_rest_elsewhere(
    command: Any, built: Path, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    run = tmp_path / "杭 州" / "a'b"
    outcome = command("train", built, "--run", run, *tiny, "--max_epoch", "1", "--seed", "3")
    assert (outcome.code, outcome.out) == (0, f"{run}\n"), outcome.err
    assert "epoch 1/1" in outcome.err
    assert "flowpatch evaluate" in outcome.err
    checkpoint = RunFolder(run).load("best")
    assert (checkpoint.train_settings.seed, checkpoint.model_settings.layers) == (3, 1)
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows if row["kind"] == "epoch"] == [1]


def test_without_a_name_a_run_gets_one_from_its_store(
    command: Any, built: Path, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = command("train", built, *tiny, "--max-epoch", "1")
    (run,) = (tmp_path / "runs").iterdir()
    assert outcome.out == f"runs/{run.name}\n"
    assert run.name.startswith("city-20")


def test_a_run_goes_on_for_more_epochs(command: Any, trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    outcome = command("train", "--resume", run, "--max-epoch", "2")
    assert (outcome.code, outcome.out) == (0, f"{run}\n"), outcome.err
    assert RunFolder(run).load("last").progress.epoch == 2


def test_it_trains_on_the_version_that_is_asked_for(
    command: Any, built: Path, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    versions = json.loads(command("inspect", built, "--json").out)["versions"]
    oldest = versions[-1]["version"]
    command(
        "train", built, "--store-version", oldest, "--run", tmp_path / "r", *tiny,
        "--max-epoch", "1",
    )  # fmt: skip
    assert RunFolder(tmp_path / "r").load("best").store.version == oldest


REFUSALS: dict[str, tuple[int, list[str], list[str]]] = {
    "no store named": (2, ["--run", "RUN"], ["flowpatch train STORE", "--resume"]),
    "no such store": (1, ["/no/store", "--run", "RUN"], ["'/no/store'", "flowpatch preprocess"]),
    "a run for a store": (1, ["TRAINED", "--run", "RUN"], ["is no sample store"]),
    "newer store": (1, ["NEWER", "--run", "RUN"], ["99", "pip install --upgrade"]),
    "no such version": (
        1, ["BUILT", "--store-version", "nope", "--run", "RUN"], ["'nope'", "Versions there"]),
    "a run that exists": (1, ["BUILT", "--run", "TRAINED"], ["is not empty", "--resume"]),
    "more leaves than nodes": (
        1, ["BUILT", "--run", "RUN", "--layout", "paper", "--depth", "5"],
        ["--depth 5", "12 nodes", "0..3"]),
    "more patches than nodes": (1, ["BUILT", "--run", "RUN", "--factors", "13"], ["13", "12"]),
    "flags of the other layout": (
        2, ["BUILT", "--run", "RUN", "--depth", "2"], ["--depth", "--layout paper"]),
    "temporal patches": (
        2, ["BUILT", "--run", "RUN", "--temporal-patch-size", "5"], ["5", "1, 2, 3, 4, 6, 12"]),
    "no window": (1, ["BUILT", "--run", "RUN", "--output-len", "49"], ["'val'", "49"]),
    "a window longer than the period": (
        1, ["BUILT", "--run", "RUN", "--input-len", "300"], ["300", "--input-len"]),
    "device": (2, ["BUILT", "--run", "RUN", "--device", "tpu"], ["'tpu'", "auto, cpu, cuda"]),
    "no such gpu": (2, ["BUILT", "--run", "RUN", "--device", "cuda:99"], ["'cuda:99'", "GPUs"]),
    "learning rate": (
        2, ["BUILT", "--run", "RUN", "--learning-rate", "0"], ["'0'", "learning_rate"]),
    "schedule": (2, ["BUILT", "--run", "RUN", "--schedule", "step"], ["'step'", "multistep"]),
    "dropout": (2, ["BUILT", "--run", "RUN", "--dropout", "1"], ["'1'", "dropout"]),
    "no such run": (1, ["--resume", "/no/run"], ["'/no/run'"]),
    "settings of a resumed run": (
        2, ["--resume", "TRAINED", "--layers", "2", "--batch-size", "4"],
        ["--batch-size, --layers", "--max-epoch, --device"]),
    "another run of a resumed run": (2, ["--resume", "TRAINED", "--run", "RUN"], ["--run"]),
    "another store of a resumed run": (
        1, ["SIMILAR", "--resume", "TRAINED", "--max-epoch", "2"], ["version"]),
}  # fmt: skip


@pytest.fixture(scope="session")
def similar(source_flags: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the same nodes that the run `trained` was not trained on."""
    from flowpatch.cli import main

    store = tmp_path_factory.mktemp("similar") / "s"
    with pytest.raises(SystemExit) as ended:
        main(["preprocess", *source_flags, "--store", str(store)])
    assert ended.value.code == 0
    return store


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_input_is_refused_and_leaves_no_run(
    name: str, command: Any, built: Path, trained: Path, newer: Path, similar: Path, tmp_path: Path
) -> None:
    code, given, words = REFUSALS[name]
    places = {
        "BUILT": built, "TRAINED": trained, "NEWER": newer, "SIMILAR": similar,
        "RUN": tmp_path / "run",
    }  # fmt: skip
    before = {file: file.stat().st_mtime_ns for file in trained.rglob("*")}
    outcome = command("train", *(places.get(part, part) for part in given))
    assert outcome.code == code, outcome.err
    assert [word for word in words if word not in outcome.error] == [], outcome.error
    assert list(tmp_path.iterdir()) == []
    assert {file: file.stat().st_mtime_ns for file in trained.rglob("*")} == before


@pytest.mark.parametrize("kind", ["truncated", "flipped", "empty", "replaced"])
def test_a_corrupt_checkpoint_is_refused(
    kind: str, command: Any, trained: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    file = run / "checkpoints" / "last.safetensors"
    content = file.read_bytes()
    middle = len(content) // 2
    file.write_bytes(
        {
            "truncated": content[:middle],
            "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "empty": b"",
            "replaced": b"not a checkpoint at all",
        }[kind]
    )
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    outcome = command("train", "--resume", run, "--max-epoch", "2")
    assert outcome.code == 1
    assert all(word in outcome.error for word in ("last.safetensors", "damaged", "'best'"))
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_one_settings_file_serves_a_run_and_its_resume(
    command: Any, small_store: Path, tmp_path: Path
) -> None:
    config, run = tmp_path / "city.toml", tmp_path / "run"
    config.write_text(
        f'[train]\nstore = "{small_store}"\nrun = "{run}"\nlayers = 1\nbatch_size = 8\n'
        'max_epoch = 1\ndevice = "cpu"\n'
    )
    assert command("train", "--config", config).code == 0
    resumed = command("train", "--config", config, "--resume", run, "--max-epoch", "2")
    assert resumed.code == 0, resumed.err
    assert "epoch 2/2" in resumed.err
    again = command("train", "--config", config, "--resume", run, "--max-epoch", "2")
    assert "Nothing to do: 2 epochs are done" in again.err
    other = command("train", "--config", config, "--resume", run, "--layers", "2")
    assert other.code == 2
    assert "leave out --layers" in other.error
