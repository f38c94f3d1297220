"""Training steps and inference of PatchSTG, beside its published formulation.

Ours is what `flowpatch train` and `flowpatch evaluate` run, with their defaults but for the widths,
which are the published ones. Both take the same windows of the same series, cut inside the step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from benchmarks.baselines.published_patchstg import PublishedPatchSTG, Widths
from benchmarks.baselines.published_training import PublishedTraining
from benchmarks.measuring import alternate, highest_resident_bytes, run_child, seconds_of
from benchmarks.rows import Found, FoundRow
from benchmarks.shapes import (
    BATCH,
    INPUT_LEN,
    OUTPUT_LEN,
    STEPS_A_DAY,
    Shape,
    shape_of,
    statistics_of,
)
from benchmarks.workshop import Workshop
from flowpatch.model.patchstg import PatchSTG
from flowpatch.training.device import deterministic, encoder_dtype, make_accelerator
from flowpatch.training.scoring import in_real_units
from flowpatch.training.settings import TrainSettings
from flowpatch.training.step import TrainingStep
from flowpatch.windows.in_memory import InMemory

Origins = NDArray[np.int64]
Name = Literal["ours", "published"]
DAYS = 14
STEPS_WATCHED = 4
LEARNING_RATE = 0.002


@dataclass(frozen=True)
class TrainingContender:
    """One of two that are compared: a training step and a forecast at (B,) origins."""

    model: torch.nn.Module
    train: Callable[[Origins], object]
    infer: Callable[[Origins], object]


def measure(workshop: Workshop) -> FoundRow:
    """A training step and inference at SD's shape on the CPU."""
    found, _ = run_child("benchmarks.step:seconds", quick=workshop.quick, rounds=workshop.rounds(5))
    note = shape_of("SD", quick=workshop.quick).note()
    return {
        name: Found(found[name]["ours"], found[name]["published"], note)
        for name in ("train", "infer")
    }


def measure_memory(workshop: Workshop) -> FoundRow:
    """Peak memory of a few training steps at SD's shape, less what the process held before."""
    names: tuple[Name, ...] = ("ours", "published")
    watched: dict[Name, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(workshop.rounds(3)):
        for name, seen in watched.items():
            peak_and_before, _ = run_child(
                "benchmarks.step:train_a_little", name=name, quick=workshop.quick
            )
            seen.append(peak_and_before)
    added = {name: [peak - before for peak, before in seen] for name, seen in watched.items()}
    last = "; ".join(
        "{} {:,.0f} less {:,.0f} MB".format(name, *seen[-1]) for name, seen in watched.items()
    )
    return {"added": Found(added["ours"], added["published"], f"last run: {last}")}


def seconds(quick: bool, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of a training step and of inference, ours and published taking turns."""
    shape, windows, origins = _series_at_sd(quick)
    contenders = [
        make_ours(shape, windows, "cpu"),
        make_published(shape, windows, "no"),
    ]
    found = {}
    for kind in ("train", "infer"):
        actions = [getattr(contender, kind) for contender in contenders]
        for action in actions:
            action(origins)
        ours, published = alternate(
            rounds,
            *(lambda action=action: seconds_of(lambda: action(origins)) for action in actions),
        )
        found[kind] = {"ours": list(ours), "published": list(published)}
    return found


def train_a_little(name: Name, quick: bool) -> tuple[float, float]:
    """Trains for a few steps; MB of the process at its peak, and before there was a model."""
    shape, windows, origins = _series_at_sd(quick)
    before = psutil.Process().memory_info().rss / 1e6
    if name == "ours":
        contender = make_ours(shape, windows, "cpu")
    else:
        contender = make_published(shape, windows, "no")
    for _ in range(STEPS_WATCHED):
        contender.train(origins)
    return highest_resident_bytes() / 1e6, float(before)


def make_ours(
    shape: Shape,
    windows: InMemory,
    device: str,
    batch_size: int = BATCH,
    *,
    compiled: bool = False,
) -> TrainingContender:
    """The model and the step of `flowpatch train`, and inference as `flowpatch evaluate` does."""
    settings = TrainSettings(device=device, batch_size=batch_size)
    accelerator = make_accelerator(settings)
    model = PatchSTG(shape.widths, shape.balanced(), INPUT_LEN, OUTPUT_LEN, STEPS_A_DAY)
    model.to(accelerator.device)
    model.encoder_dtype = encoder_dtype(settings.precision, accelerator.device)
    if compiled:
        model.compiled_windows = batch_size
    step = TrainingStep(model, windows, settings, accelerator)
    forecast = in_real_units(model, windows.statistics)

    def train(origins: Origins) -> None:
        model.train()
        with deterministic():
            step(origins, LEARNING_RATE)

    @torch.no_grad()
    def infer(origins: Origins) -> None:
        model.eval()
        forecast(windows.batch(origins))

    return TrainingContender(model, train, infer)


def make_published(
    shape: Shape, windows: InMemory, precision: Literal["no", "bf16"]
) -> TrainingContender:
    """The published formulation, and its training step: eager, AdamW, the gradient clipped."""
    profiles = shape.profiles(windows.values_TN[: DAYS * STEPS_A_DAY].cpu().numpy())
    hidden = shape.widths
    widths = Widths(
        hidden.layers, hidden.input_dims, hidden.node_dims, hidden.tod_dims, hidden.dow_dims
    )
    model = PublishedPatchSTG(widths, shape.paper(profiles), OUTPUT_LEN, STEPS_A_DAY, INPUT_LEN)
    model.to(windows.device)
    training = PublishedTraining(model, windows, TrainSettings(), bfloat16=precision == "bf16")

    def train(origins: Origins) -> None:
        model.train()
        training.step(origins, LEARNING_RATE)

    @torch.no_grad()
    def infer(origins: Origins) -> None:
        model.eval()
        training.forecast(windows.batch(origins))

    return TrainingContender(model, train, infer)


def _series_at_sd(quick: bool) -> tuple[Shape, InMemory, Origins]:
    shape = shape_of("SD", quick=quick, days=DAYS)
    return shape, make_windows(shape, "cpu"), some_origins(shape)


def make_windows(shape: Shape, device: str) -> InMemory:
    """The windows of a series of a shape."""
    values = shape.series()
    return InMemory(values, shape.axis, statistics_of(values), INPUT_LEN, OUTPUT_LEN, device=device)


def some_origins(shape: Shape, count: int = BATCH) -> Origins:
    """Origins drawn at random."""
    last = shape.axis.length - OUTPUT_LEN
    return np.random.default_rng(3).integers(INPUT_LEN, last + 1, count)
