"""Cost as work grows: records 1x to 100x, nodes 700 to 100,000, days 7 to 365, processes 1 to 4.

`python -m benchmarks scaling` takes about a quarter of an hour on two cores and 4 GB of disk, and
writes docs/scaling.md's table and plot again (`scaling_page.py`); `--quick` measures tiny sizes,
to see that it runs. Commands are measured whole, each in a fresh process, once a size: an exponent
over a factor of a hundred says more than the spread of one size.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import scaling_page
from benchmarks.measuring import flowpatch, highest_resident_bytes, run, run_child, seconds_of
from benchmarks.shapes import INPUT_LEN, OUTPUT_LEN
from benchmarks.workshop import say

WEEK = 7
STEP_WINDOWS = 2
"""Of the training step at 100,000 nodes: what 24 GB hold at default widths."""
STEPS = 3


@dataclass(frozen=True)
class Point:
    """A size of the work, and what it cost by figure."""

    size: int
    figures: dict[str, float]


@dataclass(frozen=True)
class Sweep:
    """The same work at growing sizes.

    `expected` are the exponents that each figure should have, by name, where it should have one.
    """

    name: str
    title: str
    size_is: str
    expected: dict[str, float]
    points: tuple[Point, ...]


@dataclass(frozen=True)
class CitySize:
    """A simulated city, described as `flowpatch simulate` takes it."""

    nodes: int
    days: int
    step_minutes: int
    records: int


def measure(quick: bool) -> dict[str, Any]:
    """All sweeps, as plain JSON values."""
    sweeps = (by_records, by_nodes, by_days, by_workers, by_training_processes)
    found = []
    with tempfile.TemporaryDirectory(prefix="flowpatch-scaling-") as folder:
        for sweep in sweeps:
            found.append(asdict(sweep(Path(folder), quick)))
            shutil.rmtree(folder)
            Path(folder).mkdir()
    return {"sweeps": found}


def publish(found: dict[str, Any], here: dict[str, Any]) -> None:
    """Writes the page's table and plot again."""
    scaling_page.refresh(found, here)


def by_records(folder: Path, quick: bool) -> Sweep:
    """A build of 5,000 nodes and a week from more and more records of them."""
    nodes = 50 if quick else 5_000
    sizes = (20_000, 60_000) if quick else (1_000_000, 3_000_000, 10_000_000, 30_000_000, 10**8)
    return _sweep(
        *("records", f"build of {nodes:,} nodes, 7 days at 1 minute", "records"),
        {"build, s": 1.0, "build, MB": 0.0},
        sizes,
        lambda records: _build(folder, CitySize(nodes, WEEK, 1, records)),
    )


def by_nodes(folder: Path, quick: bool) -> Sweep:
    """A build of a day, a layout, and a training step of more and more nodes."""
    sizes = (60, 120) if quick else (700, 2_400, 8_600, 30_000, 100_000)

    def cost(nodes: int) -> dict[str, float]:
        built = _build(folder, CitySize(nodes, 1, 1, 150 * nodes))
        taken, _ = run_child("benchmarks.scaling:layout_and_step", nodes=nodes)
        return {**built, **taken}

    return _sweep(
        *("nodes", "build of a day at 1 minute, layout, training step of 2 windows", "nodes"),
        {"build, s": 1.0, "build, MB": 1.0, "store, MB": 1.0, "layout, s": 1.0, "step, s": 1.5},
        sizes,
        cost,
    )


def by_days(folder: Path, quick: bool) -> Sweep:
    """A build of 700 nodes at 5 minutes over more and more days, and the first batch from it."""
    nodes = 20 if quick else 700
    sizes = (7, 14) if quick else (7, 30, 90, 365)

    def cost(days: int) -> dict[str, float]:
        records = nodes * days * 274
        built = _build(folder, CitySize(nodes, days, 5, records), keep=True)
        taken, _ = run_child("benchmarks.scaling:first_batch", store=str(folder / "built.store"))
        return {**built, **taken}

    return _sweep(
        *("days", f"build of {nodes:,} nodes at 5 minutes, first batch from it", "days"),
        {"build, s": 1.0, "build, MB": 0.0, "store, MB": 1.0, "first batch, s": 1.0},
        sizes,
        cost,
    )


def by_workers(folder: Path, quick: bool) -> Sweep:
    """A build by more and more processes of one machine."""
    size = CitySize(50, 2, 1, 60_000) if quick else CitySize(5_000, WEEK, 1, 50_000_000)
    return _sweep(
        *("workers", "the same build on a cluster of so many workers here", "workers"),
        {"build, s": -1.0},
        (1, 2) if quick else (1, 2, 4),
        lambda workers: _build(folder, size, "--workers", workers),
    )


def by_training_processes(folder: Path, quick: bool) -> Sweep:
    """An epoch of training by more and more processes of one machine."""
    size = CitySize(40, 3, 15, 10_000) if quick else CitySize(700, 14, 15, 900_000)
    _build(folder, size, keep=True)

    def cost(processes: int) -> dict[str, float]:
        run_folder = folder / f"run-{processes}"
        launched = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes)
        ran = run(
            [
                *(sys.executable, *map(str, launched), "-m"),
                # The launcher of Python 3.11 takes `--run` for one of its own.
                *flowpatch("train", folder / "built.store", "--run-folder", run_folder)[2:],
                *("--max-epoch", "1", "--device", "cpu"),
            ],
            memory=True,
        )
        return {"epoch, s": ran.seconds, "epoch, MB": ran.peak_bytes / 1e6}

    return _sweep(
        *("processes", "an epoch of training, the whole command, 700 nodes", "processes"),
        {"epoch, s": -1.0},
        (1, 2) if quick else (1, 2, 4),
        cost,
    )


def _sweep(
    name: str,
    title: str,
    size_is: str,
    expected: dict[str, float],
    sizes: Sequence[int],
    cost: Callable[[int], dict[str, float]],
) -> Sweep:
    points = []
    for size in sizes:
        say(f"{name}: {size:,} {size_is}")
        points.append(Point(size, cost(size)))
        say(f"    {', '.join(f'{key} {value:,.3g}' for key, value in points[-1].figures.items())}")
    return Sweep(name, title, size_is, expected, tuple(points))


def _build(folder: Path, size: CitySize, *flags: object, keep: bool = False) -> dict[str, float]:
    """What the build of a simulated city costs; the city is made if it is not there."""
    city, store = folder / "-".join(map(str, asdict(size).values())), folder / "built.store"
    if not city.is_dir():
        shape = (*("--nodes", size.nodes, "--days", size.days), "--step-minutes", size.step_minutes)
        run(flowpatch("simulate", "--out", city, *shape, "--records", size.records))
    shutil.rmtree(store, ignore_errors=True)
    places = ("--records", city / "records", "--nodes", city / "nodes.csv", "--store", store)
    lengths = ("--input-len", INPUT_LEN, "--output-len", OUTPUT_LEN)
    command = flowpatch("preprocess", *places, "--step-minutes", size.step_minutes, *lengths)
    ran = run([*command, *map(str, flags)], memory=True)
    bytes_on_disk = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    if not keep:
        shutil.rmtree(store)
    return {
        "build, s": ran.seconds,
        "build, MB": ran.peak_bytes / 1e6,
        "store, MB": bytes_on_disk / 1e6,
    }


def layout_and_step(nodes: int) -> dict[str, float]:
    """Seconds of the layout and of a training step at default widths; MB at the peak."""
    # A process of its own: torch is not imported by the one that watches.
    from benchmarks.wide import lay_out, make_training

    layout_s = min(lay_out(nodes)["seconds"] for _ in range(STEPS))
    training = make_training(nodes, STEP_WINDOWS)
    origins = np.arange(INPUT_LEN, INPUT_LEN + STEP_WINDOWS)
    training(origins, 0.001)
    step_s = min(seconds_of(lambda: training(origins, 0.001)) for _ in range(STEPS))
    return {"layout, s": layout_s, "step, s": step_s, "step, MB": highest_resident_bytes() / 1e6}


def first_batch(store: str) -> dict[str, float]:
    """Seconds from a store on disk to its first batch, the second time in a process."""
    from flowpatch.store.sample_store import open_store
    from flowpatch.windows.in_memory import InMemory

    def open_and_cut() -> None:
        windows = InMemory.of_store(open_store(store))
        windows.batch(np.arange(windows.input_len, windows.input_len + 16))

    open_and_cut()
    return {"first batch, s": min(seconds_of(open_and_cut) for _ in range(STEPS))}
