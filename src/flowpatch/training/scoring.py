"""Scoring forecasters over a split, batch by batch: memory does not grow with what is scored.

Shape suffixes: F forecasters, 6 sums, H horizons.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flowpatch.metrics import MAPE_FLOOR, ScoreSums, ScoreTable, no_sums, sums_of_batch
from flowpatch.model.baselines import Forecaster, periods_of
from flowpatch.series.statistics import Statistics
from flowpatch.training.captured import Captured
from flowpatch.training.shares import origins_dealt, rounds
from flowpatch.training.world import World
from flowpatch.windows.batches import Batch, Windows


def in_real_units(model: nn.Module, statistics: Statistics) -> Forecaster:
    """A model as a forecaster: its scaled output brought back to real units."""
    forward = Captured(model)

    def forecast(batch: Batch) -> Tensor:
        scaled_BHN = forward(batch.x_BTN, batch.time_of_day_BT, batch.day_of_week_BT)
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
    world: World | None = None,
) -> dict[str, ScoreTable]:
    """Scores every forecaster on the same batches; `after_batch` gets the windows just scored.

    Several processes take turns, a whole batch each. Every process adds up the batches of all in
    their order, so the scores are the same to the last digit, however many there are.
    """
    world = world or World()
    rank, size = world.launch.rank, world.launch.size
    sums = {name: ScoreSums(windows.output_len, windows.device, mape_floor) for name in forecasters}
    none_F6H = torch.stack([no_sums(windows.output_len, windows.device) for _ in sums])
    my_origins = origins_dealt(origins, batch_size, rank, size)
    windows.expect(my_origins, periods_of(forecasters.values()))
    mine = windows.batches(my_origins, batch_size)
    for windows_of_batch in rounds(len(origins), batch_size, size):
        found_F6H = none_F6H
        if rank < len(windows_of_batch):
            batch = next(mine)
            found_F6H = torch.stack(
                [
                    sums_of_batch(forecaster(batch), batch.y_BHN, mape_floor)
                    for forecaster in forecasters.values()
                ]
            )
        for batch_F6H in world.gather_tensors(found_F6H)[: len(windows_of_batch)]:
            for one, sums_6H in zip(sums.values(), batch_F6H, strict=True):
                one.add_sums(sums_6H)
        after_batch(sum(windows_of_batch))
    return {name: one.table() for name, one in sums.items()}
