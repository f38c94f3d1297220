"""Every baseline gives what the fast way gives: a baseline that is wrong measures nothing."""

import io
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from benchmarks.baselines import dense_similarity, held_predictions
from benchmarks.baselines.parse_loop import build_matrix
from benchmarks.baselines.sample_dataset import SampleDataset
from benchmarks.baselines.window_text import write_windows
from benchmarks.shapes import INPUT_LEN, OUTPUT_LEN, STEPS_A_DAY, Shape, shape_of, statistics_of
from benchmarks.step import make_windows
from flowpatch.model.baselines import LastValue
from flowpatch.patches.kdtree import split_leaves
from flowpatch.patches.similarity import pad_leaves
from flowpatch.preprocessing.build import preprocess
from flowpatch.preprocessing.settings import PreprocessSettings
from flowpatch.sources.simulated import SimulateSettings, simulate
from flowpatch.training.scoring import score
from flowpatch.windows.in_memory import InMemory

ORIGINS = np.array([INPUT_LEN, 40, 300, 7 * STEPS_A_DAY - OUTPUT_LEN])


@pytest.fixture
def shape() -> Shape:
    return shape_of("SD", quick=True)


def test_the_parse_loop_gives_the_series_of_a_build(tmp_path: Path) -> None:
    city = simulate(
        SimulateSettings(
            out=tmp_path / "city", nodes=8, days=2, step_minutes=30, records=3000, format="csv"
        )
    )
    store = preprocess(
        PreprocessSettings(
            records=str(city.records_path),
            nodes=str(city.nodes_path),
            store=tmp_path / "city.store",
            step_minutes=30,
        )
    )
    files = sorted(city.records_path.rglob("*.csv"))
    parsed = build_matrix(files, city.nodes_path, datetime(2025, 3, 3), 2, 30)
    # Both are in ascending order of the key: the simulated node table is written so.
    np.testing.assert_allclose(parsed, store.read(), rtol=1e-6)
    assert np.isfinite(parsed).any()
    few = build_matrix(files, city.nodes_path, datetime(2025, 3, 3), 2, 30, at_most=100)
    assert 0 < np.isfinite(few).sum() <= 100


def test_windows_as_text_hold_the_series_and_its_calendar(shape: Shape) -> None:
    values, out = shape.series(), io.StringIO()
    write_windows(out, values, shape.axis, ORIGINS, INPUT_LEN, OUTPUT_LEN)
    lines = out.getvalue().splitlines()
    assert len(lines) == len(ORIGINS)
    for origin, line in zip(ORIGINS, lines, strict=True):
        instant, x, times_x, y, times_y = line.split("\t")
        steps = np.arange(origin - INPUT_LEN, origin + OUTPUT_LEN)
        assert instant == str(shape.axis.instant_of(int(origin)))
        read = np.array([float(cell) for cell in f"{x},{y}".split(",")], dtype=np.float32)
        np.testing.assert_array_equal(read.reshape(-1, shape.nodes), values[steps])
        times = np.array([int(cell) for cell in f"{times_x},{times_y}".split(",")])
        np.testing.assert_array_equal(times[::2], shape.axis.time_of_day_index()[steps])
        np.testing.assert_array_equal(times[1::2], shape.axis.day_of_week_index()[steps])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_dataset_gives_the_numbers_of_a_batch(shape: Shape, workers: int) -> None:
    values = shape.series()
    statistics = statistics_of(values)
    lengths = (INPUT_LEN, OUTPUT_LEN)
    # `mean` puts 0 into a missing cell of the scaled input, as the baseline does.
    batch = InMemory(values, shape.axis, statistics, *lengths, missing="mean").batch(ORIGINS)
    dataset = SampleDataset(values, shape.axis, statistics, ORIGINS, *lengths)
    ((x_BTN3, y_BHN),) = DataLoader(dataset, len(ORIGINS), num_workers=workers)
    assert values[ORIGINS[0] - INPUT_LEN : ORIGINS[-1]].size > batch.x_BTN.count_nonzero()
    torch.testing.assert_close(x_BTN3[..., 0], batch.x_BTN)
    torch.testing.assert_close(y_BHN, batch.y_BHN, equal_nan=True)
    time_of_day = (batch.time_of_day_BT / STEPS_A_DAY)[..., None].expand(-1, -1, shape.nodes)
    torch.testing.assert_close(x_BTN3[..., 1], time_of_day)
    day_of_week = batch.day_of_week_BT[..., None].expand(-1, -1, shape.nodes).float()
    torch.testing.assert_close(x_BTN3[..., 2], day_of_week)


@given(nodes=st.integers(8, 40), extra=st.integers(0, 4), seed=st.integers(0, 999))
def test_the_dense_similarity_pads_as_the_blocks_do(nodes: int, extra: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    leaves = split_leaves(generator.random((nodes, 2)), depth=2)
    profiles = generator.standard_normal((24, nodes))
    leaf_size = -(-nodes // 4) + extra
    if leaf_size > nodes:
        return
    dense = dense_similarity.pad_leaves(leaves, leaf_size, profiles)
    blocks = pad_leaves(leaves, leaf_size, profiles)
    for held, made in zip(dense, blocks, strict=True):
        np.testing.assert_array_equal(held, made)


def test_held_predictions_score_the_same(shape: Shape) -> None:
    windows = make_windows(shape, "cpu")
    origins = np.arange(INPUT_LEN, 200)
    last = LastValue(windows, lambda batch: batch.y_BHN.nan_to_num())
    held = held_predictions.mean_absolute_error(last, windows, origins, 16)
    by_batch = score({"last": last}, windows, origins, 16)["last"].pooled.mae
    assert held == pytest.approx(by_batch, rel=1e-5)
