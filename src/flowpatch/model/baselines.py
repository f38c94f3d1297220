"""Naive forecasts, called like the model: a batch in, (B, H, N) out, in real units.

None looks past its origin. Where its own value is missing, a baseline falls back to the
historical mean, so that all are scored on the same labels.

Shape suffixes: B windows, T input steps, H label steps, N nodes, C steps of a week.
"""

from collections.abc import Callable, Iterable
from copy import copy

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


def periods_of(forecasters: Iterable[Forecaster]) -> list[int]:
    """How many steps the naive ones among them look back from an origin, beyond its window."""
    return [one.period for one in forecasters if isinstance(one, SameTimeBefore)]


class HistoricalMean:
    """The mean of the training values at the same time of the week.

    Where the training period never saw that time of the week: the node's mean at the time of day,
    else the node's mean, else the mean of all.

    Raises:
        IndexError: the windows are a piece of the series without the whole training period.
    """

    def __init__(self, windows: Windows, splits: Splits) -> None:
        self._steps_a_day = windows.axis.steps_a_day
        nodes, steps_a_week = windows.nodes, windows.axis.steps_a_week
        self._mean_CN = torch.empty((steps_a_week, nodes), device=windows.device)
        # Some nodes at a time: sums and counts take three times as much as the means.
        at_once = max(1, GROUP_BYTES // (_SUM_BYTES * steps_a_week))
        for first_node in range(0, nodes, at_once):
            group = slice(first_node, min(nodes, first_node + at_once))
            self._mean_CN[:, group] = self._means(windows, splits, group)

    def _means(self, windows: Windows, splits: Splits, group: slice) -> Tensor:
        """(C, group) means of some nodes."""
        of_week = _Sums(windows.axis.steps_a_week, group.stop - group.start, windows.device)
        # Day by day, as the training period may be larger than memory.
        for first, values_SN in windows.days(*splits.bounds("train")):
            steps = torch.arange(first, first + len(values_SN), device=windows.device)
            time_of_day, day_of_week = windows.calendar(steps)
            of_week.add(day_of_week * self._steps_a_day + time_of_day, values_SN[:, group])
        # The rows of a week are seven days in order.
        of_day = of_week.over(DAYS_A_WEEK)
        mean_1N = of_day.over(self._steps_a_day).means().nan_to_num_(nan=windows.statistics.mean)
        by_day = of_day.means()
        by_day = by_day.where(~by_day.isnan(), mean_1N)
        by_week = of_week.means()
        for day_CN in torch.split(by_week, self._steps_a_day):
            torch.where(day_CN.isnan(), by_day, day_CN, out=day_CN)
        return by_week

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
        values_BTN = self._windows.values(batch.origins_B, -self._windows.input_len, 0)
        age = torch.arange(values_BTN.shape[1], device=values_BTN.device)[:, None]
        latest_B1N = age.where(~values_BTN.isnan(), 0).amax(dim=1, keepdim=True)
        last_B1N = values_BTN.gather(1, latest_B1N)
        return self.stand_in.fill(last_B1N.expand_as(batch.y_BHN), batch)


class SameTimeBefore:
    """The value a whole number of periods before each label: the latest that the origin knows."""

    def __init__(self, windows: Windows, period: int, otherwise: Forecaster) -> None:
        self._windows, self.period = windows, period
        self.stand_in = StandIn(otherwise, windows.device)

    def __call__(self, batch: Batch) -> Tensor:
        """(B, H, N) in real units."""
        labels = batch.y_BHN.shape[1]
        known = min(labels, self.period)
        values_BSN = self._windows.values(batch.origins_B, -self.period, known - self.period)
        # A label more than one period ahead of its origin must go back further: to the same steps.
        ahead_H = torch.arange(labels, device=values_BSN.device) % self.period
        values_BHN = values_BSN if known == labels else values_BSN[:, ahead_H]
        return self.stand_in.fill(values_BHN, batch)


class StandIn:
    """Another forecast where a naive one has no value of its own, and how often that was.

    `labels_2` counts the labels for which it stood in, and all labels.
    """

    def __init__(self, otherwise: Forecaster, device: torch.device) -> None:
        self._otherwise = otherwise
        self.labels_2 = torch.zeros(2, dtype=torch.int64, device=device)

    def fill(self, values_BHN: Tensor, batch: Batch) -> Tensor:
        """(B, H, N) without a gap."""
        own, label = ~values_BHN.isnan(), ~batch.y_BHN.isnan()
        self.labels_2 += torch.stack([(label & ~own).sum(), label.sum()])
        return values_BHN.where(own, self._otherwise(batch))

    def share(self) -> float:
        """The share of the labels so far for which the other forecast stood in."""
        stood_in, labels = self.labels_2.tolist()
        return stood_in / labels if labels else 0.0


class _Sums:
    """Sums and counts of the observed values of each group of steps: (groups, N)."""

    def __init__(self, groups: int, nodes: int, device: torch.device) -> None:
        shape = (groups, nodes)
        self._total_GN = torch.zeros(shape, dtype=torch.float64, device=device)
        self._count_GN = torch.zeros(shape, dtype=torch.int32, device=device)

    def add(self, group_S: Tensor, values_SN: Tensor) -> None:
        """Takes (S, N) values, each step to its group."""
        self._total_GN.index_add_(0, group_S, values_SN.nan_to_num(nan=0.0).double())
        self._count_GN.index_add_(0, group_S, (~values_SN.isnan()).int())

    def over(self, groups: int) -> "_Sums":
        """The sums over so many equal runs of groups, which become one."""
        joined = copy(self)
        joined._total_GN, joined._count_GN = (
            part.view(groups, -1, part.shape[1]).sum(dim=0, dtype=part.dtype)
            for part in (self._total_GN, self._count_GN)
        )
        return joined

    def means(self) -> Tensor:
        """(groups, N) means, NaN where nothing was observed."""
        return torch.div(self._total_GN, self._count_GN).float()
