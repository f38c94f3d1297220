"""Several processes: the curve and the scores of one, whatever happens to any of them."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest

import several_processes
from flowpatch.model.settings import ModelSettings
from flowpatch.store.sample_store import open_store
from flowpatch.training.evaluation import evaluate
from flowpatch.training.run_folder import RunFolder
from flowpatch.training.runs import resume, train
from flowpatch.training.settings import TrainSettings
from several_processes import BATCH_SIZES, Ended, accelerate, everything_streamed, torchrun

MODEL = {"layers": 1, "input_dims": 8, "node_dims": 4, "tod_dims": 2, "dow_dims": 2, "dropout": 0.3}
TRAINING = {
    "max_epoch": 3,
    # 133 training windows: no share is equal, and the last batch of an epoch is of one window.
    "batch_size": 11,
    "learning_rate": 0.01,
    "log_every": 2,
    "device": "cpu",
    "precision": "no",
}
TOLERANCE = 1e-5
"""Relative: in float32 a sum depends on its order, and so a loss on who adds up what."""
FLAGS = [
    part
    for name, value in {**MODEL, **TRAINING}.items()
    for part in (f"--{name.replace('_', '-')}", value)
]


def assert_same_curve(run: Path, expected: Path) -> None:
    """Row by row, none twice."""
    found, rows = RunFolder(run).rows(), RunFolder(expected).rows()
    for one, other in zip(found, rows, strict=True):
        assert one.pop("kind") == other.pop("kind")
        one.pop("seconds", None), other.pop("seconds", None)
        assert one == pytest.approx(other, rel=TOLERANCE)


@pytest.fixture(scope="module")
def alone(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    run = tmp_path_factory.mktemp("alone") / "run"
    train(open_store(small_store), run, ModelSettings(**MODEL), TrainSettings(**TRAINING))
    return run


@pytest.fixture(scope="module")
def four(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended, list]:
    """The run of four processes, how they ended, and what each of them saw."""
    folder = tmp_path_factory.mktemp("four")
    (folder / "settings.json").write_text(json.dumps([MODEL, TRAINING]))
    script = [several_processes.__file__, small_store, folder / "run", folder]
    ended = torchrun(4, script).wait()
    assert ended.code == 0, ended.err
    saw = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(4)]
    return folder / "run", ended, saw


def test_four_processes_learn_what_one_learns(alone: Path, four: tuple) -> None:
    run, _, saw = four
    assert_same_curve(run, alone)
    # All of them know it, to the last digit, as all of them decide by it.
    best = RunFolder(run).load("best").progress.best_val_mae
    assert [one["best_val_mae"] for one in saw] == [best] * 4


def test_four_processes_score_what_one_scores_to_the_last_digit(four: tuple) -> None:
    run, _, saw = four
    for place, batch_size in enumerate(BATCH_SIZES):
        expected = evaluate(run, batch_size=batch_size, device="cpu").to_json()
        assert [one["scores"][place] for one in saw] == [expected] * 4


def test_four_processes_that_stream_learn_what_one_does_and_share_its_reads(
    small_store: Path, four: tuple, tmp_path: Path
) -> None:
    run, _, saw = four
    with everything_streamed() as blocks:
        alone = tmp_path / "run"
        train(open_store(small_store), alone, ModelSettings(**MODEL), TrainSettings(**TRAINING))
    assert_same_curve(run.parent / "streamed", alone)
    # Each by itself would read as many.
    assert sum(one["blocks read"] for one in saw) < 2 * len(blocks)


def test_only_the_main_process_writes_and_speaks(four: tuple) -> None:
    run, ended, _ = four
    assert len(list((run / "tensorboard").iterdir())) == 1
    # Once for each of two trainings, and once for every evaluation.
    places = [line for line in ended.said if line.startswith("The series (")]
    assert len(places) == 2 + len(BATCH_SIZES)
    said = [line for line in ended.said if line not in places]
    assert [line.split()[:2] for line in said] == 2 * [
        ["PatchSTG,", said[0].split()[1]],
        ["epoch", "1/3"],
        ["epoch", "2/3"],
        ["epoch", "3/3"],
        ["best", "validation"],
    ]
    assert "with 4 processes" in said[0]


def test_what_one_process_meets_all_raise(four: tuple) -> None:
    _, _, saw = four
    assert {one["met by one"] for one in saw} == {"met by the last one"}
    (message,) = {one["too small a batch"] for one in saw}
    assert "4 processes cannot share a batch of 3 windows" in message


def test_the_processes_of_a_machine_share_the_series(four: tuple) -> None:
    _, _, saw = four
    assert [one["same input"] for one in saw] == [True] * 4
    assert [one["written by the first"] for one in saw] == [1234.5] * 4
    # The series, the prepared input, and how much of it a window may not show; none has a name
    # that a killed process could leave behind.
    assert [one["memory"] for one in saw] == [3] * 4


def test_the_first_process_of_a_machine_fetches_for_the_others(four: tuple) -> None:
    _, _, saw = four
    assert [one["fetched"] for one in saw] == [[[0], True], *[[[], True]] * 3]


def test_a_run_goes_on_with_another_number_of_processes_whatever_ended_it(
    alone: Path, small_store: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = ["-m", "flowpatch", "train"]
    two = torchrun(2, [*command, small_store, "--run-folder", run, *FLAGS])
    two.wait_for_rows(run, 3)
    two.send(signal.SIGKILL, rank=1)
    killed = two.wait()
    assert killed.code != 0
    assert killed.out == ""
    (message,) = [line for line in killed.said if line.startswith("error: ")]
    assert "A process of this training has ended" in message
    assert f"flowpatch train --resume {run}" in message

    done = RunFolder(run).load("last").progress.step
    assert done >= 5
    three = torchrun(3, [*command, "--resume", run])
    three.wait_for_rows(run, done // 2 + 4)
    three.send(signal.SIGTERM, rank=2)
    stopped = three.wait()
    assert [line for line in stopped.said if "nothing is lost" in line], stopped.err
    assert not [line for line in stopped.said if "error: " in line]

    assert done < RunFolder(run).load("last").progress.step < 39
    resume(run)
    assert_same_curve(run, alone)


def test_accelerate_launches_an_evaluation_that_is_told_once(alone: Path, tmp_path: Path) -> None:
    place = tmp_path / "scores.json"
    command = ["-m", "flowpatch", "evaluate", alone, "--device", "cpu", "--json", "--out", place]
    ended = accelerate(2, command).wait()
    assert ended.code == 0, ended.err
    expected = evaluate(alone, device="cpu").to_json()
    assert json.loads(ended.out) == json.loads(place.read_text()) == expected


def test_a_bad_command_is_told_once_and_leaves_nothing(small_store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    bad = ["-m", "flowpatch", "train", small_store, "--run-folder", run, "--batch-size", "1"]
    ended = torchrun(2, bad).wait()
    assert ended.code != 0
    assert [line for line in ended.said if line.startswith("error: ")] == [
        "error: 2 processes cannot share a batch of 1 windows. Start at most 1, or give a "
        "--batch-size of 2 or more: it counts the windows of all processes together."
    ]
    assert not run.exists()


@pytest.mark.soak
@pytest.mark.parametrize("processes", [2, 3, 5])
@pytest.mark.parametrize(
    ("victim", "number"),
    [
        (0, signal.SIGKILL),
        (1, signal.SIGKILL),
        (0, signal.SIGTERM),
        (1, signal.SIGINT),
        (None, signal.SIGINT),
        (None, signal.SIGTERM),
    ],
)
def test_a_storm_of_ends(
    alone: Path,
    small_store: Path,
    tmp_path: Path,
    processes: int,
    victim: int | None,
    number: signal.Signals,
) -> None:
    run, seed = tmp_path / "run", processes + 10 * (victim or 7) + 100 * number
    rows = int(np.random.default_rng(seed).integers(1, 18))
    begin = ["-m", "flowpatch", "train", small_store, "--run-folder", run, *FLAGS]
    launched = torchrun(processes, begin)
    launched.wait_for_rows(run, rows)
    launched.send(number, victim)
    ended = launched.wait()
    told = [line for line in ended.said if f"--resume {run}" in line]
    assert len(told) == 1, ended.err
    again = torchrun(processes - 1, ["-m", "flowpatch", "train", "--resume", run]).wait()
    assert again.code == 0, again.err
    assert_same_curve(run, alone)
