"""Scoring forecasters over a split, batch by batch: memory does not grow with what is scored."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flowpatch.metrics import MAPE_FLOOR, ScoreSums, ScoreTable
from flowpatch.model.baselines import Forecaster, periods_of
from flowpatch.series.statistics import Statistics
from flowpatch.windows.batches import Batch, Windows


def in_real_units(model: nn.Module, statistics: Statistics) -> Forecaster:
    """A model as a forecaster: its scaled output brought back to real units."""

    def forecast(batch: Batch) -> Tensor:
        scaled_BHN: Tensor = model(batch.x_BTN, batch.time_of_day_BT, batch.day_of_week_BT)
        return statistics.unscale(scaled_BHN)

    return forecast


@torch.no_grad()
def score(
    forecasters: Mapping[str, Forecaster],
    windows: Windows,
    origins: NDArray[np.int64],
    batch_size: int,
    mape_floor: float = MAPE_FLOOR,
    after_batch: Callable[[int], None] = lambda _: None,
) -> dict[str, ScoreTable]:
    """Scores every forecaster on the same batches; `after_batch` gets the windows just scored."""
    sums = {name: ScoreSums(windows.output_len, windows.device, mape_floor) for name in forecasters}
    windows.expect(origins, periods_of(forecasters.values()))
    for batch in windows.batches(origins, batch_size):
        for name, forecaster in forecasters.items():
            sums[name].add(forecaster(batch), batch.y_BHN)
        after_batch(len(batch))
    return {name: one.table() for name, one in sums.items()}
