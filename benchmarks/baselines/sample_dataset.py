"""A sample at a time: a Dataset that cuts, scales and dates a window, for torch's DataLoader.

The time of day and the day of the week are channels beside the value, repeated for every node, as
the published code has them.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from flowpatch.series.statistics import Statistics
from flowpatch.time_axis import TimeAxis


class SampleDataset(Dataset[tuple[Tensor, Tensor]]):
    """Windows by number: input (T, N, 3) and labels (H, N).

    The channels of the input are the scaled value, 0 where nothing was observed, the step of the
    day as a share of the day, and the day of the week. Labels are in real units, NaN where nothing
    was observed.

    Args:
        values: (steps, N) series, NaN where nothing was observed.
        axis: its time axis.
        statistics: the scaling of the input.
        origins: the first label step of each window.
        input_len: T.
        output_len: H.
    """

    def __init__(
        self,
        values: NDArray[np.float32],
        axis: TimeAxis,
        statistics: Statistics,
        origins: NDArray[np.int64],
        input_len: int,
        output_len: int,
    ) -> None:
        self.values, self.statistics, self.origins = values, statistics, origins
        self.input_len, self.output_len = input_len, output_len
        self.time_of_day = (axis.time_of_day_index() / axis.steps_a_day).astype(np.float32)
        self.day_of_week = axis.day_of_week_index().astype(np.float32)

    def __len__(self) -> int:
        return len(self.origins)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        origin = int(self.origins[number])
        steps = slice(origin - self.input_len, origin)
        value = (self.values[steps] - self.statistics.mean) / self.statistics.deviation
        channels = [
            np.nan_to_num(value.astype(np.float32), nan=0.0),
            np.tile(self.time_of_day[steps, None], (1, value.shape[1])),
            np.tile(self.day_of_week[steps, None], (1, value.shape[1])),
        ]
        labels = self.values[origin : origin + self.output_len]
        return torch.from_numpy(np.stack(channels, axis=-1)), torch.from_numpy(labels.copy())
