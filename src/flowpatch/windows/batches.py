"""What windows are: indices into a series, cut into batches when one is asked for.

The contract of every kind of windows: of a series in memory (`in_memory.py`), of one that is read
from its store while it serves (`streaming.py`), and of either behind a GPU (`transfer.py`). The
same origins give the same batch, to the bit, whichever it is.

Shape suffixes: B windows, T input steps, H label steps, S steps, N nodes.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowpatch.series.statistics import Statistics
from flowpatch.time_axis import DAYS_A_WEEK, TimeAxis
from flowpatch.windows.missing import Missing
from flowpatch.windows.order import BlockOrder, epoch_order


@dataclass(frozen=True)
class Batch:
    """B windows on one device.

    `x_BTN` is scaled input with missing cells filled by the policy; `y_BHN` are labels in real
    units, NaN where nothing was observed. Time features are indices: step of the day, and day of
    the week from 0 on Monday. `origins_B` are the steps of the first labels.
    """

    x_BTN: Tensor
    y_BHN: Tensor
    time_of_day_BT: Tensor
    day_of_week_BT: Tensor
    time_of_day_BH: Tensor
    day_of_week_BH: Tensor
    origins_B: Tensor

    def __post_init__(self) -> None:
        windows, input_len, nodes = self.x_BTN.shape
        output_len = self.y_BHN.shape[1]
        if (
            self.y_BHN.shape != (windows, output_len, nodes)
            or self.time_of_day_BT.shape != (windows, input_len)
            or self.day_of_week_BT.shape != (windows, input_len)
            or self.time_of_day_BH.shape != (windows, output_len)
            or self.day_of_week_BH.shape != (windows, output_len)
            or self.origins_B.shape != (windows,)
        ):
            raise ValueError("the parts of a batch differ in shape")

    def __len__(self) -> int:
        return len(self.origins_B)

    def split(self, most: int) -> list["Batch"]:
        """The same windows in as few parts of at most so many as will do, nearly equal in size."""
        parts = max(1, -(-len(self) // most))
        columns = [getattr(self, one.name).tensor_split(parts) for one in fields(self)]
        return [Batch(*part) for part in zip(*columns, strict=True)]


class Windows(ABC):
    """All windows of a series, wherever its values lie.

    Attributes:
        axis: the time axis that the steps count on.
        statistics: the scaling of the input.
        input_len: steps before the origin.
        output_len: steps from the origin.
        missing: what the model sees in a missing cell.
        device: where batches lie.
        nodes: N.
        order: how an epoch mixes the windows; None mixes all of them.
    """

    def __init__(
        self,
        axis: TimeAxis,
        statistics: Statistics,
        input_len: int,
        output_len: int,
        missing: Missing,
        device: torch.device,
        nodes: int,
    ) -> None:
        self.axis, self.statistics = axis, statistics
        self.input_len, self.output_len = input_len, output_len
        self.missing: Missing = missing
        self.device, self.nodes = device, nodes
        self.order: BlockOrder | None = None
        self._offsets_W = torch.arange(-input_len, output_len, device=device)

    @abstractmethod
    def batch(self, origins: NDArray[np.int64]) -> Batch:
        """The windows at (B,) origins.

        Raises:
            IndexError: a window reaches outside the series.
            StoreDamagedError: the values are read from a store, and a part of it is missing.
        """

    @abstractmethod
    def values(self, origins_B: Tensor, first: int, stop: int) -> Tensor:
        """(B, S, N) values in real units of the steps origin + first .. origin + stop.

        NaN where nothing was observed, or where the series has no such step. S is no more than
        `output_len`, unless the steps are those of the windows themselves.
        """

    @abstractmethod
    def days(self, first: int, stop: int) -> Iterator[tuple[int, Tensor]]:
        """Each day of the steps first .. stop, counted from the first: its first step, and its
        (S, N) values in real units. The last may be shorter.

        Raises:
            IndexError: the windows do not have all of these steps.
        """

    @abstractmethod
    def expect(self, origins: NDArray[np.int64], back: Sequence[int] = ()) -> None:
        """Tells which origins `batch` will be asked for, in their order, so that what they need
        can be read in time; `back` are steps that `values` will look back from each of them.

        A part of them may be left out, and others may be asked for, which then take longer.
        """

    def epoch_order(
        self, origins: NDArray[np.int64], seed: int, epoch: int, batch_size: int | None = None
    ) -> NDArray[np.int64]:
        """The origins in the order in which an epoch visits them: a function of seed and epoch, and
        of the batch size, by which batches are arranged for those that share them.
        """
        return epoch_order(origins, seed, epoch, self.order, batch_size)

    def batches(self, origins: NDArray[np.int64], batch_size: int) -> Iterator[Batch]:
        """Batches over the origins in the order given; the last may be smaller."""
        for first in range(0, len(origins), batch_size):
            yield self.batch(origins[first : first + batch_size])

    def calendar(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Step of the day and day of the week of any steps; the axis starts at a midnight."""
        days = steps.div(self.axis.steps_a_day, rounding_mode="floor")
        return steps % self.axis.steps_a_day, (days + self.axis.first_weekday) % DAYS_A_WEEK

    def _dated(self, x_BTN: Tensor, y_BHN: Tensor, origins_B: Tensor) -> Batch:
        """A batch of these values, with its times."""
        time_of_day_BW, day_of_week_BW = self.calendar(origins_B[:, None] + self._offsets_W)
        split = self.input_len
        return Batch(
            x_BTN=x_BTN,
            y_BHN=y_BHN,
            time_of_day_BT=time_of_day_BW[:, :split],
            day_of_week_BT=day_of_week_BW[:, :split],
            time_of_day_BH=time_of_day_BW[:, split:],
            day_of_week_BH=day_of_week_BW[:, split:],
            origins_B=origins_B,
        )


def check_origins(origins: NDArray[np.int64], lowest: int, highest: int) -> None:
    """Makes sure that all windows lie inside a series.

    Raises:
        IndexError: one does not.
    """
    if len(origins) and not lowest <= origins.min() <= origins.max() <= highest:
        raise IndexError(
            f"origins {origins.min()}..{origins.max()} reach outside the series: "
            f"allowed {lowest}..{highest}"
        )
