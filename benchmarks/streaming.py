"""Is a series larger than memory trained on as well, as fast, and within the memory allowed?

`python -m benchmarks streaming` takes three answers, each beside the series held in memory:

    limit      `flowpatch train` and `flowpatch evaluate` on a series of 8 times the limit, which the
               operating system holds them to (RLIMIT_DATA); the same series read whole fails there
    speed      training steps at SD's shape and published widths, streamed and in memory in turns in
               one process; and batches alone
    accuracy   three seeds on real counts, in a buffer of an eighth of the series

It builds a store of 17 GB of values (some hundred MB on disk) and takes about an hour on two cores;
`--quick` makes everything so small that the figures mean nothing.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, pstdev
from typing import Any

import numpy as np
import torch

from benchmarks.accuracy import DATA, DATA_SETS
from benchmarks.measuring import ROOT, alternate, flowpatch, seconds_of
from benchmarks.shapes import BATCH, Shape, shape_of
from benchmarks.workshop import say
from flowpatch.model.patchstg import PatchSTG
from flowpatch.model.settings import ModelSettings
from flowpatch.patches.layout import balanced_layout
from flowpatch.series.nodes import NodeTable
from flowpatch.series.splits import Splits
from flowpatch.settings import format_bytes, parse_bytes
from flowpatch.store.draft import Origin
from flowpatch.store.sample_store import SampleStore, open_store
from flowpatch.store.writer import StoreWriter
from flowpatch.time_axis import TimeAxis
from flowpatch.training.device import deterministic, encoder_dtype, make_accelerator
from flowpatch.training.runs import make_layout
from flowpatch.training.scoring import in_real_units, score
from flowpatch.training.settings import TrainSettings
from flowpatch.training.step import TrainingStep
from flowpatch.windows.batches import Windows
from flowpatch.windows.in_memory import InMemory
from flowpatch.windows.origins import origins_of
from flowpatch.windows.residence import BlockPlan
from flowpatch.windows.streaming import Streamed

A_DAY = 1440
LEVELS = 16
"""Different values of the series: few, so that it takes little room on the disk."""
HELD_DAYS = 2
"""Of validation and of test: what is trained on is all the rest."""
SEEDS = (1, 2, 3)
EPOCHS = 3
OF_SERIES = 8
"""The series is so many times the limit, or the buffer."""


@dataclass(frozen=True)
class Size:
    """What is measured at which size."""

    limit: str
    days: int
    short_days: int
    steps: int
    rounds: int

    @classmethod
    def of(cls, *, quick: bool) -> "Size":
        """For figures, or for a smoke run."""
        if quick:
            return cls("700MB", days=12, short_days=6, steps=20, rounds=1)
        return cls("2GB", days=3900, short_days=60, steps=60, rounds=5)


def measure(*, quick: bool) -> dict[str, Any]:
    """All three answers."""
    size = Size.of(quick=quick)
    shape = shape_of("SD", quick=quick)
    with tempfile.TemporaryDirectory(prefix="flowpatch-bench-") as name:
        folder = Path(name)
        say(f"    writing {size.days} days of {shape.nodes} nodes")
        long = make_store(folder / "long.store", shape, size.days)
        short = make_store(folder / "short.store", shape, size.short_days)
        found = {"limit": under_limit(long, shape, size, folder)}
        found["speed"] = speed(long, short, shape, size)
        found["accuracy"] = accuracy(folder, quick=quick)
    return found


def make_store(path: Path, shape: Shape, days: int) -> SampleStore:
    """A store of `days` days at one minute, every cell observed."""
    axis = TimeAxis.of_days(np.datetime64("2015-01-01"), days, 1)
    keys = np.arange(shape.nodes)
    nodes = NodeTable(("node",), (keys,), *shape.coordinates().T)
    origin = Origin({}, {"kind": "benchmark"}, axis.to_json(), nodes.fingerprint(), None)
    generator = np.random.default_rng(1)
    # Half hours of one value, and so many of them that days can begin anywhere.
    half_hours = generator.integers(0, LEVELS, (96, shape.nodes)).astype(np.float32)
    values = np.repeat(half_hours, 30, axis=0)
    steps = axis.length
    with StoreWriter(path, axis, nodes, origin) as writer, writer.stretch(0, steps):
        for first in range(0, steps, writer.block_steps):
            rows = np.arange(first, min(first + writer.block_steps, steps))
            shift = int(generator.integers(len(values)))
            writer.write(first, values[(rows + shift) % len(values)])
        val, test = steps - 2 * HELD_DAYS * A_DAY, steps - HELD_DAYS * A_DAY
        return writer.commit(
            input_len=12,
            output_len=12,
            counts=writer.counts(),
            nodes_without_coordinates=0,
            splits=Splits(0, val, test, steps),
        )


def under_limit(store: SampleStore, shape: Shape, size: Size, folder: Path) -> dict[str, Any]:
    """The two commands on the whole series, held to the limit by the operating system."""
    limit, run = parse_bytes(size.limit), folder / "run"
    held = ("--memory-limit", size.limit, "--device", "cpu")
    whole = [sys.executable, "-m", "benchmarks.child", "benchmarks.streaming:read_whole"]
    say(f"    training on {format_bytes(_dense(store))} within {size.limit}")
    trained = run_within(
        limit,
        flowpatch("train", store.path, "--run", run, *held, *_flags(shape), "--log-every", 5),
        lambda: _rows(run) >= size.steps // 5,
    )
    return {
        "series_bytes": _dense(store),
        "limit_bytes": limit,
        "times_the_limit": _dense(store) / limit,
        "read_whole": run_within(limit, [*whole, json.dumps({"path": str(store.path)})]),
        "train": {**trained, "steps": 5 * _rows(run)},
        "evaluate": run_within(
            limit, flowpatch("evaluate", run, "--checkpoint", "last", *held, "--json")
        ),
    }


def run_within(
    limit: int, command: list[str], is_enough: Callable[[], bool] = lambda: False
) -> dict[str, Any]:
    """Runs a command that may not take more than so many bytes; Ctrl-C once it is enough.

    What counts to the limit is all memory that the process may write (RLIMIT_DATA), so stacks of
    threads are kept small, which would count whole.
    """
    words = ["sh", "-c", 'ulimit -s 1024; ulimit -d "$0"; exec "$@"', str(limit // 1024), *command]
    started, asked = time.monotonic(), False
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=said)  # noqa: S603
        try:
            ended, status, usage = 0, 0, None
            while not ended:
                ended, status, usage = os.wait4(process.pid, os.WNOHANG)
                if not asked and is_enough():
                    asked = True
                    process.send_signal(signal.SIGINT)
                time.sleep(0.1)
        finally:
            process.returncode = os.waitstatus_to_exitcode(status)
            if not ended:
                process.kill()
                process.wait()
        said.seek(0)
        return {
            "exit_code": process.returncode,
            "peak_bytes": usage.ru_maxrss * 1024,
            "seconds": time.monotonic() - started,
            "said": said.read().splitlines()[-4:],
        }


def read_whole(path: str) -> int:
    """Reads a series whole: what does not go within the limit."""
    return len(open_store(path).read())


def speed(long: SampleStore, short: SampleStore, shape: Shape, size: Size) -> dict[str, Any]:
    """Steps of one model, its windows streamed and in memory in turns; and batches alone.

    What is in memory is a shorter series: the speed of a step does not depend on the length.
    """
    plan = BlockPlan(A_DAY, 64)
    streamed = Streamed(long, plan, 12, 12)
    held = InMemory.of_store(short)
    settings = TrainSettings(device="cpu", batch_size=BATCH)
    accelerator = make_accelerator(settings)
    layout = balanced_layout(long.nodes.coordinates)
    model = PatchSTG(shape.widths, layout, 12, 12, A_DAY)
    model.encoder_dtype = encoder_dtype(settings.precision, accelerator.device)
    found: dict[str, Any] = {}
    steps = {name: TrainingStep(model, windows, settings, accelerator) for name, windows in (
        ("streamed", streamed), ("in_memory", held))}  # fmt: skip
    stores = {"streamed": (streamed, long), "in_memory": (held, short)}
    orders = {}
    for name, (windows, store) in stores.items():
        order = windows.epoch_order(origins_of(store.splits, "train", 12, 12), 1, 0)
        windows.expect(order)
        orders[name] = iter(np.array_split(order, len(order) // BATCH))

    def train(name: str) -> float:
        with deterministic():
            return seconds_of(lambda: [steps[name](next(orders[name]), 0.001) for _ in range(each)])

    def cut(name: str) -> float:
        windows = stores[name][0]
        return seconds_of(lambda: [windows.batch(next(orders[name])) for _ in range(100 * each)])

    each = max(1, size.steps // (2 * size.rounds))
    for what, action in (("step", train), ("batch", cut)):
        count = each * (1 if what == "step" else 100)
        for name in stores:
            action(name)
        taken = alternate(size.rounds, *(lambda name=name: action(name) for name in stores))
        for name, seconds in zip(stores, taken, strict=True):
            found[f"{what}_seconds_{name}"] = [one / count for one in seconds]
        pairs = zip(*(found[f"{what}_seconds_{name}"] for name in stores), strict=True)
        found[f"{what}_speed_of_in_memory"] = median(held / other for other, held in pairs)
    return found


def accuracy(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Test MAE of the same training with the series in memory, and in a buffer of an eighth."""
    if not DATA.is_dir():
        return {"not_run": f"the data sets are not at {DATA.name}/ beside the project"}
    store = DATA_SETS[0].build(folder)
    plan = small_plan(store)
    found: dict[str, list[float]] = {"in_memory": [], "streamed": []}
    for seed in SEEDS[: 1 if quick else None]:
        for name, maes in found.items():
            windows = InMemory.of_store(store) if name == "in_memory" else _streamed(store, plan)
            maes.append(test_mae(store, windows, seed, quick=quick))
            say(f"    {name}, seed {seed}: {maes[-1]:.4f}")
    means = {name: mean(maes) for name, maes in found.items()}
    return {
        "series_bytes": _dense(store),
        "blocks": {"steps": plan.block_steps, "held": plan.held_blocks},
        "test_mae": found,
        "mean": means,
        "deviation_over_seeds": {name: pstdev(maes) for name, maes in found.items()},
        "streamed_worse_by_percent": 100 * (means["streamed"] / means["in_memory"] - 1),
    }


def small_plan(store: SampleStore) -> BlockPlan:
    """Blocks of which all that are held, with the rows that they share, are an eighth."""
    rows = store.axis.length // OF_SERIES
    held = 32
    overlap = store.manifest.input_len + store.manifest.output_len - 1
    return BlockPlan(max(1, rows // held - overlap), held)


def test_mae(store: SampleStore, windows: Windows, seed: int, *, quick: bool) -> float:
    """Trains for some epochs and scores the weights of the best one, as `flowpatch train` does."""
    epochs = 1 if quick else EPOCHS
    settings = TrainSettings(max_epoch=epochs, seed=seed, device="cpu")
    lengths = (windows.input_len, windows.output_len)
    origins = {
        split: origins_of(store.splits, split, *lengths)[: 256 if quick else None]
        for split in ("train", "val", "test")
    }
    torch.manual_seed(seed)
    chosen = ModelSettings()
    model = PatchSTG(chosen, make_layout(chosen, store), *lengths, store.axis.steps_a_day)
    model.encoder_dtype = encoder_dtype(settings.precision, windows.device)
    step = TrainingStep(model, windows, settings, make_accelerator(settings))
    forecasters = {"model": in_real_units(model, windows.statistics)}

    def mae_on(split: str) -> float:
        model.eval()
        table = score(forecasters, windows, origins[split], settings.batch_size)["model"]
        if table.pooled.mae is None:
            raise ValueError(f"no label was observed in the split '{split}'")
        return table.pooled.mae

    best, best_weights = float("inf"), model.state_dict()
    for epoch in range(epochs):
        model.train()
        order = windows.epoch_order(origins["train"], seed, epoch)
        windows.expect(order)
        for first in range(0, len(order), settings.batch_size):
            step(order[first : first + settings.batch_size], settings.learning_rate_at(epoch, 0.0))
        if (val_mae := mae_on("val")) < best:
            best = val_mae
            best_weights = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(best_weights)
    return mae_on("test")


def _streamed(store: SampleStore, plan: BlockPlan) -> Streamed:
    return Streamed(store, plan, store.manifest.input_len, store.manifest.output_len)


def _dense(store: SampleStore) -> int:
    return 4 * store.axis.length * store.manifest.nodes


def _flags(shape: Shape) -> list[str]:
    widths = shape.widths
    names = ("layers", "input_dims", "node_dims", "tod_dims", "dow_dims")
    flags = [(f"--{name.replace('_', '-')}", str(getattr(widths, name))) for name in names]
    return [word for flag in (*flags, ("--batch-size", str(BATCH))) for word in flag]


def _rows(run: Path) -> int:
    path = run / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.is_file() else 0
