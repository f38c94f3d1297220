"""Batches cut by a recording on a GPU are those of the CPU, and stay what they were."""

import numpy as np
import pytest
import torch

from flowpatch.series.statistics import Statistics
from flowpatch.time_axis import TimeAxis
from flowpatch.windows.batches import Batch
from flowpatch.windows.in_memory import InMemory
from flowpatch.windows.missing import Missing
from flowpatch.windows.recorded import PLAIN_CUTS, RECORDINGS

DAYS, STEPS_A_DAY, NODES, INPUT, OUTPUT = 5, 24, 7, 6, 4
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; none is here")


def make_windows(device: str, missing: Missing) -> InMemory:
    generator = np.random.default_rng(1)
    values = generator.gamma(2.0, 5.0, (DAYS * STEPS_A_DAY, NODES)).astype(np.float32)
    values[generator.random(values.shape) < 0.4] = np.nan
    axis = TimeAxis.of_days(np.datetime64("2025-03-03"), DAYS, 60, "UTC")
    statistics = Statistics(float(np.nanmean(values)), float(np.nanstd(values)), values.size)
    return InMemory(values, axis, statistics, INPUT, OUTPUT, missing, device)


def assert_same(found: Batch, expected: Batch) -> None:
    for name in ("time_of_day_BT", "day_of_week_BT", "time_of_day_BH", "day_of_week_BH"):
        assert torch.equal(getattr(found, name).cpu(), getattr(expected, name))
    assert torch.equal(found.origins_B.cpu(), expected.origins_B)
    torch.testing.assert_close(found.x_BTN.cpu(), expected.x_BTN)
    torch.testing.assert_close(found.y_BHN.cpu(), expected.y_BHN, equal_nan=True, rtol=0, atol=0)


@needs_gpu
@pytest.mark.parametrize("missing", ["last", "mean", "zero"])
def test_recorded_batches_are_those_of_the_cpu(missing: Missing) -> None:
    on_gpu, on_cpu = make_windows("cuda", missing), make_windows("cpu", missing)
    generator = np.random.default_rng(2)
    for size in [8] * 20 + [3, 8, 1, 8]:
        origins = generator.integers(INPUT, DAYS * STEPS_A_DAY - OUTPUT + 1, size)
        assert_same(on_gpu.batch(origins), on_cpu.batch(origins))


@needs_gpu
def test_a_batch_that_is_held_is_not_written_over() -> None:
    on_gpu, on_cpu = make_windows("cuda", "last"), make_windows("cpu", "last")
    generator = np.random.default_rng(3)
    origins = [
        generator.integers(INPUT, DAYS * STEPS_A_DAY - OUTPUT + 1, 8)
        for _ in range(PLAIN_CUTS + 2 * RECORDINGS + 2)
    ]
    held = [on_gpu.batch(some) for some in origins]
    for batch, some in zip(held, origins, strict=True):
        assert_same(batch, on_cpu.batch(some))
    # A piece of one is enough to keep it.
    kept = [batch.x_BTN[0] for batch in held]
    expected = [piece.clone() for piece in kept]
    del held, batch
    for some in origins:
        on_gpu.batch(some)
    assert all(map(torch.equal, kept, expected))


@needs_gpu
def test_memory_of_batches_that_are_gone_is_used_again() -> None:
    windows = make_windows("cuda", "last")
    origins = np.arange(INPUT, INPUT + 8)
    places = {windows.batch(origins).x_BTN.data_ptr() for _ in range(PLAIN_CUTS + 20)}
    assert len(places) <= PLAIN_CUTS + 2


def test_on_a_cpu_nothing_is_recorded() -> None:
    windows = make_windows("cpu", "last")
    for _ in range(PLAIN_CUTS + 3):
        windows.batch(np.arange(INPUT, INPUT + 8))
    assert windows._recorded._recordings == []
