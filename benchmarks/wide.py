"""A city of 100,000 nodes: its layout, a training step, and builds of one day and of two.

`python -m benchmarks wide` takes some minutes and 1 GB of disk; `--quick` takes few nodes. The
step runs under a limit of the operating system. The records fill a tenth of the cells: memory for
a build is a matter of cells and of the most records held at a time, not of how many there are.
"""

import resource
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measuring import flowpatch, highest_resident_bytes, run, run_child, seconds_of
from benchmarks.shapes import INPUT_LEN, OUTPUT_LEN
from flowpatch.model.patchstg import PatchSTG
from flowpatch.model.settings import ModelSettings
from flowpatch.model.step_bytes import training_bytes
from flowpatch.patches.layout import PatchLayout, balanced_layout
from flowpatch.series.statistics import Statistics
from flowpatch.time_axis import TimeAxis
from flowpatch.training.device import deterministic, encoder_dtype, make_accelerator
from flowpatch.training.settings import TrainSettings
from flowpatch.training.step import TrainingStep
from flowpatch.windows.in_memory import InMemory

NODES, QUICK_NODES = 100_000, 300
BATCH, STEP_LIMIT_BYTES = 16, 16 * 10**9
DAYS = (1, 2)
RECORDS_A_CELL = 0.1
STEPS_A_DAY = 1440


def measure(*, quick: bool) -> dict[str, Any]:
    """Seconds, and peak bytes of processes."""
    nodes = QUICK_NODES if quick else NODES
    laid_out, _ = run_child("benchmarks.wide:lay_out", nodes=nodes)
    steps = {
        name: run_child("benchmarks.wide:step", nodes=nodes, recompute=recompute)[0]
        for name, recompute in (("kept", False), ("recomputed", True))
    }
    with tempfile.TemporaryDirectory(prefix="flowpatch-bench-") as folder:
        builds = {f"{days}_days": build(Path(folder), nodes, days) for days in DAYS}
    return {
        "nodes": nodes,
        "layout_balanced": laid_out,
        "training_step": {"batch": BATCH, "limit_bytes": STEP_LIMIT_BYTES, **steps},
        "build": {"records_a_cell": RECORDS_A_CELL, **builds},
    }


def lay_out(nodes: int) -> dict[str, float]:
    """The layout that is the default, of nodes at made-up places."""
    seconds = seconds_of(lambda: _layout(nodes))
    return {"seconds": seconds, "peak_bytes": highest_resident_bytes()}


def step(nodes: int, recompute: bool) -> dict[str, Any]:
    """One training step with the defaults of `flowpatch train`, within the limit."""
    resource.setrlimit(resource.RLIMIT_DATA, (STEP_LIMIT_BYTES, STEP_LIMIT_BYTES))
    training = make_training(nodes, BATCH, recompute=recompute)
    before = highest_resident_bytes()
    with deterministic():
        seconds = seconds_of(lambda: training(np.arange(INPUT_LEN, INPUT_LEN + BATCH), 0.001))
    return {
        "seconds": seconds,
        "windows_at_a_time": training.windows_at_a_time,
        "estimated_bytes": training.windows_at_a_time * training_bytes(training.model),
        "peak_bytes": highest_resident_bytes(),
        "peak_bytes_before": before,
    }


def make_training(nodes: int, batch_size: int, *, recompute: bool = False) -> TrainingStep:
    """The training step of the default model at made-up nodes, on the CPU."""
    settings = TrainSettings(batch_size=batch_size, device="cpu", recompute_activations=recompute)
    model = PatchSTG(ModelSettings(), _layout(nodes), INPUT_LEN, OUTPUT_LEN, STEPS_A_DAY)
    model.encoder_dtype = encoder_dtype(settings.precision, torch.device("cpu"))
    model.recompute_activations = recompute
    return TrainingStep(model, _windows(nodes), settings, make_accelerator(settings))


def build(folder: Path, nodes: int, days: int) -> dict[str, float]:
    """A city is simulated, and its store built twice: for its seconds, and for its memory."""
    city, store = folder / f"city-{days}", folder / f"{days}.store"
    records = round(nodes * days * STEPS_A_DAY * RECORDS_A_CELL)
    size = ("--nodes", nodes, "--days", days, "--step-minutes", 1, "--records", records)
    run(flowpatch("simulate", "--out", city, *size))
    places = ("--records", city / "records", "--nodes", city / "nodes.csv", "--store", store)
    command = flowpatch("preprocess", *places, "--step-minutes", 1, "--overwrite")
    seconds = run(command).seconds
    watched = run(command, memory=True)
    return {"records": records, "seconds": seconds, "peak_bytes": watched.peak_bytes}


def _layout(nodes: int) -> PatchLayout:
    places = np.random.default_rng(nodes).uniform((30, 110), (31, 111), (nodes, 2))
    return balanced_layout(places)


def _windows(nodes: int) -> InMemory:
    """The windows of a series that is just long enough."""
    shape = (INPUT_LEN + BATCH + OUTPUT_LEN, nodes)
    values = np.random.default_rng(1).gamma(2.0, 5.0, shape).astype(np.float32)
    statistics = Statistics(float(values.mean()), float(values.std()), values.size)
    axis = TimeAxis.of_days(np.datetime64("2025-03-03"), 1, 1)
    return InMemory(values, axis, statistics, INPUT_LEN, OUTPUT_LEN)
