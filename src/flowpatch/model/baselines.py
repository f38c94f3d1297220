"""Naive forecasts, called like the model: a batch in, (B, H, N) out, in real units.

None looks past its origin. Where its own value is missing, a baseline falls back to the
historical mean, so that all are scored on the same labels.

Shape suffixes: B windows, T input steps, H label steps, N nodes, C steps of a week.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from flowpatch.series.splits import Splits
from flowpatch.time_axis import DAYS_A_WEEK
from flowpatch.windows.batches import Batch, Windows

GROUP_BYTES = 2**28
"""Memory for the sums of as many nodes as are averaged at a time."""
_SUM_BYTES = 12
"""Of a node's sum and count at one time of the week."""

Forecaster = Callable[[Batch], Tensor]
"""A batch to its (B, H, N) forecasts in real units."""


def naive_forecasts(windows: Windows, splits: Splits) -> dict[str, Forecaster]:
    """The four naive forecasts by name, fitted on the training period alone."""
    mean = HistoricalMean(windows, splits)
    day, week = windows.axis.steps_a_day, windows.axis.steps_a_week
    return {
        "last value": LastValue(windows, mean),
        "same time yesterday": SameTimeBefore(windows, day, mean),
        "same time last week": SameTimeBefore(windows, week, mean),
        "historical mean": mean,
    }


class HistoricalMean:
    """The mean of the training values at the same time of the week.

    Where the training period never saw that time of the week: the node's mean at the time of day,
    else the node's mean, else the mean of all.

    Raises:
        IndexError: the windows are a piece of the series without the whole training period.
    """

    def __init__(self, windows: Windows, splits: Splits) -> None:
        self._steps_a_day = windows.axis.steps_a_day
        first, stop = splits.bounds("train")
        begin, end = windows.first_step, windows.first_step + len(windows.values_TN)
        if not begin <= first <= stop <= end:
            raise IndexError(f"the training steps {first}..{stop} are not within {begin}..{end}")
        values_TN = windows.values_TN[first - begin : stop - begin]
        steps = torch.arange(first, stop, device=windows.device)
        time_of_day, day_of_week = windows.calendar(steps)
        slot = day_of_week * self._steps_a_day + time_of_day

        steps_a_week, nodes = windows.axis.steps_a_week, values_TN.shape[1]
        self._mean_CN = torch.empty((steps_a_week, nodes), device=windows.device)
        # Some nodes at a time: sums and counts take six times as much as the means.
        at_once = max(1, GROUP_BYTES // (_SUM_BYTES * steps_a_week))
        for first_node in range(0, nodes, at_once):
            group = slice(first_node, first_node + at_once)
            part_TN = values_TN[:, group]
            mean_N = part_TN.nanmean(dim=0).nan_to_num(nan=windows.statistics.mean)
            by_day = _mean_by(time_of_day, part_TN, self._steps_a_day)
            by_day = by_day.where(~by_day.isnan(), mean_N)
            by_week = _mean_by(slot, part_TN, steps_a_week)
            # The rows of a week are seven days in order, so the day's means repeat seven times.
            by_week = by_week.where(~by_week.isnan(), by_day.repeat(DAYS_A_WEEK, 1))
            self._mean_CN[:, group] = by_week

    def __call__(self, batch: Batch) -> Tensor:
        """(B, H, N) in real units."""
        return self._mean_CN[batch.day_of_week_BH * self._steps_a_day + batch.time_of_day_BH]


class LastValue:
    """The latest observed value of the input, repeated."""

    def __init__(self, windows: Windows, otherwise: Forecaster) -> None:
        self._windows = windows
        self.stand_in = StandIn(otherwise, windows.device)

    def __call__(self, batch: Batch) -> Tensor:
        """(B, H, N) in real units."""
        window = torch.arange(-self._windows.input_len, 0, device=batch.origins_B.device)
        steps_BT = batch.origins_B[:, None] + window - self._windows.first_step
        values_BTN = self._windows.values_TN[steps_BT]
        age = torch.arange(values_BTN.shape[1], device=values_BTN.device)[:, None]
        latest_B1N = age.where(~values_BTN.isnan(), 0).amax(dim=1, keepdim=True)
        last_B1N = values_BTN.gather(1, latest_B1N)
        return self.stand_in.fill(last_B1N.expand_as(batch.y_BHN), batch)


class SameTimeBefore:
    """The value a whole number of periods before each label: the latest that the origin knows."""

    def __init__(self, windows: Windows, period: int, otherwise: Forecaster) -> None:
        self._windows, self._period = windows, period
        self.stand_in = StandIn(otherwise, windows.device)

    def __call__(self, batch: Batch) -> Tensor:
        """(B, H, N) in real units."""
        ahead_H = torch.arange(batch.y_BHN.shape[1], device=batch.origins_B.device)
        # A label more than one period ahead of its origin must go back further.
        back_H = (ahead_H // self._period + 1) * self._period
        steps_BH = batch.origins_B[:, None] + ahead_H - back_H - self._windows.first_step
        values_BHN = self._windows.values_TN[steps_BH.clamp(min=0)]
        values_BHN = values_BHN.where(steps_BH[:, :, None] >= 0, torch.nan)
        return self.stand_in.fill(values_BHN, batch)


class StandIn:
    """Another forecast where a naive one has no value of its own, and how often that was."""

    def __init__(self, otherwise: Forecaster, device: torch.device) -> None:
        self._otherwise = otherwise
        self._labels_2 = torch.zeros(2, dtype=torch.int64, device=device)

    def fill(self, values_BHN: Tensor, batch: Batch) -> Tensor:
        """(B, H, N) without a gap."""
        own, label = ~values_BHN.isnan(), ~batch.y_BHN.isnan()
        self._labels_2 += torch.stack([(label & ~own).sum(), label.sum()])
        return values_BHN.where(own, self._otherwise(batch))

    def share(self) -> float:
        """The share of the labels so far for which the other forecast stood in."""
        stood_in, labels = self._labels_2.tolist()
        return stood_in / labels if labels else 0.0


def _mean_by(group_T: Tensor, values_TN: Tensor, groups: int) -> Tensor:
    """(groups, N) mean of the observed values of each group, NaN where there is none."""
    observed = ~values_TN.isnan()
    shape = (groups, values_TN.shape[1])
    total = torch.zeros(shape, dtype=torch.float64, device=values_TN.device)
    count = torch.zeros(shape, dtype=torch.int32, device=values_TN.device)
    total.index_add_(0, group_T, values_TN.nan_to_num(nan=0.0).double())
    count.index_add_(0, group_T, observed.int())
    return (total / count).float()
