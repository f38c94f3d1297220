"""Recorded work on a GPU is plain work played back; elsewhere nothing is recorded."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowpatch.errors import SettingsError, StoppedByUser
from flowpatch.model import compiling
from flowpatch.model.patchstg import PatchSTG
from flowpatch.model.settings import ModelSettings
from flowpatch.patches.layout import balanced_layout
from flowpatch.series.statistics import Statistics
from flowpatch.store.sample_store import open_store
from flowpatch.time_axis import TimeAxis
from flowpatch.training import captured
from flowpatch.training.captured import PLAIN_CALLS, Captured
from flowpatch.training.device import deterministic, encoder_dtype, is_compiled, make_accelerator
from flowpatch.training.runs import resume, train
from flowpatch.training.settings import COMPILED_STEPS, Compile, Precision, TrainSettings
from flowpatch.training.step import TrainingStep
from flowpatch.windows.in_memory import InMemory
from tiny_runs import SHORT, TINY, curve, interrupt_after

STEPS_A_DAY, NODES, INPUT, OUTPUT, DAYS = 24, 30, 6, 4, 4
CPU = torch.device("cpu")
# PyTorch imports what it deprecates itself when it compiles.
compiles = pytest.mark.filterwarnings("ignore::DeprecationWarning")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; none is here")


def make_step(
    precision: Precision, dropout: float, compiled_windows: int = 0, **training: object
) -> TrainingStep:
    generator = np.random.default_rng(1)
    values = generator.gamma(2.0, 5.0, (DAYS * STEPS_A_DAY, NODES)).astype(np.float32)
    values[generator.random(values.shape) < 0.1] = np.nan
    axis = TimeAxis.of_days(np.datetime64("2025-03-03"), DAYS, 60, "UTC")
    statistics = Statistics(float(np.nanmean(values)), float(np.nanstd(values)), values.size)
    windows = InMemory(values, axis, statistics, INPUT, OUTPUT, device="cuda")
    settings = TrainSettings(precision=precision, device="cuda", **training)
    accelerator = make_accelerator(settings)
    torch.manual_seed(0)
    widths = ModelSettings(
        layers=2, input_dims=16, node_dims=8, tod_dims=4, dow_dims=4, dropout=dropout
    )
    layout = balanced_layout(generator.random((NODES, 2)))
    model = PatchSTG(widths, layout, INPUT, OUTPUT, STEPS_A_DAY).to(accelerator.device)
    model.encoder_dtype = encoder_dtype(precision, accelerator.device)
    model.compiled_windows = compiled_windows
    return TrainingStep(model, windows, settings, accelerator)


def batches(sizes: list[int]) -> list[NDArray[np.int64]]:
    generator = np.random.default_rng(3)
    return [generator.integers(INPUT, DAYS * STEPS_A_DAY - OUTPUT, size) for size in sizes]


def losses(step: TrainingStep, sizes: list[int]) -> list[float]:
    with deterministic():
        return [float(step(origins, 0.01)) for origins in batches(sizes)]


def test_on_a_cpu_every_call_is_plain() -> None:
    calls = []

    def twice(x: Tensor) -> Tensor:
        calls.append(x)
        return 2 * x

    doubled = Captured(twice)
    found = [doubled(torch.tensor([float(n)])).item() for n in range(PLAIN_CALLS + 3)]
    assert found == [2.0 * n for n in range(PLAIN_CALLS + 3)]
    assert len(calls) == len(found)


@needs_gpu
def test_a_recorded_call_runs_no_python_and_takes_new_inputs() -> None:
    calls = []

    def add(x: Tensor, y: Tensor) -> Tensor:
        calls.append(x)
        return x + y

    added = Captured(add)
    for n in range(PLAIN_CALLS + 5):
        one = torch.full((4,), float(n), device="cuda")
        assert added(one, 2 * one).tolist() == [3.0 * n] * 4
    assert len(calls) == PLAIN_CALLS + 1


@needs_gpu
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_recorded_steps_are_plain_steps_digit_for_digit(
    precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Others come between: the last batch of an epoch is smaller.
    sizes = [8, 8, 8, 8, 8, 3, 8, 8, 5, 8]
    step = make_step(precision, dropout=0.3)
    recorded = losses(step, sizes)
    assert step._look._recording is not None
    assert step._learn._recording is not None
    monkeypatch.setattr(captured, "PLAIN_CALLS", 1000)
    plain_step = make_step(precision, dropout=0.3)
    assert recorded == losses(plain_step, sizes)
    weights, plain_weights = (one.model.state_dict() for one in (step, plain_step))
    assert all(torch.equal(weights[name], plain_weights[name]) for name in weights)


@needs_gpu
def test_recorded_parts_of_a_batch_add_up() -> None:
    whole, parts = (make_step("no", 0.0, micro_batch=most) for most in (8, 3))
    assert losses(parts, [8] * 8) == pytest.approx(losses(whole, [8] * 8), rel=1e-4)


@needs_gpu
@compiles
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_compiled_steps_learn_what_plain_steps_learn(precision: Precision) -> None:
    sizes = [8, 8, 8, 8, 8, 3, 8, 8]
    plain = losses(make_step(precision, dropout=0.0), sizes)
    compiled = losses(make_step(precision, dropout=0.0, compiled_windows=8), sizes)
    assert compiled == pytest.approx(plain, rel=1e-4 if precision == "no" else 0.03)


@needs_gpu
@compiles
@pytest.mark.parametrize("compile_it", ["no", "yes"])
def test_a_run_on_a_gpu_is_the_same_twice_and_after_a_stop(
    small_store: Path, tmp_path: Path, compile_it: Compile
) -> None:
    settings = TrainSettings(**{**SHORT.model_dump(), "device": "cuda", "compile": compile_it})
    model = ModelSettings(**{**TINY.model_dump(), "dropout": 0.3})
    for name in ("whole", "again"):
        train(open_store(small_store), tmp_path / name, model, settings)
    assert curve(tmp_path / "again") == curve(tmp_path / "whole")
    thread = interrupt_after(tmp_path / "stopped", 9)
    with pytest.raises(StoppedByUser):
        train(open_store(small_store), tmp_path / "stopped", model, settings)
    thread.join()
    resume(tmp_path / "stopped")
    assert curve(tmp_path / "stopped") == curve(tmp_path / "whole")


@pytest.mark.parametrize(
    ("asked", "steps", "missing", "expected"),
    [
        ("auto", COMPILED_STEPS, "", True),
        ("auto", COMPILED_STEPS - 1, "", False),
        ("auto", COMPILED_STEPS, "Triton", False),
        ("no", COMPILED_STEPS, "", False),
        ("yes", 1, "", True),
    ],
)
def test_long_trainings_are_compiled_where_it_can_be_done(
    asked: Compile, steps: int, missing: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowpatch.training.device.missing_for_compiling", lambda _: missing)
    assert is_compiled(asked, torch.device("cuda"), steps) == expected


def test_compiling_that_is_asked_for_and_cannot_be_done_is_refused() -> None:
    with pytest.raises(SettingsError, match="--compile yes needs a GPU"):
        is_compiled("yes", CPU, 1)


@pytest.mark.parametrize(
    ("has_triton", "compiler", "missing"),
    [(False, "cc", "Triton"), (True, None, "a C compiler"), (True, "cc", "")],
)
def test_what_is_missing_for_compiling_is_named(
    has_triton: bool, compiler: str | None, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(compiling, "has_triton", lambda: has_triton)
    monkeypatch.setattr("shutil.which", lambda name: name if name == compiler else None)
    assert compiling.missing_for_compiling(torch.device("cuda")) == missing
