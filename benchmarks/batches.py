"""Batches at CA's shape: beside a per-sample Dataset, beside copying, beside a training step."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from benchmarks.baselines.sample_dataset import SampleDataset
from benchmarks.measuring import alternate, run_child, seconds_of
from benchmarks.rows import Found, FoundRow, NotMeasured, row_of
from benchmarks.shapes import BATCH, INPUT_LEN, OUTPUT_LEN, shape_of, statistics_of
from benchmarks.step import TrainingContender, make_ours
from benchmarks.workshop import Workshop
from flowpatch.windows.in_memory import InMemory

LOADER_BATCHES = 12
PREFETCHED = 4
"""Batches that two workers hold ready: they are taken before the clock starts, and as many are
under way when it stops."""
OURS_BATCHES = 150
GPU_BATCHES = 2000
OURS_FIRST = 100
"""Left out: after them every part of the series has been touched again since others took turns."""
STEP_BATCH = 2


def measure(workshop: Workshop) -> FoundRow:
    """All figures, from one process that holds the series once."""
    found, _ = run_child(
        "benchmarks.batches:rates", quick=workshop.quick, rounds=workshop.rounds(3)
    )
    note = f"{found['megabytes']:.1f} MB a batch; first {found['preparing_s']:.1f} s of preparing"
    return {
        "dataset_0": Found(found["ours"], found["dataset_0"], note),
        "dataset_2": Found(found["ours"], found["dataset_2"], note),
        "memcpy": Found(found["ours"], found["memcpy"], note),
        "share": Found(
            found["cut_ms"],
            found["step_ms"],
            f"CPU, {STEP_BATCH} windows, as {BATCH} do not fit the memory of a laptop",
        ),
    }


def rates(quick: bool, rounds: int) -> dict[str, Any]:
    """Batches a second of ours and of each baseline in turn; milliseconds beside a step's."""
    shape = shape_of("CA", quick=quick)
    values = shape.series()
    statistics = statistics_of(values)
    windows = InMemory(values, shape.axis, statistics, INPUT_LEN, OUTPUT_LEN)
    preparing = seconds_of(lambda: _prepare(windows, values))
    dataset = SampleDataset(
        values, shape.axis, statistics, _origins(values, BATCH * 64), INPUT_LEN, OUTPUT_LEN
    )
    ours, copied, none, two = alternate(
        rounds,
        lambda: _rate(windows.batch, _batches_of_origins(values), OURS_BATCHES),
        lambda: _rate(_copier(values), _batches_of_origins(values), OURS_BATCHES),
        lambda: _loader_rate(dataset, workers=0),
        lambda: _loader_rate(dataset, workers=2),
    )
    contender = make_ours(shape, windows, "cpu", batch_size=STEP_BATCH)
    cut, step = _beside_step(windows, contender, values, rounds)
    return {
        "ours": ours,
        "memcpy": copied,
        "dataset_0": none,
        "dataset_2": two,
        "cut_ms": cut,
        "step_ms": step,
        "preparing_s": preparing,
        "megabytes": 4 * BATCH * (INPUT_LEN + OUTPUT_LEN) * shape.nodes / 1e6,
    }


def measure_on_gpu(workshop: Workshop) -> FoundRow:
    """The same with the series on a GPU, where batches are wanted."""
    if not torch.cuda.is_available():
        return {figure.name: NotMeasured("no GPU here") for figure in row_of("gpu_batches").figures}
    found, _ = run_child(
        "benchmarks.batches:rates_on_gpu", quick=workshop.quick, rounds=workshop.rounds(3)
    )
    return {name: Found(found["ours"], found[name]) for name in ("dataset_0", "dataset_2", "copy")}


def rates_on_gpu(quick: bool, rounds: int) -> dict[str, Any]:
    """Batches a second on the GPU of ours and of each baseline in turn."""
    shape = shape_of("CA", quick=quick)
    values = shape.series()
    statistics = statistics_of(values)
    windows = InMemory(values, shape.axis, statistics, INPUT_LEN, OUTPUT_LEN, device="cuda")
    _prepare(windows, values)
    dataset = SampleDataset(
        values, shape.axis, statistics, _origins(values, BATCH * 64), INPUT_LEN, OUTPUT_LEN
    )
    bytes_of_batch = torch.empty((BATCH, INPUT_LEN + OUTPUT_LEN, shape.nodes), device="cuda")
    ours, copied, none, two = alternate(
        rounds,
        lambda: _rate_on_gpu(windows.batch, _batches_of_origins(values)),
        lambda: _rate_on_gpu(lambda _: bytes_of_batch.clone(), _batches_of_origins(values)),
        lambda: _loader_rate(dataset, workers=0, device="cuda"),
        lambda: _loader_rate(dataset, workers=2, device="cuda"),
    )
    return {"ours": ours, "copy": copied, "dataset_0": none, "dataset_2": two}


def _rate_on_gpu(
    cut: Callable[[NDArray[np.int64]], object], batches: Iterator[NDArray[np.int64]]
) -> float:
    """Batches a second, all of them done."""

    def cut_and_wait() -> None:
        _cut_each(cut, itertools.islice(batches, GPU_BATCHES))
        torch.cuda.synchronize()

    cut_and_wait()
    return GPU_BATCHES / seconds_of(cut_and_wait)


def _prepare(windows: InMemory, values: NDArray[np.float32]) -> None:
    """Asks for every step once: each is scaled and filled when a window first asks for it."""
    origins = np.arange(INPUT_LEN, len(values) - OUTPUT_LEN + 1, INPUT_LEN)
    for first in range(0, len(origins), BATCH):
        windows.batch(origins[first : first + BATCH])


def _rate(
    cut: Callable[[NDArray[np.int64]], object], batches: Iterator[NDArray[np.int64]], count: int
) -> float:
    """Batches a second, the first ones left out."""
    _cut_each(cut, itertools.islice(batches, OURS_FIRST))
    return count / seconds_of(lambda: _cut_each(cut, itertools.islice(batches, count)))


def _cut_each(
    cut: Callable[[NDArray[np.int64]], object], batches: Iterable[NDArray[np.int64]]
) -> None:
    """Cuts one batch after the other and holds none, as training does."""
    for origins in batches:
        cut(origins)


def _loader_rate(dataset: SampleDataset, workers: int, device: str = "cpu") -> float:
    """Batches a second of the DataLoader once its workers run, brought to a device."""
    on_gpu = device == "cuda"
    loader = DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, pin_memory=on_gpu)
    batches = iter(loader)

    def take(count: int) -> None:
        for batch in itertools.islice(batches, count):
            held = [part.to(device, non_blocking=True) for part in batch]
            del held
        if on_gpu:
            torch.cuda.synchronize()

    take(PREFETCHED)
    return LOADER_BATCHES / seconds_of(lambda: take(LOADER_BATCHES))


def _copier(values: NDArray[np.float32]) -> Callable[[NDArray[np.int64]], object]:
    """Copies as many bytes as a batch has out of the series, one window after the other."""
    series = torch.from_numpy(values)
    out = torch.empty(BATCH, INPUT_LEN + OUTPUT_LEN, values.shape[1])

    def copy(origins: NDArray[np.int64]) -> None:
        for row, origin in enumerate(origins.tolist()):
            out[row].copy_(series[origin - INPUT_LEN : origin + OUTPUT_LEN])

    return copy


def _beside_step(
    windows: InMemory, contender: TrainingContender, values: NDArray[np.float32], rounds: int
) -> tuple[list[float], list[float]]:
    """Milliseconds of cutting a batch and of a training step on one, windows as many."""
    origins = itertools.cycle(np.split(_origins(values, 64 * STEP_BATCH), 64))
    contender.train(next(origins))
    windows.batch(next(origins))
    cut, step = alternate(
        rounds,
        lambda: (
            1e3 * seconds_of(lambda: _cut_each(windows.batch, itertools.islice(origins, 20))) / 20
        ),
        lambda: 1e3 * seconds_of(lambda: contender.train(next(origins))),
    )
    return list(cut), list(step)


def _batches_of_origins(values: NDArray[np.float32]) -> Iterator[NDArray[np.int64]]:
    """Origins of batches drawn at random, without end."""
    return itertools.cycle(np.split(_origins(values, 64 * BATCH), 64))


def _origins(values: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Origins drawn at random from the whole series."""
    return np.random.default_rng(2).integers(INPUT_LEN, len(values) - OUTPUT_LEN + 1, count)
