"""Scores of a run, and forecasts from it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from flowpatch.errors import PeriodError, RunNotFoundError, SettingsError
from flowpatch.forecasting import forecast
from flowpatch.model.settings import ModelSettings
from flowpatch.store.sample_store import open_store
from flowpatch.training.evaluation import MODEL, evaluate
from flowpatch.training.run_folder import RunFolder
from flowpatch.training.runs import train
from flowpatch.training.settings import TrainSettings


@pytest.fixture(scope="module")
def run(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on the small city."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    model = ModelSettings(layers=1, input_dims=8, node_dims=4, tod_dims=2, dow_dims=2)
    settings = TrainSettings(max_epoch=2, batch_size=8, learning_rate=0.01, device="cpu")
    train(open_store(small_store), folder, model, settings)
    return folder


def plain_forecasts(run: Path, small_store: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts and labels of every window of a split, each cut and run by itself."""
    trained, store = RunFolder(run).load("best"), open_store(small_store)
    model = trained.model(torch.device("cpu")).eval()
    values = store.read()
    first, stop = store.splits.bounds(split)  # type: ignore[arg-type]
    forecasts, labels = [], []
    for origin in range(first, stop - trained.output_len + 1):
        window = values[origin - trained.input_len : origin].copy()
        for step in range(len(window)):
            missing = np.isnan(window[step])
            before = window[step - 1] if step else np.full(window.shape[1], np.nan)
            window[step][missing] = before[missing]
        scaled = np.nan_to_num(
            (window - trained.statistics.mean) / trained.statistics.deviation, nan=0
        )
        steps = np.arange(origin - trained.input_len, origin)
        with torch.no_grad():
            output = model(
                torch.tensor(scaled[None], dtype=torch.float32),
                torch.tensor(store.axis.time_of_day_index()[steps][None]),
                torch.tensor(store.axis.day_of_week_index()[steps][None]),
            )
        real = output[0].numpy() * trained.statistics.deviation + trained.statistics.mean
        forecasts.append(real)
        labels.append(values[origin : origin + trained.output_len])
    return np.array(forecasts), np.array(labels)


@pytest.mark.parametrize("split", ["val", "test"])
def test_scores_equal_those_of_windows_taken_one_by_one(
    run: Path, small_store: Path, split: str
) -> None:
    found = evaluate(run, split=split, batch_size=7, device="cpu")  # type: ignore[arg-type]
    forecasts, labels = plain_forecasts(run, small_store, split)
    error = forecasts - labels
    pooled = found.tables[MODEL].pooled
    assert found.windows == len(labels)
    assert pooled.labels == int((~np.isnan(labels)).sum())
    assert pooled.mae == pytest.approx(np.nanmean(np.abs(error)), rel=1e-5)
    assert pooled.rmse == pytest.approx(np.sqrt(np.nanmean(error**2)), rel=1e-5)
    third = found.tables[MODEL].horizons[2]
    assert third.mae == pytest.approx(np.nanmean(np.abs(error[:, 2])), rel=1e-5)


def test_the_model_and_four_naive_forecasts_share_their_labels(run: Path) -> None:
    tables = evaluate(run, device="cpu").tables
    assert list(tables) == [
        MODEL,
        "last value",
        "same time yesterday",
        "same time last week",
        "historical mean",
    ]
    assert len({table.pooled.labels for table in tables.values()}) == 1


def test_batch_size_does_not_change_the_scores(run: Path) -> None:
    small = evaluate(run, batch_size=3, device="cpu").tables[MODEL].pooled.mae
    large = evaluate(run, batch_size=64, device="cpu").tables[MODEL].pooled.mae
    assert small == pytest.approx(large, rel=1e-6)


def test_the_result_is_plain_json(run: Path) -> None:
    content = json.loads(json.dumps(evaluate(run, device="cpu").to_json()))
    scores = content["scores"][MODEL]
    assert {"mae", "rmse", "mape", "wape", "rmse_mean_of_horizons"} <= set(scores["pooled"])
    assert [row["horizon"] for row in scores["horizons"]] == [1, 2, 3, 4]


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError, match="gone"):
        evaluate(tmp_path / "gone")


def test_a_forecast_equals_the_window_at_its_origin(run: Path, small_store: Path) -> None:
    store = open_store(small_store)
    origin = store.splits.bounds("test")[0]
    forecasts, _ = plain_forecasts(run, small_store, "test")
    found = forecast(run, origin=str(store.axis.instant_of(origin)), device="cpu")
    assert np.allclose(found.values, forecasts[0], rtol=1e-4, atol=1e-4)
    assert found.instants[0] == store.axis.instant_of(origin)
    assert len(found.nodes) == found.values.shape[1]


def test_a_forecast_begins_after_the_last_observed_step(run: Path, small_store: Path) -> None:
    store = open_store(small_store)
    found = forecast(run, device="cpu")
    assert found.instants[0] == store.axis.instant_of(store.splits.stop)
    assert np.isfinite(found.values).all()
    assert np.diff(found.instants).astype(int).tolist() == [30, 30, 30]


@pytest.mark.parametrize("origin", ["2025-03-03T00:30", "2031-01-01", "1999-01-01T12:00"])
def test_an_origin_without_its_input_is_refused_with_what_is_allowed(
    run: Path, origin: str
) -> None:
    with pytest.raises(PeriodError, match="Allowed: 2025-03-03T04:00 to 2025-03-0"):
        forecast(run, origin=origin)


def test_an_origin_that_is_no_instant_is_refused(run: Path) -> None:
    with pytest.raises(SettingsError, match="tomorrow"):
        forecast(run, origin="tomorrow")


def test_it_is_told_how_often_the_historical_mean_stood_in(run: Path, small_store: Path) -> None:
    found = evaluate(run, device="cpu")
    # Five days hold no value of a week ago.
    assert found.stood_in["same time last week"] == 1.0
    assert found.to_json()["scores"]["same time last week"]["historical_mean_stood_in"] == 1.0
    store = open_store(small_store)
    values, day = store.read(), store.axis.steps_a_day
    first, stop = store.splits.bounds("test")
    labels = [values[o : o + 4] for o in range(first, stop - 3)]
    sources = [values[o - day : o - day + 4] for o in range(first, stop - 3)]
    missing = np.isnan(sources) & ~np.isnan(labels)
    expected = missing.sum() / (~np.isnan(labels)).sum()
    assert 0 < expected < 0.2
    assert found.stood_in["same time yesterday"] == pytest.approx(expected)
