"""Naive forecasts against plain loops; none looks past its origin."""

import csv
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowpatch.model import baselines
from flowpatch.model.baselines import HistoricalMean, LastValue, SameTimeBefore, naive_forecasts
from flowpatch.series.splits import Splits, split_by_ratio
from flowpatch.series.statistics import Statistics
from flowpatch.time_axis import TimeAxis
from flowpatch.training.scoring import score
from flowpatch.windows.batches import Batch
from flowpatch.windows.in_memory import InMemory
from flowpatch.windows.origins import origins_of

STATISTICS = Statistics(mean=7.0, deviation=2.0, observed=1)
NAMES = ["last value", "same time yesterday", "same time last week", "historical mean"]
DAY, WEEK = 4, 28  # steps of six hours
Values = NDArray[np.float32]


def series(days: int, nodes: int, seed: int, missing: float) -> Values:
    generator = np.random.default_rng(seed)
    values = generator.integers(0, 50, (days * DAY, nodes)).astype(np.float32)
    values[generator.random(values.shape) < missing] = np.nan
    return values


def windows_over(
    values: Values, input_len: int, output_len: int, first_step: int = 0, days: int = 0
) -> InMemory:
    axis = TimeAxis.of_days(np.datetime64("2025-03-06"), days or len(values) // DAY, 360)
    return InMemory(values, axis, STATISTICS, input_len, output_len, first_step=first_step)


def test_the_mean_of_some_nodes_at_a_time_is_that_of_all_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    windows = windows_over(series(20, 7, 0, 0.4), 3, 2)
    splits = split_by_ratio(0, len(windows.values_TN), (0.7, 0.1, 0.2))
    batch = windows.batch(np.arange(10, 60))
    at_once = HistoricalMean(windows, splits)(batch)
    monkeypatch.setattr(baselines, "GROUP_BYTES", 3 * 12 * WEEK)
    assert torch.equal(HistoricalMean(windows, splits)(batch), at_once)


# Plain loops


def plain_mean(values: Values, train: range, step: int, node: int) -> float:
    for alike in (
        [other for other in train if (other - step) % WEEK == 0],
        [other for other in train if (other - step) % DAY == 0],
        list(train),
    ):
        seen = [float(values[other, node]) for other in alike]
        observed = [value for value in seen if not math.isnan(value)]
        if observed:
            return sum(observed) / len(observed)
    return STATISTICS.mean


def plain_last(values: Values, origin: int, input_len: int, node: int) -> float:
    for step in range(origin - 1, origin - input_len - 1, -1):
        if not math.isnan(values[step, node]):
            return float(values[step, node])
    return math.nan


def plain_same_time(values: Values, origin: int, step: int, period: int, node: int) -> float:
    while step >= origin:
        step -= period
    return float(values[step, node]) if step >= 0 else math.nan


def plain_forecasts(
    values: Values, splits: Splits, origin: int, input_len: int, output_len: int
) -> dict[str, list[list[float]]]:
    train = range(*splits.bounds("train"))

    def table(of: dict[str, float], step: int, node: int, name: str) -> float:
        own = of[name]
        return plain_mean(values, train, step, node) if math.isnan(own) else own

    forecasts: dict[str, list[list[float]]] = {name: [] for name in NAMES}
    for step in range(origin, origin + output_len):
        rows: dict[str, list[float]] = {name: [] for name in NAMES}
        for node in range(values.shape[1]):
            own = {
                "last value": plain_last(values, origin, input_len, node),
                "same time yesterday": plain_same_time(values, origin, step, DAY, node),
                "same time last week": plain_same_time(values, origin, step, WEEK, node),
                "historical mean": math.nan,
            }
            for name in NAMES:
                rows[name].append(table(own, step, node, name))
        for name in NAMES:
            forecasts[name].append(rows[name])
    return forecasts


@st.composite
def cases(draw: st.DrawFn) -> tuple[Values, Splits, int, int]:
    days = draw(st.integers(4, 24))
    # At times so many missing that the means have nothing to go by.
    missing = draw(st.sampled_from([0.0, 0.3, 0.9, 1.0]))
    values = series(days, 2, draw(st.integers(0, 99)), missing)
    first = draw(st.integers(0, 5))
    splits = split_by_ratio(first, len(values), (0.5, 0.2, 0.3))
    # Labels of up to three days; yesterday is then not the day before the label.
    return values, splits, draw(st.integers(1, 3)), draw(st.integers(1, min(12, days)))


@settings(deadline=None, max_examples=60)
@given(case=cases())
def test_naive_forecasts_are_those_of_plain_loops(case: tuple[Values, Splits, int, int]) -> None:
    values, splits, input_len, output_len = case
    windows = windows_over(values, input_len, output_len)
    origins = np.array([splits.first + input_len, len(values) - output_len])
    batch = windows.batch(origins)
    forecasters = naive_forecasts(windows, splits)
    assert list(forecasters) == NAMES
    expected = [
        plain_forecasts(values, splits, origin, input_len, output_len)
        for origin in origins.tolist()
    ]
    for name, forecaster in forecasters.items():
        found = forecaster(batch)
        assert found.shape == batch.y_BHN.shape
        assert found.dtype == torch.float32
        np.testing.assert_allclose(
            found, [one[name] for one in expected], rtol=1e-5, atol=1e-5, err_msg=name
        )


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 99),
    output_len=st.integers(1, 10),
    ahead=st.integers(0, 20),
    spoilt=st.sampled_from([np.nan, 1e6]),
)
def test_what_lies_at_or_after_the_origin_changes_no_forecast(
    seed: int, output_len: int, ahead: int, spoilt: float
) -> None:
    values = series(20, 3, seed, missing=0.2)
    splits = split_by_ratio(0, len(values), (0.5, 0.2, 0.3))
    origin = splits.val_start + ahead
    later = values.copy()
    later[origin:] = spoilt

    def forecasts(of: Values) -> dict[str, torch.Tensor]:
        windows = windows_over(of, 3, output_len)
        batch = windows.batch(np.array([origin]))
        return {name: one(batch) for name, one in naive_forecasts(windows, splits).items()}

    untouched, found = forecasts(values), forecasts(later)
    for name in NAMES:
        torch.testing.assert_close(found[name], untouched[name], rtol=0, atol=0)
        assert found[name].isfinite().all()


def test_labels_more_than_a_day_ahead_repeat_the_last_day_that_is_known() -> None:
    values = np.arange(12 * DAY, dtype=np.float32)[:, None]
    windows = windows_over(values, 2, 10)
    batch = windows.batch(np.array([32]))
    mean = HistoricalMean(windows, Splits(0, 20, 30, 48))
    yesterday = SameTimeBefore(windows, DAY, mean)(batch).flatten().tolist()
    assert yesterday == [28, 29, 30, 31, 28, 29, 30, 31, 28, 29]
    last_week = SameTimeBefore(windows, WEEK, mean)(batch).flatten().tolist()
    assert last_week == [4, 5, 6, 7, 8, 9, 10, 11, 12, 13]


def test_last_value_is_the_latest_observed_of_the_input_alone() -> None:
    nan = math.nan
    values = np.array([[5, 1, 9], [nan, 2, nan], [6, nan, nan], [nan, nan, nan]] * 2, np.float32)
    windows = windows_over(values, 3, 1)
    mean = HistoricalMean(windows, Splits(0, 8, 8, 8))
    # Node 2 was last observed before the input: its mean at that time is 9, all that it ever was.
    assert LastValue(windows, mean)(windows.batch(np.array([4]))).flatten().tolist() == [6, 2, 9]


def test_historical_mean_falls_back_from_week_to_day_to_node_to_all() -> None:
    values = np.full((8 * DAY, 4), np.nan, dtype=np.float32)
    values[0, 0] = 10  # this time of the week
    values[DAY, 1], values[2 * DAY, 1] = 20, 22  # other days at this time
    values[1, 2], values[2, 2] = 30, 34  # other times
    windows = windows_over(values, 1, 1)
    mean = HistoricalMean(windows, Splits(0, WEEK, WEEK, WEEK + 1))
    assert mean(windows.batch(np.array([WEEK]))).flatten().tolist() == [10, 21, 32, 7]


def test_historical_mean_sees_the_training_period_alone() -> None:
    values = series(21, 2, 0, missing=0.1)
    splits = Splits(3, 40, 60, 84)
    other = values.copy()
    other[:3], other[40:] = 1e6, 1e6
    origins = np.arange(41, 80)

    def forecast(of: Values) -> torch.Tensor:
        windows = windows_over(of, 1, 4)
        return HistoricalMean(windows, splits)(windows.batch(origins))

    torch.testing.assert_close(forecast(other), forecast(values), rtol=0, atol=0)


def test_a_piece_of_the_series_gives_the_same_forecasts_where_it_reaches_back_far_enough() -> None:
    values = series(24, 2, 1, missing=0.2)
    splits = Splits(10, 60, 70, 96)
    whole, part = windows_over(values, 3, 6), windows_over(values[8:], 3, 6, 8, days=24)
    origins = np.arange(WEEK + 8, 90)
    for name, forecaster in naive_forecasts(part, splits).items():
        expected = naive_forecasts(whole, splits)[name](whole.batch(origins))
        torch.testing.assert_close(
            forecaster(part.batch(origins)), expected, rtol=0, atol=0, msg=name
        )


@pytest.mark.parametrize(("first_step", "rows"), [(30, 60), (11, 60), (0, 50)])
def test_a_piece_without_the_training_period_is_refused(first_step: int, rows: int) -> None:
    values = series(24, 2, 1, missing=0)[first_step : first_step + rows]
    with pytest.raises(IndexError, match=r"steps 10\.\.60 are not within"):
        naive_forecasts(windows_over(values, 3, 6, first_step, days=24), Splits(10, 60, 70, 96))


# Real data


@pytest.fixture(scope="module")
def aarhus(shared: Path) -> tuple[Values, TimeAxis]:
    """The dense series by plain numpy: the mean of each cell's records."""
    folder = shared / "data" / "aarhus"
    with (folder / "nodes.csv").open(encoding="utf-8") as file:
        keys = np.sort([int(row["sensor_id"]) for row in csv.DictReader(file)])
    table = pq.read_table(
        folder / "records.parquet", columns=["sensor_id", "passts_time", "flow_label"]
    )
    instants = table["passts_time"].to_numpy().astype("datetime64[m]")
    axis = TimeAxis.of_days(np.datetime64("2014-08-01"), 61, 5)
    step = (instants - axis.start).astype(np.int64) // 5
    node = np.searchsorted(keys, table["sensor_id"].to_numpy())
    cell = step * len(keys) + node
    counts = np.bincount(cell, minlength=axis.length * len(keys))
    total = np.bincount(cell, table["flow_label"].to_numpy(), minlength=len(counts))
    values = np.divide(total, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    return values.reshape(axis.length, len(keys)).astype(np.float32), axis


def no_fallback(batch: Batch) -> torch.Tensor:
    return torch.full_like(batch.y_BHN, math.nan)


def test_naive_scores_on_aarhus_are_the_known_ones(aarhus: tuple[Values, TimeAxis]) -> None:
    values, axis = aarhus
    splits = split_by_ratio(0, len(values), (0.6, 0.2, 0.2))
    windows = InMemory(values, axis, STATISTICS, 12, 12)
    origins = origins_of(splits, "test", 12, 12)[::7]
    # The known figures count a cell where both the label and the value before it were observed.
    for period, known in ((axis.steps_a_day, 1.93), (axis.steps_a_week, 1.59)):
        forecaster = SameTimeBefore(windows, period, no_fallback)
        error = torch.cat(
            [(forecaster(batch) - batch.y_BHN).abs() for batch in windows.batches(origins, 64)]
        )
        assert error.nanmean().item() == pytest.approx(known, abs=0.03)


def test_all_naive_forecasts_are_scored_on_the_same_labels(
    aarhus: tuple[Values, TimeAxis],
) -> None:
    values, axis = aarhus
    splits = split_by_ratio(0, len(values), (0.6, 0.2, 0.2))
    windows = InMemory(values, axis, STATISTICS, 12, 12)
    origins = origins_of(splits, "test", 12, 12)[::29]
    tables = score(naive_forecasts(windows, splits), windows, origins, 64)
    observed = sum(np.isfinite(values[one : one + 12]).sum() for one in origins.tolist())
    assert {table.pooled.labels for table in tables.values()} == {observed}
    # Where its own value is missing, the historical mean stands in, which is no wild guess.
    assert tables["same time yesterday"].pooled.mae == pytest.approx(1.93, abs=0.08)
    assert tables["same time last week"].pooled.mae == pytest.approx(1.59, abs=0.08)
