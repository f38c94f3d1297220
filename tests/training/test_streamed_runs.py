"""Runs on a series that does not fit in memory: the same batches, resumed alike, within a limit."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_trainer import SHORT, TINY, curve, interrupt_after

from flowpatch.cli import main
from flowpatch.errors import MemoryLimitError, SettingsError, StoppedByUser
from flowpatch.forecasting import forecast
from flowpatch.store.sample_store import open_store
from flowpatch.training.evaluation import evaluate
from flowpatch.training.run_folder import RunFolder
from flowpatch.training.runs import resume, train
from flowpatch.windows.order import BlockOrder
from flowpatch.windows.residence import BlockPlan
from streamed_series import stream_everything

PLAN = BlockPlan(block_steps=9, held_blocks=6)
"""Of the 240 steps of the small store, less than half are held at a time."""


@pytest.fixture(scope="module")
def streamed_run(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A streamed run that nobody stopped."""
    run = tmp_path_factory.mktemp("runs") / "streamed"
    with pytest.MonkeyPatch.context() as patched:
        stream_everything(patched, PLAN)
        train(open_store(small_store), run, TINY, SHORT)
    return run


@pytest.fixture(scope="module")
def held_run(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in memory."""
    run = tmp_path_factory.mktemp("runs") / "held"
    train(open_store(small_store), run, TINY, SHORT)
    return run


def test_a_streamed_run_learns_in_an_order_of_its_own(streamed_run: Path, held_run: Path) -> None:
    epochs = [row for row in RunFolder(streamed_run).rows() if row["kind"] == "epoch"]
    assert epochs[-1]["train_mae"] < 0.8 * epochs[0]["train_mae"]
    assert RunFolder(streamed_run).load("last").order == BlockOrder(9, PLAN.mixed_blocks)
    assert RunFolder(held_run).load("last").order is None
    assert curve(streamed_run) != curve(held_run)


def test_the_same_streamed_run_twice_gives_the_same_curve(
    small_store: Path, streamed_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream_everything(monkeypatch, PLAN)
    train(open_store(small_store), tmp_path / "again", TINY, SHORT)
    assert curve(tmp_path / "again") == curve(streamed_run)


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("began", ["streamed", "in memory"])
@pytest.mark.parametrize("goes_on", ["streamed", "in memory"])
def test_a_run_keeps_its_order_wherever_it_goes_on(
    small_store: Path,
    streamed_run: Path,
    held_run: Path,
    tmp_path: Path,
    began: str,
    goes_on: str,
    rows: int,
) -> None:
    run = tmp_path / "stopped"
    thread = interrupt_after(run, rows)
    with pytest.MonkeyPatch.context() as patched:
        if began == "streamed":
            stream_everything(patched, PLAN)
        with pytest.raises(StoppedByUser):
            train(open_store(small_store), run, TINY, SHORT)
    thread.join()
    with pytest.MonkeyPatch.context() as patched:
        if goes_on == "streamed":
            stream_everything(patched, PLAN)
        resume(run)
    whole = streamed_run if began == "streamed" else held_run
    assert curve(run) == curve(whole)
    weights, expected = (RunFolder(one).load("best").weights for one in (run, whole))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_scores_are_the_same_streamed_and_in_memory(
    held_run: Path, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    held = evaluate(held_run, split).to_json()
    stream_everything(monkeypatch, PLAN)
    assert evaluate(held_run, split).to_json() == held


def test_where_the_series_lives_is_said_in_one_line(
    small_store: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short = SHORT.replace(max_epoch=1, memory_limit="3GB")
    train(open_store(small_store), tmp_path / "held", TINY, short)
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("The series")]
    assert said == [
        "The series (11.5 kB) is held in the memory of cpu, within the 3 GB of --memory-limit"
    ]
    stream_everything(monkeypatch, PLAN)
    train(open_store(small_store), tmp_path / "streamed", TINY, short)
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("The series")]
    assert said == [
        "The series (11.5 kB) does not fit in the 3 GB of --memory-limit: streamed from the store, "
        "windows mixed over 4 blocks of 9 steps at a time, in a buffer of 5.76 kB"
    ]


def test_too_little_memory_is_refused_before_a_folder_is_made(
    small_store: Path, tmp_path: Path, held_run: Path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(MemoryLimitError, match="200 MB of --memory-limit"):
        train(open_store(small_store), run, TINY, SHORT.replace(memory_limit="200MB"))
    assert not run.exists()
    before = curve(held_run)
    with pytest.raises(MemoryLimitError, match="200 MB of --memory-limit"):
        resume(held_run, max_epoch=9, memory_limit="200MB")
    assert curve(held_run) == before
    with pytest.raises(MemoryLimitError, match="200 MB of --memory-limit"):
        evaluate(held_run, memory_limit="200MB")
    with pytest.raises(MemoryLimitError, match="more than the 200 MB of --memory-limit"):
        forecast(held_run, memory_limit="200MB")
    with pytest.raises(SettingsError, match="'much' is no size"):
        forecast(held_run, memory_limit="much")


@pytest.mark.parametrize(
    ("flag", "code", "message"),
    [("200MB", 1, "of --memory-limit"), ("much", 2, "'much' is no size")],
)
def test_the_commands_refuse_it_with_one_error(
    small_store: Path,
    held_run: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    flag: str,
    code: int,
    message: str,
) -> None:
    limit = ["--memory-limit", flag]
    for words in (
        ["train", str(small_store), "--run", str(tmp_path / "run"), *limit],
        ["train", "--resume", str(held_run), *limit],
        ["evaluate", str(held_run), *limit],
    ):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        said = capfd.readouterr().err
        assert stopped.value.code == code, said
        assert said.count("error") == 1, said
        assert message in said
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_may_have_another_limit(held_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(held_run, run)
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--resume", str(run), "--memory-limit", "3GB", "--max-epoch", "4"])
    assert not stopped.value.code
    assert RunFolder(run).load("last").train_settings.memory_limit == 3 * 10**9


# Under a limit of the operating system

NODES, DAYS = 300, 480
SERIES_BYTES = 4 * NODES * DAYS * 1440
ALLOWED_BYTES = SERIES_BYTES // 8
EVERY = 8
"""Windows of training that are looked at."""
CHILD = f"""
import json, resource, sys
import numpy as np
from flowpatch.store.sample_store import open_store
from flowpatch.windows.origins import origins_of
from flowpatch.windows.residence import BlockPlan
from flowpatch.windows.streaming import Streamed

def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

store = open_store(sys.argv[1])
store.read(0, 1)
allowed = status("VmData") + {ALLOWED_BYTES}
resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
try:
    store.read()
except MemoryError:
    refused = True
else:
    refused = False
windows = Streamed(store, BlockPlan(60, 8), 12, 12)
origins = origins_of(store.splits, "train", 12, 12)[::EVERY]
order = windows.epoch_order(origins, 1, 0)
windows.expect(order)
labels = 0.0
for batch in windows.batches(order, 16):
    labels += float(batch.y_BHN[:, 0].double().sum())
print(json.dumps([refused, labels]))
""".replace("EVERY", str(EVERY))


@pytest.mark.soak
def test_a_series_of_eight_times_the_limit_is_read_within_it(tmp_path: Path) -> None:
    """The system gives the process an eighth of the series; see `benchmarks streaming` for more."""
    if not hasattr(resource, "RLIMIT_DATA") or not sys.platform.startswith("linux"):
        pytest.skip("only Linux counts all memory of a process to RLIMIT_DATA")
    from large_store import large_store

    store = tmp_path / "large.store"
    of_step = large_store(store, NODES, DAYS)
    words = ["sh", "-c", 'ulimit -s 512; exec "$@"', "sh", sys.executable, "-c", CHILD]
    # Icechunk's own threads may find no memory this close to the limit, and then answer nobody.
    ended = subprocess.run(
        [*words, str(store)], capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    refused, labels = json.loads(ended.stdout)
    assert refused
    # Every window was seen, once, and its labels were right.
    origins = np.arange(12, (DAYS - 2) * 1440 - 11, EVERY)
    assert labels == of_step[origins].sum(dtype=np.float64) * NODES
