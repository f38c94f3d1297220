"""Windows of a series that is held once, on the device that trains, and cut by one index gather.

Shape suffixes: B windows, T input steps, H label steps, S steps, N nodes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowpatch.series.statistics import Statistics
from flowpatch.store.sample_store import SampleStore
from flowpatch.time_axis import TimeAxis
from flowpatch.windows.batches import Batch, Windows, check_origins
from flowpatch.windows.inputs import PreparedInputs, gather
from flowpatch.windows.memory import BatchMemory
from flowpatch.windows.missing import Missing
from flowpatch.windows.recorded import RecordedCuts
from flowpatch.windows.shared import Machine, read_shared, read_shared_in_pieces

COPIED_BYTES = 2**28
"""Of a series on its way to a GPU: what the host holds of it at a time."""


class InMemory(Windows):
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
        machine: the processes that `values` are shared with, which then share what is prepared.
    """

    def __init__(
        self,
        values: NDArray[np.float32] | Tensor,
        axis: TimeAxis,
        statistics: Statistics,
        input_len: int,
        output_len: int,
        missing: Missing = "last",
        device: torch.device | str = "cpu",
        first_step: int = 0,
        machine: Machine | None = None,
    ) -> None:
        device = torch.device(device)
        super().__init__(axis, statistics, input_len, output_len, missing, device, values.shape[1])
        self.first_step = first_step
        self.values_TN = torch.as_tensor(values).to(device)
        self._memory, self._recorded = BatchMemory(), RecordedCuts()
        self._inputs = PreparedInputs(
            self.values_TN, statistics, input_len, missing, self._memory, machine
        )

    @classmethod
    def of_store(
        cls,
        store: SampleStore,
        input_len: int | None = None,
        output_len: int | None = None,
        missing: Missing = "last",
        device: torch.device | str = "cpu",
        machine: Machine | None = None,
    ) -> "InMemory":
        """The windows of a store; lengths default to those that it was built with.

        The processes of a `machine` read the store once together.
        """
        return cls(
            _values_on(store, torch.device(device), machine),
            store.axis,
            store.statistics,
            input_len or store.manifest.input_len,
            output_len or store.manifest.output_len,
            missing,
            device,
            machine=machine,
        )

    def expect(self, origins: NDArray[np.int64], back: Sequence[int] = ()) -> None:
        """Everything is there already."""

    def batch(self, origins: NDArray[np.int64]) -> Batch:
        """The windows at (B,) origins: a gather of inputs, and one of labels."""
        origins = np.asarray(origins, dtype=np.int64)
        stop = self.first_step + len(self.values_TN)
        check_origins(origins, self.first_step + self.input_len, stop - self.output_len)
        # A copy, as torch takes neither a reversed view nor one that is read-only.
        origins_B = torch.from_numpy(origins.copy())
        first_rows = origins - self.first_step - self.input_len
        if self.device.type == "cuda":
            self._inputs.prepare(first_rows)
            return Batch(*self._recorded(self._cut, origins_B, self.device))
        rows_BW = self._rows(origins_B)
        x_BTN = self._inputs.of_windows(first_rows, rows_BW[:, : self.input_len])
        y_BHN = gather(self.values_TN, rows_BW[:, self.input_len :], self._memory)
        return self._dated(x_BTN, y_BHN, origins_B)

    def _cut(self, origins_B: Tensor) -> tuple[Tensor, ...]:
        """The parts of a batch, all of whose input is prepared."""
        rows_BW = self._rows(origins_B)
        x_BTN = self._inputs.of_prepared(rows_BW[:, : self.input_len])
        y_BHN = gather(self.values_TN, rows_BW[:, self.input_len :], self._memory)
        batch = self._dated(x_BTN, y_BHN, origins_B)
        return tuple(getattr(batch, one.name) for one in fields(batch))

    def _rows(self, origins_B: Tensor) -> Tensor:
        """(B, W) rows of the series that windows are made of."""
        return origins_B[:, None] + (self._offsets_W - self.first_step)

    def values(self, origins_B: Tensor, first: int, stop: int) -> Tensor:
        """(B, S, N) values of the steps origin + first .. origin + stop."""
        steps_S = torch.arange(first, stop, device=self.device) - self.first_step
        rows_BS = origins_B.to(self.device)[:, None] + steps_S
        inside_BS = (rows_BS >= 0) & (rows_BS < len(self.values_TN))
        values_BSN = self.values_TN[rows_BS.clamp(0, len(self.values_TN) - 1)]
        return values_BSN.where(inside_BS[:, :, None], torch.nan)

    def days(self, first: int, stop: int) -> Iterator[tuple[int, Tensor]]:
        """Each day of the steps first .. stop, and its (S, N) values."""
        begin, end = self.first_step, self.first_step + len(self.values_TN)
        if not begin <= first <= stop <= end:
            raise IndexError(f"the steps {first}..{stop} are not within {begin}..{end}")
        a_day = self.axis.steps_a_day
        for day in range(first, stop, a_day):
            yield day, self.values_TN[day - begin : min(day + a_day, stop) - begin]


def _values_on(
    store: SampleStore, device: torch.device, machine: Machine | None
) -> NDArray[np.float32] | Tensor:
    """The (T, N) series; on its way to a GPU the host holds a piece of it and no more."""
    if device.type == "cpu":
        return read_shared(store, machine)
    steps, nodes = store.axis.length, store.manifest.nodes
    values_TN = torch.empty((steps, nodes), dtype=torch.float32, device=device)
    piece = max(1, COPIED_BYTES // (4 * nodes))
    for first, values in read_shared_in_pieces(store, machine, piece):
        values_TN[first : first + len(values)] = torch.from_numpy(values)
    return values_TN
