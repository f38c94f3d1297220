"""Scores against a plain loop over cells, however the windows are cut into batches."""

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowpatch.metrics import MAPE_FLOOR, Scores, ScoreSums, ScoreTable, masked_mae

Cells = NDArray[np.float32]
NAN = math.nan

# Near zero on both sides of the floor, exactly zero, negative, large, missing.
LABELS = st.sampled_from([NAN, 0.0, -0.0, 0.5, 0.999, 1.0, -1.0, -0.3, 3.0, -7.5, 4e4])
FORECASTS = st.floats(-1e4, 1e4, width=32)


def plain_scores(forecasts: Cells, labels: Cells, floor: float) -> dict[str, Any]:
    """By the definitions, cell by cell."""
    pairs = [
        (float(forecast), float(label))
        for forecast, label in zip(forecasts.ravel(), labels.ravel(), strict=True)
        if not math.isnan(label)
    ]
    errors = [abs(forecast - label) for forecast, label in pairs]
    relative = [
        abs(forecast - label) / abs(label) for forecast, label in pairs if abs(label) >= floor
    ]
    size = sum(abs(label) for _, label in pairs)
    return {
        "mae": sum(errors) / len(pairs) if pairs else None,
        "rmse": math.sqrt(sum(error**2 for error in errors) / len(pairs)) if pairs else None,
        "mape": 100 * sum(relative) / len(relative) if relative else None,
        "wape": 100 * sum(errors) / size if size else None,
        "labels": len(pairs),
        "mape_labels": len(relative),
    }


def assert_scores(found: Scores, expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        assert getattr(found, name) == (
            None if value is None else pytest.approx(value, rel=1e-5, abs=1e-9)
        ), name


def score_at_once(forecasts: Cells, labels: Cells, floor: float = MAPE_FLOOR) -> ScoreTable:
    sums = ScoreSums(labels.shape[1], mape_floor=floor)
    sums.add(torch.from_numpy(forecasts), torch.from_numpy(labels))
    return sums.table()


@st.composite
def forecasts_and_labels(draw: st.DrawFn) -> tuple[Cells, Cells]:
    shape = tuple(draw(st.integers(1, 4)) for _ in range(3))
    size = math.prod(shape)
    forecasts = draw(st.lists(FORECASTS, min_size=size, max_size=size))
    labels = draw(st.lists(LABELS, min_size=size, max_size=size))
    return (
        np.array(forecasts, dtype=np.float32).reshape(shape),
        np.array(labels, dtype=np.float32).reshape(shape),
    )


# Scores


@settings(deadline=None)
@given(drawn=forecasts_and_labels(), floor=st.sampled_from([MAPE_FLOOR, 0.4, 10.0]))
def test_scores_are_those_of_a_plain_loop(drawn: tuple[Cells, Cells], floor: float) -> None:
    forecasts, labels = drawn
    table = score_at_once(forecasts, labels, floor)
    assert_scores(table.pooled, plain_scores(forecasts, labels, floor))
    assert len(table.horizons) == labels.shape[1]
    by_horizon = [
        plain_scores(forecasts[:, h], labels[:, h], floor) for h in range(labels.shape[1])
    ]
    for found, expected in zip(table.horizons, by_horizon, strict=True):
        assert_scores(found, expected)
    rmse = [one["rmse"] for one in by_horizon if one["rmse"] is not None]
    mean = sum(rmse) / len(rmse) if rmse else None
    assert table.rmse_mean_of_horizons == (
        None if mean is None else pytest.approx(mean, rel=1e-5, abs=1e-9)
    )


@settings(deadline=None)
@given(drawn=forecasts_and_labels(), cuts=st.lists(st.integers(0, 4), max_size=4))
def test_any_cut_into_batches_gives_the_same_scores(
    drawn: tuple[Cells, Cells], cuts: list[int]
) -> None:
    forecasts, labels = drawn
    sums = ScoreSums(labels.shape[1])
    borders = [0, *sorted(min(cut, len(labels)) for cut in cuts), len(labels)]
    for first, stop in itertools.pairwise(borders):
        sums.add(torch.from_numpy(forecasts[first:stop]), torch.from_numpy(labels[first:stop]))
    table, at_once = sums.table(), score_at_once(forecasts, labels)
    for found, whole in zip(
        (table.pooled, *table.horizons), (at_once.pooled, *at_once.horizons), strict=True
    ):
        assert (found.labels, found.mape_labels) == (whole.labels, whole.mape_labels)
        for name in ("mae", "rmse", "mape", "wape"):
            expected = getattr(whole, name)
            assert getattr(found, name) == (
                None if expected is None else pytest.approx(expected, rel=1e-9, abs=1e-12)
            )


def test_pooled_rmse_is_not_the_mean_of_the_horizons() -> None:
    forecasts = np.array([[[1.0], [7.0]]], dtype=np.float32)
    table = score_at_once(forecasts, np.zeros((1, 2, 1), dtype=np.float32))
    assert [one.rmse for one in table.horizons] == [1.0, 7.0]
    assert table.pooled.rmse == pytest.approx(5.0)
    assert table.rmse_mean_of_horizons == pytest.approx(4.0)


def test_labels_below_the_floor_count_in_all_scores_but_mape() -> None:
    labels = np.array([[[0.0, 0.5, 2.0]]], dtype=np.float32)
    pooled = score_at_once(labels + 1, labels).pooled
    assert pooled == Scores(1.0, 1.0, mape=50.0, wape=120.0, labels=3, mape_labels=1)


def test_labels_of_zero_alone_have_no_relative_score() -> None:
    pooled = score_at_once(np.ones((1, 1, 2), np.float32), np.zeros((1, 1, 2), np.float32)).pooled
    assert pooled == Scores(1.0, 1.0, mape=None, wape=None, labels=2, mape_labels=0)


def test_without_a_label_there_is_no_score() -> None:
    nothing = Scores(None, None, None, None, labels=0, mape_labels=0)
    missing = np.full((2, 3, 2), NAN, dtype=np.float32)
    for table in (ScoreSums(3).table(), score_at_once(np.ones_like(missing), missing)):
        assert table == ScoreTable((nothing,) * 3, nothing, None)


def test_a_horizon_without_a_label_is_left_out_of_the_mean_of_horizons() -> None:
    labels = np.array([[[0.0], [NAN]]], dtype=np.float32)
    table = score_at_once(np.full((1, 2, 1), 3.0, dtype=np.float32), labels)
    assert table.horizons[1].rmse is None
    assert table.rmse_mean_of_horizons == 3.0


def test_a_forecast_at_a_missing_label_counts_for_nothing_even_if_it_is_no_number() -> None:
    forecasts = np.array([[[NAN, math.inf, 2.0]]], dtype=np.float32)
    labels = np.array([[[NAN, NAN, 4.0]]], dtype=np.float32)
    assert score_at_once(forecasts, labels).pooled == Scores(2.0, 2.0, 50.0, 50.0, 1, 1)


def test_a_forecast_that_is_no_number_is_not_hidden() -> None:
    forecasts = np.array([[[NAN, 2.0]]], dtype=np.float32)
    pooled = score_at_once(forecasts, np.ones((1, 1, 2), dtype=np.float32)).pooled
    assert pooled.labels == 2
    assert math.isnan(pooled.mae or 0.0)


def test_sums_over_many_batches_lose_nothing() -> None:
    # 16,777,217 is the first whole number that float32 cannot count to.
    sums = ScoreSums(1)
    forecast, label = torch.full((1, 1, 1), 2.0**24), torch.zeros(1, 1, 1)
    sums.add(forecast, label)
    for _ in range(4):
        sums.add(label + 1, label)
    assert sums.table().pooled.mae == (2**24 + 4) / 5


def test_json_numbers_horizons_from_one_and_keeps_every_score() -> None:
    labels = np.array([[[2.0], [NAN]]], dtype=np.float32)
    content = json.loads(json.dumps(score_at_once(labels.copy() + 1, labels).to_json()))
    scores = {"mae": 1.0, "rmse": 1.0, "mape": 50.0, "wape": 50.0, "labels": 1, "mape_labels": 1}
    nothing = dict.fromkeys(("mae", "rmse", "mape", "wape")) | {"labels": 0, "mape_labels": 0}
    assert content == {
        "pooled": {**scores, "rmse_mean_of_horizons": 1.0},
        "horizons": [{"horizon": 1, **scores}, {"horizon": 2, **nothing}],
    }


# The loss


@settings(deadline=None)
@given(drawn=forecasts_and_labels())
def test_loss_is_the_mae_of_the_observed_labels_with_the_gradient_of_a_plain_loop(
    drawn: tuple[Cells, Cells],
) -> None:
    forecasts, labels = drawn
    forecast = torch.from_numpy(forecasts).requires_grad_()
    loss = masked_mae(forecast, torch.from_numpy(labels))
    loss.backward()
    observed = ~np.isnan(labels)
    expected = plain_scores(forecasts, labels, MAPE_FLOOR)["mae"] or 0.0
    assert loss.item() == pytest.approx(expected, rel=1e-5, abs=1e-9)
    signs = np.where(observed, np.sign(forecasts - np.where(observed, labels, 0)), 0)
    assert forecast.grad is not None
    np.testing.assert_allclose(forecast.grad, signs / max(observed.sum(), 1), rtol=1e-6)


def test_loss_of_a_batch_without_labels_is_zero_and_moves_nothing() -> None:
    forecast = torch.tensor([[[1.0, -5.0]]], requires_grad=True)
    loss = masked_mae(forecast, torch.full((1, 1, 2), NAN))
    loss.backward()
    assert loss.item() == 0.0
    assert forecast.grad is not None
    assert forecast.grad.tolist() == [[[0.0, 0.0]]]
