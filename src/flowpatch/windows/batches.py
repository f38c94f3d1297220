"""Batches cut from a series by one index gather, on the device that trains.

Shape suffixes: B windows, T input steps, H label steps, N nodes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowpatch.series.statistics import Statistics
from flowpatch.store.sample_store import SampleStore
from flowpatch.time_axis import DAYS_A_WEEK, TimeAxis
from flowpatch.windows.inputs import PreparedInputs, gather
from flowpatch.windows.memory import BatchMemory
from flowpatch.windows.missing import Missing


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


class Windows:
    """All windows of a series, held once on one device and cut when a batch asks for them.

    Args:
        values: (T, N) series in real units, NaN where nothing was observed.
        axis: the time axis that the steps count on.
        statistics: the scaling of the input.
        input_len: steps before the origin.
        output_len: steps from the origin.
        missing: what the model sees in a missing cell.
        device: where the series lives and the batches are cut.
        first_step: the step of the first row, where `values` is a piece of the series.
    """

    def __init__(
        self,
        values: NDArray[np.float32],
        axis: TimeAxis,
        statistics: Statistics,
        input_len: int,
        output_len: int,
        missing: Missing = "last",
        device: torch.device | str = "cpu",
        first_step: int = 0,
    ) -> None:
        self.device = torch.device(device)
        self.axis, self.statistics = axis, statistics
        self.input_len, self.output_len = input_len, output_len
        self._missing: Missing = missing
        self.first_step = first_step
        self.values_TN = torch.from_numpy(values).to(self.device)
        self._memory = BatchMemory()
        self._inputs = PreparedInputs(self.values_TN, statistics, input_len, missing, self._memory)
        self._offsets = torch.arange(-input_len, output_len, device=self.device)
        self._first_weekday = int(axis.day_of_week_index()[0])

    @classmethod
    def of_store(
        cls,
        store: SampleStore,
        input_len: int | None = None,
        output_len: int | None = None,
        missing: Missing = "last",
        device: torch.device | str = "cpu",
    ) -> "Windows":
        """The windows of a store; lengths default to those that it was built with."""
        return cls(
            store.read(),
            store.axis,
            store.statistics,
            input_len or store.manifest.input_len,
            output_len or store.manifest.output_len,
            missing,
            device,
        )

    @property
    def missing(self) -> Missing:
        """What the model sees in a missing cell."""
        return self._missing

    @property
    def nodes(self) -> int:
        """N."""
        return int(self.values_TN.shape[1])

    def batch(self, origins: NDArray[np.int64]) -> Batch:
        """Cuts the windows at (B,) origins: a gather of inputs, and one of labels.

        Raises:
            IndexError: a window reaches outside the series.
        """
        origins = np.asarray(origins, dtype=np.int64)
        lowest = self.first_step + self.input_len
        highest = self.first_step + len(self.values_TN) - self.output_len
        if len(origins) and not lowest <= origins.min() <= origins.max() <= highest:
            raise IndexError(
                f"origins {origins.min()}..{origins.max()} reach outside the series: "
                f"allowed {lowest}..{highest}"
            )
        # A copy, as torch takes neither a reversed view nor one that is read-only.
        origins_B = torch.from_numpy(origins.copy()).to(self.device, non_blocking=True)
        steps = origins_B[:, None] + self._offsets
        rows, split = steps - self.first_step, self.input_len
        time_of_day, day_of_week = self.calendar(steps)
        first_rows = origins - self.first_step - self.input_len
        return Batch(
            x_BTN=self._inputs.of_windows(first_rows, rows[:, :split]),
            y_BHN=gather(self.values_TN, rows[:, split:], self._memory),
            time_of_day_BT=time_of_day[:, :split],
            day_of_week_BT=day_of_week[:, :split],
            time_of_day_BH=time_of_day[:, split:],
            day_of_week_BH=day_of_week[:, split:],
            origins_B=origins_B,
        )

    def batches(self, origins: NDArray[np.int64], batch_size: int) -> Iterator[Batch]:
        """Batches over the origins in the order given; the last may be smaller."""
        for first in range(0, len(origins), batch_size):
            yield self.batch(origins[first : first + batch_size])

    def calendar(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Step of the day and day of the week of any steps; the axis starts at a midnight."""
        days = steps.div(self.axis.steps_a_day, rounding_mode="floor")
        return steps % self.axis.steps_a_day, (days + self._first_weekday) % DAYS_A_WEEK
