"""Is a series larger than memory trained on as well, as fast, and within the memory allowed?

`python -m benchmarks streaming` takes three answers, each beside the series held in memory:

    limit      `flowpatch train` and `flowpatch evaluate` on a series of 8 times the limit, to
               which the operating system holds them (RLIMIT_DATA); read whole it fails there
    speed      training steps at SD's shape and published widths, streamed and in memory in turns in
               one process; and batches alone
    accuracy   three seeds on real counts, in a buffer of an eighth of the series

It builds a store of 17 GB of values (some hundred MB on disk) and takes about an hour on two cores;
`--quick` makes everything so small that the figures mean nothing.
"""

import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, median, pstdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.accuracy import DATA, DATA_SETS, EPOCHS, FAST, SEEDS, train_and_score
from benchmarks.measuring import (
    POLL_S,
    alternate,
    flowpatch,
    highest_resident_bytes,
    seconds_of,
    started_process,
)
from benchmarks.shapes import BATCH, Shape, shape_of
from benchmarks.workshop import say
from flowpatch.model.patchstg import PatchSTG
from flowpatch.patches.layout import balanced_layout
from flowpatch.series.nodes import NodeTable
from flowpatch.series.splits import Splits
from flowpatch.settings import format_bytes, parse_bytes
from flowpatch.store.draft import Origin
from flowpatch.store.sample_store import SampleStore, open_store
from flowpatch.store.writer import StoreWriter
from flowpatch.time_axis import TimeAxis
from flowpatch.training.device import deterministic, encoder_dtype, make_accelerator
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
SPEED_PLAN = BlockPlan(A_DAY, 64)
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
            return cls("800MB", days=1000, short_days=6, steps=20, rounds=1)
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
    started, asked, peak = time.monotonic(), False, 0
    with started_process(words) as process:
        while process.poll() is None:
            # A process that has just ended has no memory.
            with suppress(OSError, RuntimeError):
                peak = max(peak, highest_resident_bytes(process.pid))
            if not asked and is_enough():
                asked = True
                process.send_signal(signal.SIGINT)
            time.sleep(POLL_S)
        said = process.stderr.read() if process.stderr else ""
    return {
        "exit_code": process.returncode,
        "peak_bytes": peak,
        "seconds": time.monotonic() - started,
        "said": _last_lines(said),
    }


def _last_lines(said: str) -> list[str]:
    """The last that a command said, but for where in its code it was and where it worked."""
    lines = [line for line in said.splitlines() if not line.startswith((" ", "Traceback"))]
    return [line.replace(tempfile.gettempdir(), "...") for line in lines[-3:]]


def read_whole(path: str) -> int:
    """Reads a series whole: what does not go within the limit."""
    return len(open_store(path).read())


class Contender:
    """Windows of one kind, and the shared model trained on them."""

    def __init__(self, windows: Windows, store: SampleStore, model: PatchSTG) -> None:
        settings = TrainSettings(device="cpu", batch_size=BATCH)
        self._windows = windows
        self._step = TrainingStep(model, windows, settings, make_accelerator(settings))
        origins = origins_of(store.splits, "train", windows.input_len, windows.output_len)
        self._order = windows.epoch_order(origins, 1, 0)
        self._next = len(self._order)

    def train(self, steps: int) -> float:
        """Seconds of one of so many steps."""
        with deterministic():
            return seconds_of(lambda: [self._step(self._batch(), 0.001) for _ in range(steps)])

    def cut(self, batches: int) -> float:
        """Seconds of one of so many batches, each let go before the next."""
        return seconds_of(lambda: [len(self._windows.batch(self._batch())) for _ in range(batches)])

    def _batch(self) -> NDArray[np.int64]:
        if self._next + BATCH > len(self._order):
            self._windows.expect(self._order)
            self._next = 0
        self._next += BATCH
        return self._order[self._next - BATCH : self._next]


def speed(long: SampleStore, short: SampleStore, shape: Shape, size: Size) -> dict[str, Any]:
    """Steps of one model, its windows streamed and in memory in turns; and batches alone.

    What is in memory is a shorter series: the speed of a step does not depend on the length.
    """
    model = PatchSTG(shape.widths, balanced_layout(long.nodes.coordinates), 12, 12, A_DAY)
    model.encoder_dtype = encoder_dtype("auto", torch.device("cpu"))
    streamed = Contender(Streamed(long, SPEED_PLAN, 12, 12), long, model)
    held = Contender(InMemory.of_store(short), short, model)
    # Filling the buffer belongs to a start, not to a step; it is told beside them.
    found: dict[str, Any] = {"first_batch_seconds": streamed.cut(1)}
    each = max(1, size.steps // size.rounds)
    for what, count in (("train", each), ("cut", 100 * each)):
        one, other = (getattr(contender, what) for contender in (streamed, held))
        one(count), other(count)
        taken = alternate(size.rounds, partial(one, count), partial(other, count))
        milliseconds = [[1e3 * seconds / count for seconds in all_of] for all_of in taken]
        ratios = [other / one for one, other in zip(*milliseconds, strict=True)]
        found[what] = {
            "streamed_ms": milliseconds[0],
            "in_memory_ms": milliseconds[1],
            "speed_of_in_memory": median(ratios),
        }
    return found


def accuracy(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Test MAE of the same training with the series in memory, and in a buffer of an eighth."""
    if not DATA.is_dir():
        return {"not_run": f"the data sets are not at {DATA.name}/ beside the project"}
    store = DATA_SETS[0].build(folder)
    plan, lengths = small_plan(store), (store.manifest.input_len, store.manifest.output_len)
    found: dict[str, list[float]] = {"in_memory": [], "streamed": []}
    for seed in SEEDS[: 1 if quick else None]:
        for name, maes in found.items():
            windows = Streamed(store, plan, *lengths) if name == "streamed" else None
            epochs = 1 if quick else EPOCHS
            scores = train_and_score(FAST, store, seed, epochs, quick=quick, windows=windows)
            maes.append(scores["test_mae"])
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
