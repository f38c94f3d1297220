"""Masked scores of forecasts in real units, by horizon and pooled, accumulated batch by batch.

A missing label (NaN) counts nowhere. With errors e = forecast - label over the observed labels:

    MAE    mean |e|
    RMSE   sqrt(mean e^2): pooled over all horizons, and as the mean of the horizons' RMSE
    MAPE   mean |e / label| over labels of at least `mape_floor` in size: a percentage of a label
           near zero says nothing
    WAPE   sum |e| / sum |label|

Shape suffixes: B windows, H horizons, N nodes.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

MAPE_FLOOR = 1.0
"""Labels smaller than this, in the unit of the values, are left out of MAPE."""

_CACHED_VALUES = 2**18
"""Labels scored at a time on a CPU: what its cache holds between the passes over them."""


@dataclass(frozen=True)
class Scores:
    """Scores over `labels` observed labels; None where there was none to score."""

    mae: float | None
    rmse: float | None
    mape: float | None
    wape: float | None
    labels: int
    mape_labels: int


@dataclass(frozen=True)
class ScoreTable:
    """Scores of each horizon, first to last, and pooled over all of them."""

    horizons: tuple[Scores, ...]
    pooled: Scores
    rmse_mean_of_horizons: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain values; horizons are numbered from 1."""
        return {
            "pooled": {**asdict(self.pooled), "rmse_mean_of_horizons": self.rmse_mean_of_horizons},
            "horizons": [
                {"horizon": number, **asdict(scores)}
                for number, scores in enumerate(self.horizons, start=1)
            ],
        }


class ScoreSums:
    """Running sums for a ScoreTable; memory does not grow with what is scored.

    Each batch is summed by itself first: whoever sums it, and with however many threads, added up
    in one order the sums are the same to the last digit.
    """

    def __init__(
        self, output_len: int, device: torch.device | str = "cpu", mape_floor: float = MAPE_FLOOR
    ) -> None:
        self._mape_floor = mape_floor
        self._sums_6H = no_sums(output_len, device)

    def add(self, forecast_BHN: Tensor, labels_BHN: Tensor) -> None:
        """Scores one batch; both in real units, labels NaN where missing."""
        self.add_sums(sums_of_batch(forecast_BHN, labels_BHN, self._mape_floor))

    def add_sums(self, sums_6H: Tensor) -> None:
        """Adds what `sums_of_batch` found for one batch."""
        self._sums_6H += sums_6H

    def table(self) -> ScoreTable:
        """The scores of everything added so far."""
        by_horizon = self._sums_6H.T.tolist()
        horizons = tuple(_scores(sums) for sums in by_horizon)
        rmse = [scores.rmse for scores in horizons if scores.rmse is not None]
        return ScoreTable(
            horizons,
            _scores(self._sums_6H.sum(dim=1).tolist()),
            sum(rmse) / len(rmse) if rmse else None,
        )


def no_sums(output_len: int, device: torch.device | str) -> Tensor:
    """(6, H) sums of no batch: labels, sum |e|, sum e^2, labels of MAPE, sum |e / y|, sum |y|."""
    return torch.zeros(6, output_len, dtype=torch.float64, device=device)


def sums_of_batch(
    forecast_BHN: Tensor, labels_BHN: Tensor, mape_floor: float = MAPE_FLOOR
) -> Tensor:
    """(6, H) sums of one batch, for ScoreSums; both in real units, labels NaN where missing."""
    windows, output_len = labels_BHN.shape[:2]
    sums_6H, step = no_sums(output_len, labels_BHN.device), max(1, windows)
    if labels_BHN.device.type == "cpu":
        step = max(1, _CACHED_VALUES // max(1, labels_BHN[:1].numel()))
    for first in range(0, windows, step):
        part = slice(first, first + step)
        sums_6H += _sums(forecast_BHN[part], labels_BHN[part], mape_floor)
    return sums_6H


def _sums(forecast_BHN: Tensor, labels_BHN: Tensor, mape_floor: float) -> Tensor:
    """(6, H) sums of some windows, in the order of `no_sums`."""
    missing = labels_BHN.isnan()
    error = (forecast_BHN - labels_BHN).abs_().masked_fill_(missing, 0)
    size = labels_BHN.abs().masked_fill_(missing, 0)
    small = (size < mape_floor).logical_or_(missing)
    relative = (error / size.clamp(min=mape_floor)).masked_fill_(small, 0)
    cells = labels_BHN.shape[0] * labels_BHN.shape[2]
    counted = [cells - flags.count_nonzero(dim=(0, 2)) for flags in (missing, small)]
    absolute, squared, of_label, sizes = (
        # Added over the nodes in float64, made from a part that is still in the cache. Row by row:
        # of a single sum each thread would add up a part, and so its digits would count threads.
        term.double().sum(dim=2).sum(dim=0)
        for term in (error, error.square(), relative, size)
    )
    return torch.stack([counted[0], absolute, squared, counted[1], of_label, sizes])


def _scores(sums: list[float]) -> Scores:
    labels, absolute, squared, large, relative, size = sums
    return Scores(
        mae=absolute / labels if labels else None,
        rmse=(squared / labels) ** 0.5 if labels else None,
        mape=100 * relative / large if large else None,
        wape=100 * absolute / size if size else None,
        labels=int(labels),
        mape_labels=int(large),
    )


def masked_mae(forecast: Tensor, labels: Tensor) -> Tensor:
    """Mean |forecast - label| over the labels that are not NaN; 0 where there is none."""
    error_sum, count = masked_errors(forecast, labels)
    return error_sum / count.clamp(min=1)


def masked_errors(forecast: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of |forecast - label| over the labels that are not NaN, and how many those are."""
    observed = ~labels.isnan()
    # The label is replaced before subtracting: a NaN would survive a mask in the gradient.
    error = (forecast - labels.where(observed, 0)).abs().where(observed, 0)
    return error.sum(), observed.sum()
