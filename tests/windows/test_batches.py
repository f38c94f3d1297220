"""Batches against slicing, missing cells against a plain loop, times against the calendar."""

import dataclasses
import math
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowpatch.preprocessing.build import preprocess
from flowpatch.preprocessing.settings import PreprocessSettings
from flowpatch.series.statistics import Statistics
from flowpatch.time_axis import TimeAxis
from flowpatch.windows.batches import Batch
from flowpatch.windows.in_memory import InMemory
from flowpatch.windows.inputs import FEW_SHARE, hide_by_mask, hide_few
from flowpatch.windows.missing import Missing
from flowpatch.windows.origins import origins_of

STATISTICS = Statistics(mean=3.0, deviation=2.5, observed=1)
STEP_MINUTES = 240
STEPS_A_DAY = 6
MISSING: tuple[Missing, ...] = get_args(Missing)


def series(days: int, nodes: int, seed: int, *, missing: float = 0.3) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    values = generator.normal(3, 2, (days * STEPS_A_DAY, nodes)).astype(np.float32)
    values[generator.random(values.shape) < missing] = np.nan
    return values


def axis_of(days: int, first_day: str = "2025-03-05") -> TimeAxis:
    return TimeAxis.of_days(np.datetime64(first_day), days, STEP_MINUTES)


def all_origins(windows: InMemory) -> NDArray[np.int64]:
    first = windows.first_step + windows.input_len
    return np.arange(first, windows.first_step + len(windows.values_TN) - windows.output_len + 1)


def plain_fill(
    column: NDArray[np.float32], missing: Missing, statistics: Statistics
) -> list[float]:
    """Scaled values of one node in one window, missing cells filled."""
    filled: list[float] = []
    last: float | None = None
    for value in column.tolist():
        if not math.isnan(value):
            last = value
            seen = value
        elif missing == "zero":
            seen = 0.0
        elif missing == "last" and last is not None:
            seen = last
        else:
            seen = statistics.mean
        filled.append((seen - statistics.mean) / statistics.deviation)
    return filled


def assert_same_batch(one: Batch, other: Batch) -> None:
    for field in dataclasses.fields(Batch):
        torch.testing.assert_close(
            getattr(one, field.name), getattr(other, field.name), rtol=0, atol=0, equal_nan=True
        )


SHAPES = {
    "days": st.integers(1, 4),
    "nodes": st.integers(1, 4),
    "input_len": st.integers(1, 9),
    "output_len": st.integers(1, 9),
    "seed": st.integers(0, 999),
}


# The gather


@settings(deadline=None)
@given(**SHAPES, missing=st.sampled_from(MISSING), data=st.data())
def test_a_batch_is_what_slicing_gives_at_any_origins(
    days: int,
    nodes: int,
    input_len: int,
    output_len: int,
    seed: int,
    missing: Missing,
    data: st.DataObject,
) -> None:
    values = series(days + 2, nodes, seed)
    windows = InMemory(values, axis_of(days + 2), STATISTICS, input_len, output_len, missing)
    # Any order, repeats allowed, none allowed.
    origins = data.draw(st.lists(st.sampled_from(all_origins(windows).tolist()), max_size=6))
    batch = windows.batch(np.array(origins, dtype=np.int64))
    assert len(batch) == len(origins)
    assert batch.x_BTN.shape == (len(origins), input_len, nodes)
    assert batch.y_BHN.shape == (len(origins), output_len, nodes)
    assert (batch.x_BTN.dtype, batch.y_BHN.dtype) == (torch.float32, torch.float32)
    assert batch.origins_B.tolist() == origins
    for row, origin in enumerate(origins):
        np.testing.assert_array_equal(batch.y_BHN[row], values[origin : origin + output_len])
        inputs = values[origin - input_len : origin]
        expected = [plain_fill(column, missing, STATISTICS) for column in inputs.T]
        np.testing.assert_allclose(batch.x_BTN[row].T, expected, rtol=1e-5, atol=1e-6)


@settings(deadline=None)
@given(**SHAPES)
def test_every_origin_of_the_series_can_be_cut(
    days: int, nodes: int, input_len: int, output_len: int, seed: int
) -> None:
    values = series(days + 2, nodes, seed, missing=0)
    windows = InMemory(values, axis_of(days + 2), STATISTICS, input_len, output_len)
    batch = windows.batch(all_origins(windows))
    assert len(batch) == len(values) - input_len - output_len + 1
    for row, origin in enumerate(all_origins(windows)):
        whole = torch.cat([STATISTICS.unscale(batch.x_BTN[row]), batch.y_BHN[row]])
        np.testing.assert_allclose(
            whole, values[origin - input_len : origin + output_len], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("first_step", [0, 12])
def test_origins_outside_the_series_are_refused(first_step: int) -> None:
    windows = InMemory(
        series(4, 2, 0)[first_step:], axis_of(4), STATISTICS, 3, 2, first_step=first_step
    )
    lowest, highest = first_step + 3, 22
    assert len(windows.batch(np.array([lowest, highest]))) == 2
    for origin in (lowest - 1, highest + 1, -1, -20, 2**40):
        with pytest.raises(IndexError, match=rf"allowed {lowest}\.\.{highest}"):
            windows.batch(np.array([lowest, origin]))


def test_a_series_shorter_than_a_window_has_no_origin() -> None:
    windows = InMemory(series(1, 2, 0), axis_of(1), STATISTICS, 4, 3)
    for origin in range(-1, 8):
        with pytest.raises(IndexError):
            windows.batch(np.array([origin]))


@settings(deadline=None)
@given(seed=st.integers(0, 99), piece=st.tuples(st.integers(0, 10), st.integers(18, 24)))
def test_a_piece_of_the_series_gives_the_same_batches(seed: int, piece: tuple[int, int]) -> None:
    values, axis = series(4, 3, seed), axis_of(4)
    first, stop = piece
    whole = InMemory(values, axis, STATISTICS, 4, 3)
    part = InMemory(values[first:stop], axis, STATISTICS, 4, 3, first_step=first)
    assert len(all_origins(part)) == stop - first - 6
    assert_same_batch(part.batch(all_origins(part)), whole.batch(all_origins(part)))


def test_origins_may_be_a_view_of_another_array() -> None:
    windows = InMemory(series(4, 2, 0), axis_of(4), STATISTICS, 3, 2)
    backwards = all_origins(windows)[::-2]
    assert_same_batch(windows.batch(backwards), windows.batch(backwards.copy()))


@settings(deadline=None)
@given(count=st.integers(0, 12), batch_size=st.integers(1, 14))
def test_batches_cover_the_origins_in_order(count: int, batch_size: int) -> None:
    windows = InMemory(series(4, 2, 0), axis_of(4), STATISTICS, 3, 2)
    origins = np.random.default_rng(count).permutation(all_origins(windows))[:count]
    batches = list(windows.batches(origins, batch_size))
    assert [one for batch in batches for one in batch.origins_B.tolist()] == origins.tolist()
    sizes = [len(batch) for batch in batches]
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
    assert all(0 < size <= batch_size for size in sizes)


@pytest.mark.parametrize("missing", MISSING)
def test_cutting_batches_leaves_the_series_as_it_was(missing: Missing) -> None:
    values = series(4, 3, 1)
    windows = InMemory(values.copy(), axis_of(4), STATISTICS, 5, 4, missing)
    untouched = windows.batch(all_origins(windows))
    batch = windows.batch(all_origins(windows))
    batch.x_BTN.zero_()
    batch.y_BHN.zero_()
    np.testing.assert_array_equal(windows.values_TN, values)
    assert_same_batch(windows.batch(all_origins(windows)), untouched)


def plain_inputs(
    values: NDArray[np.float32],
    statistics: Statistics,
    origins: list[int],
    input_len: int,
    missing: Missing,
) -> torch.Tensor:
    """What each window shows, gathered, scaled and filled window by window."""
    windows = [torch.from_numpy(values[origin - input_len : origin]) for origin in origins]
    scaled = statistics.scale(torch.stack(windows))
    if missing == "zero":
        return scaled.nan_to_num(nan=statistics.scale(0.0))
    if missing == "last":
        position = torch.arange(input_len)[:, None]
        observed_at = position.where(~scaled.isnan(), 0).cummax(dim=1).values
        scaled = scaled.gather(1, observed_at)
    return scaled.nan_to_num(nan=0.0)


@settings(deadline=None)
@given(
    steps=st.integers(30, 120),
    nodes=st.integers(1, 5),
    input_len=st.sampled_from([1, 2, 3, 4, 7, 8, 9, 16, 17]),
    share=st.sampled_from([0.0, 0.02, 0.5, 0.97, 1.0]),
    run=st.integers(1, 25),
    first_step=st.sampled_from([0, 12]),
    missing=st.sampled_from(MISSING),
    seed=st.integers(0, 999),
)
def test_inputs_prepared_once_are_those_of_each_window_to_the_bit(
    steps: int,
    nodes: int,
    input_len: int,
    share: float,
    run: int,
    first_step: int,
    missing: Missing,
    seed: int,
) -> None:
    generator = np.random.default_rng(seed)
    values = generator.gamma(2, 40, (steps, nodes)).astype(np.float32)
    # Gaps of `run` steps: shorter and longer than a window, across the borders of pieces.
    gaps = generator.random((-(-steps // run), nodes)) < share
    values[np.repeat(gaps, run, axis=0)[:steps]] = np.nan
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("flowpatch.windows.inputs.PIECE_BYTES", {"cpu": 1})
        windows = InMemory(
            values, axis_of(30), STATISTICS, input_len, 2, missing, first_step=first_step
        )
        origins = generator.permutation(all_origins(windows))
        for part in np.array_split(origins, 5):
            batch = windows.batch(part)
            rows = (part - first_step).tolist()
            if rows:
                expected = plain_inputs(values, STATISTICS, rows, input_len, missing)
                torch.testing.assert_close(batch.x_BTN, expected, rtol=0, atol=0)


@pytest.mark.parametrize("input_len", [100, 200])
def test_gaps_of_long_windows_are_counted_in_full(input_len: int) -> None:
    values = np.full((800, 2), np.nan, dtype=np.float32)
    values[::190, 0] = 7.0
    axis = TimeAxis.of_days(np.datetime64("2025-03-05"), 134, 240)
    windows = InMemory(values, axis, STATISTICS, input_len, 1)
    origins = all_origins(windows)
    expected = plain_inputs(values, STATISTICS, origins.tolist(), input_len, "last")
    torch.testing.assert_close(windows.batch(origins).x_BTN, expected, rtol=0, atol=0)


# Missing cells


@pytest.mark.parametrize(
    ("missing", "seen"),
    [
        ("zero", [0.0, 5.0, 0.0, 0.0, 8.0, 0.0]),
        ("last", [3.0, 5.0, 5.0, 5.0, 8.0, 8.0]),  # nothing before the first: the mean, 3
        ("mean", [3.0, 5.0, 3.0, 3.0, 8.0, 3.0]),
    ],
)
def test_what_the_model_sees_in_missing_cells(missing: Missing, seen: list[float]) -> None:
    nan = math.nan
    # The value before the window, 100, is seen by none.
    values = np.array([100.0, nan, 5.0, nan, nan, 8.0, nan, nan, 1, 1, 1, 1], dtype=np.float32)
    windows = InMemory(values[:, None], axis_of(2), STATISTICS, 6, 2, missing)
    batch = windows.batch(np.array([7]))
    assert STATISTICS.unscale(batch.x_BTN).flatten().tolist() == pytest.approx(seen)
    np.testing.assert_array_equal(batch.y_BHN.flatten(), [nan, 1.0])


@pytest.mark.parametrize("missing", MISSING)
def test_no_missing_cell_reaches_the_model(missing: Missing) -> None:
    values = np.full((24, 2), np.nan, dtype=np.float32)
    windows = InMemory(values, axis_of(4), STATISTICS, 6, 2, missing)
    batch = windows.batch(np.array([6, 10]))
    assert batch.x_BTN.isfinite().all()
    assert batch.x_BTN.unique().numel() == 1
    assert batch.y_BHN.isnan().all()


# The calendar


@settings(deadline=None)
@given(
    first_day=st.dates(
        min_value=np.datetime64("1990-01-01").item(), max_value=np.datetime64("2060-12-31").item()
    ),
    step_minutes=st.sampled_from([1, 5, 15, 60, 240, 720, 1440]),
    origin_day=st.integers(1, 29),
)
def test_time_features_come_from_the_calendar(
    first_day: Any, step_minutes: int, origin_day: int
) -> None:
    axis = TimeAxis.of_days(np.datetime64(first_day), 31, step_minutes)
    windows = InMemory(np.zeros((axis.length, 1), dtype=np.float32), axis, STATISTICS, 1, 1)
    # The last step of a day and the first of the next: both sides of a midnight.
    batch = windows.batch(np.array([origin_day * axis.steps_a_day]))
    features = [
        (batch.time_of_day_BT, batch.day_of_week_BT, -1),
        (batch.time_of_day_BH, batch.day_of_week_BH, 0),
    ]
    for time_of_day, day_of_week, offset in features:
        instant = np.datetime64(first_day).astype("datetime64[m]") + np.timedelta64(
            (origin_day * axis.steps_a_day + offset) * step_minutes, "m"
        )
        moment = instant.item()
        assert time_of_day.item() == (moment.hour * 60 + moment.minute) // step_minutes
        assert day_of_week.item() == moment.weekday()


def test_weekdays_are_not_counted_from_the_first_row() -> None:
    # 2025-03-08 was a Saturday.
    windows = InMemory(series(3, 1, 0), axis_of(3, "2025-03-08"), STATISTICS, 6, 6)
    batch = windows.batch(np.array([6, 9]))
    assert batch.day_of_week_BT.tolist() == [[5] * 6, [5] * 3 + [6] * 3]
    assert batch.day_of_week_BH.tolist() == [[6] * 6, [6] * 3 + [0] * 3]
    assert batch.time_of_day_BT.tolist() == [[0, 1, 2, 3, 4, 5], [3, 4, 5, 0, 1, 2]]


# Parts of a batch


@given(count=st.integers(1, 12), most=st.integers(1, 14))
def test_the_parts_of_a_batch_are_its_windows_in_order(count: int, most: int) -> None:
    windows = InMemory(series(8, 3, 0), axis_of(8), STATISTICS, 5, 2)
    origins = np.arange(5, 5 + count)
    parts = windows.batch(origins).split(most)
    sizes = [len(part) for part in parts]
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert len(parts) == -(-count // most)
    stops = np.cumsum(sizes)
    for part, stop in zip(parts, stops.tolist(), strict=True):
        assert_same_batch(part, windows.batch(origins[stop - len(part) : stop]))


# What a batch refuses, and where windows come from


@pytest.mark.parametrize(
    "part",
    ["y_BHN", "time_of_day_BT", "day_of_week_BT", "time_of_day_BH", "day_of_week_BH", "origins_B"],
)
def test_a_batch_whose_parts_differ_in_shape_is_refused(part: str) -> None:
    windows = InMemory(series(4, 3, 0), axis_of(4), STATISTICS, 5, 2)
    batch = windows.batch(np.array([7, 8, 9]))
    with pytest.raises(ValueError, match="differ in shape"):
        dataclasses.replace(batch, **{part: getattr(batch, part)[:-1]})
    if part != "origins_B":
        with pytest.raises(ValueError, match="differ in shape"):
            dataclasses.replace(batch, **{part: getattr(batch, part)[:, :-1]})


def test_windows_of_a_store_hold_its_series_and_scaling(small_city: Path, tmp_path: Path) -> None:
    store = preprocess(
        PreprocessSettings(
            records=str(small_city / "records.parquet"),
            nodes=str(small_city / "nodes.csv"),
            node_columns=("sensor_id",),
            step_minutes=30,
            store=tmp_path / "city.store",
            input_len=6,
            output_len=4,
        )
    )
    windows = InMemory.of_store(store)
    assert (windows.input_len, windows.output_len, windows.nodes) == (6, 4, 12)
    origins = origins_of(store.splits, "train", 6, 4)
    batch = windows.batch(origins)
    np.testing.assert_array_equal(batch.y_BHN[0], store.read(origins[0], origins[0] + 4))
    first, stop = store.splits.bounds("train")
    scaled = store.statistics.scale(store.read(first, stop))
    assert np.nanmean(scaled) == pytest.approx(0, abs=1e-4)
    assert np.nanstd(scaled) == pytest.approx(1, abs=1e-4)
    shorter = InMemory.of_store(store, input_len=3, output_len=1, missing="zero")
    assert (shorter.input_len, shorter.output_len, shorter.missing) == (3, 1, "zero")


@given(
    seed=st.integers(0, 2**32 - 1),
    share=st.sampled_from([0, 0.05, 0.15, 1]),
    windows=st.integers(1, 4),
    steps=st.integers(1, 6),
)
def test_cells_hidden_one_by_one_are_those_of_the_mask(
    seed: int, share: float, windows: int, steps: int
) -> None:
    generator = np.random.default_rng(seed)
    chosen = generator.random((windows, 40)) < share
    unseen_BN = torch.from_numpy(chosen * generator.integers(1, steps + 1, chosen.shape))
    by_mask_BTN = torch.ones(windows, steps, 40)
    one_by_one_BTN = by_mask_BTN.clone()
    hide_by_mask(by_mask_BTN, unseen_BN, torch.arange(steps)[:, None])
    if hide_few(one_by_one_BTN, unseen_BN):
        assert torch.equal(one_by_one_BTN, by_mask_BTN)
    else:
        assert chosen.mean() > FEW_SHARE
        assert (one_by_one_BTN == 1).all()


def test_an_epoch_visits_every_origin_once_in_an_order_of_its_own() -> None:
    windows = InMemory(series(60, 2, seed=1), axis_of(60), STATISTICS, 3, 2)
    origins = np.arange(50, 350)
    first, second = (windows.epoch_order(origins, seed=1, epoch=epoch) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(origins)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, windows.epoch_order(origins, seed=1, epoch=0))
    assert not np.array_equal(first, windows.epoch_order(origins, seed=2, epoch=0))
