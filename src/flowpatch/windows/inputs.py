"""The series as the model sees it: scaled, and every missing cell filled by the policy.

Of a series in memory a step is prepared once, when a window first asks for it, so that a batch is a
gather and a start does not wait for a pass over the series. Windows that are cut from a series on
its way through are prepared each for itself (`scale_and_fill`), to the same bits.

`last` depends on where a window begins, as it may not show what was observed before that:

    step       s  s+1  s+2  s+3
    value      .   .    5    .     .  missing
    filled     4   4    5    5     the latest observed, here from before s
    unseen     2   1    0    1     steps from here to the next observed one

In a window from s the first unseen[s] cells, here two, are the mean instead.

Shape suffixes: B windows, T input steps, S steps of the series, N nodes.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowpatch.series.statistics import Statistics
from flowpatch.windows.memory import BatchMemory
from flowpatch.windows.missing import Missing
from flowpatch.windows.shared import Machine, shared_array, shares_memory

PIECE_BYTES = {"cpu": 2 * 2**20, "cuda": 64 * 2**20}
"""Values prepared at a time: what a CPU's cache holds, what keeps a GPU busy."""

FEW_SHARE = 0.2
"""Of the nodes of all windows: up to here, cells are hidden faster one by one than by a mask."""


def gather(values_SN: Tensor, rows_BT: Tensor, memory: BatchMemory) -> Tensor:
    """(B, T, N) values at (B, T) rows; on a CPU in memory that is used again."""
    shape = (*rows_BT.shape, values_SN.shape[1])
    if values_SN.device.type != "cpu":
        return values_SN.index_select(0, rows_BT.flatten()).view(shape)
    gathered_BTN = memory.empty(shape)
    torch.index_select(values_SN, 0, rows_BT.flatten(), out=gathered_BTN.view(-1, shape[-1]))
    return gathered_BTN


def hide_by_mask(x_BTN: Tensor, unseen_BN: Tensor, position_S1: Tensor) -> None:
    """Puts 0 into the first `unseen_BN` cells of each window; all of them are in its first S."""
    head_BSN = x_BTN[:, : len(position_S1)]
    hidden_BSN = unseen_BN[:, None] > position_S1
    torch.where(hidden_BSN, x_BTN.new_zeros(()), head_BSN, out=head_BSN)


def hide_few(x_BTN: Tensor, unseen_BN: Tensor) -> bool:
    """The same on a CPU, cell by cell; False, and nothing done, where there are too many."""
    _, steps, nodes = x_BTN.shape
    unseen = unseen_BN.numpy().reshape(-1)
    starts = np.flatnonzero(unseen != 0)
    if len(starts) > FEW_SHARE * len(unseen):
        return False
    cells = x_BTN.numpy().reshape(-1)
    # Where the first cell of each is, and how many are still to be hidden.
    place, left = starts + starts // nodes * ((steps - 1) * nodes), unseen[starts]
    while len(place):
        cells[place] = 0
        more = left > 1
        place, left = place[more] + nodes, left[more] - 1
    return True


def scale_and_fill(x_BTN: Tensor, statistics: Statistics, missing: Missing) -> None:
    """Windows in real units become what the model sees of them, in place."""
    missing_BTN = x_BTN.isnan()
    # As `Statistics.scale` does.
    x_BTN.sub_(statistics.mean).div_(statistics.deviation)
    if not missing_BTN.any():
        return
    if missing == "last":
        for step in range(1, x_BTN.shape[1]):
            here_BN = x_BTN[:, step]
            torch.where(missing_BTN[:, step], x_BTN[:, step - 1], here_BN, out=here_BN)
    x_BTN.nan_to_num_(nan=statistics.scale(0.0) if missing == "zero" else 0.0)


class PreparedInputs:
    """Scaled and filled input for any window of a series, beside the (S, N) series itself.

    Takes as much memory as the series, and with `last` a byte a cell, each once it is prepared.
    The processes of a machine share both on a CPU. Each keeps its own account of what is prepared,
    as it may not rely on seeing what another wrote: at worst a step is written twice, alike.
    """

    def __init__(
        self,
        values_SN: Tensor,
        statistics: Statistics,
        input_len: int,
        missing: Missing,
        memory: BatchMemory,
        machine: Machine | None = None,
    ) -> None:
        self._memory = memory
        self._values_SN, self._statistics = values_SN, statistics
        self._input_len, self._missing = input_len, missing
        self._filled_SN = _empty(values_SN, values_SN.dtype, machine)
        steps, nodes = values_SN.shape
        self._piece_steps = max(2 * input_len, PIECE_BYTES[values_SN.device.type] // (4 * nodes))
        self._is_waiting = np.ones(-(-steps // self._piece_steps), dtype=bool)
        self._any_waiting = True
        if missing == "last":
            self._unseen_SN = _empty(values_SN, _whole_number_type(input_len + 1), machine)
            self._longest_unseen = np.zeros(steps, dtype=np.int64)
            self._position_T1 = torch.arange(input_len, device=values_SN.device)[:, None]

    def of_windows(self, first_rows: NDArray[np.int64], rows_BT: Tensor) -> Tensor:
        """(B, T, N) inputs of the windows that begin at (B,) rows; `rows_BT` are all their rows."""
        self.prepare(first_rows)
        x_BTN = gather(self._filled_SN, rows_BT, self._memory)
        if self._missing == "last" and len(first_rows):
            self._hide_earlier(x_BTN, first_rows, rows_BT[:, 0])
        return x_BTN

    def prepare(self, first_rows: NDArray[np.int64]) -> None:
        """Prepares what the windows that begin at (B,) rows need."""
        if self._any_waiting:
            self._prepare_for(first_rows)

    def of_prepared(self, rows_BT: Tensor) -> Tensor:
        """`of_windows` where all is prepared, as work for the device alone."""
        x_BTN = gather(self._filled_SN, rows_BT, self._memory)
        if self._missing == "last":
            unseen_BN = self._unseen_SN.index_select(0, rows_BT[:, 0])
            hide_by_mask(x_BTN, unseen_BN, self._position_T1)
        return x_BTN

    def _hide_earlier(
        self, x_BTN: Tensor, first_rows: NDArray[np.int64], first_rows_B: Tensor
    ) -> None:
        """Puts the mean where a window shows what was observed before it began."""
        # Known on the host, so that no device is waited for; most windows have few such steps.
        deepest = int(self._longest_unseen[first_rows].max())
        if not deepest:
            return
        unseen_BN = self._unseen_SN.index_select(0, first_rows_B)
        # Looking for the few cells would make a GPU wait, and hide nothing sooner there.
        if x_BTN.device.type != "cpu" or not hide_few(x_BTN, unseen_BN):
            hide_by_mask(x_BTN, unseen_BN, self._position_T1[:deepest])

    def _prepare_for(self, first_rows: NDArray[np.int64]) -> None:
        # A piece is no shorter than a window, so a window has steps of two pieces at most.
        last_rows = first_rows + self._input_len - 1
        asked = np.union1d(first_rows // self._piece_steps, last_rows // self._piece_steps)
        for piece in asked[self._is_waiting[asked]].tolist():
            first = piece * self._piece_steps
            self._prepare(first, min(first + self._piece_steps, len(self._values_SN)))
            self._is_waiting[piece] = False
        self._any_waiting = bool(self._is_waiting.any())

    def _prepare(self, first: int, stop: int) -> None:
        if self._missing != "last":
            fill = self._statistics.scale(0.0) if self._missing == "zero" else 0.0
            scaled_SN = self._statistics.scale(self._values_SN[first:stop])
            self._filled_SN[first:stop] = scaled_SN.nan_to_num_(nan=fill)
            return
        # What lies further back or ahead is in no window with these steps.
        before, behind = max(0, first - self._input_len + 1), stop + self._input_len - 1
        values_SN = self._values_SN[before:behind]
        own = slice(first - before, stop - before)
        missing_SN = values_SN.isnan()
        scaled_SN = self._statistics.scale(values_SN[: own.stop])
        filled_SN = _latest_observed(scaled_SN, missing_SN)[own]
        unseen_SN = _steps_to_observed(missing_SN[own.start :], self._input_len)[: stop - first]
        self._filled_SN[first:stop] = filled_SN.nan_to_num_(nan=0.0)
        self._unseen_SN[first:stop] = unseen_SN
        self._longest_unseen[first:stop] = unseen_SN.amax(dim=1).cpu().numpy()


def _empty(like_SN: Tensor, dtype: torch.dtype, machine: Machine | None) -> Tensor:
    """(S, N) memory beside a series, shared where its device is the machine itself."""
    if machine is None or like_SN.device.type != "cpu" or not shares_memory(machine):
        return torch.empty_like(like_SN, dtype=dtype)
    kind = torch.empty(0, dtype=dtype).numpy().dtype
    return torch.from_numpy(shared_array(tuple(like_SN.shape), kind, machine))


def _latest_observed(values_SN: Tensor, missing_SN: Tensor) -> Tensor:
    """Each missing cell replaced, in place, by the latest observed one before it."""
    # Step by step: two rows fit the fastest cache, and each cell is looked at once.
    for step in range(1, len(values_SN)):
        torch.where(missing_SN[step], values_SN[step - 1], values_SN[step], out=values_SN[step])
    return values_SN


def _steps_to_observed(missing_SN: Tensor, reach: int) -> Tensor:
    """(S, N) how many cells from each on are missing, counted up to `reach`."""
    counts_SN = missing_SN.to(_whole_number_type(reach + 1))
    for step in range(len(counts_SN) - 2, -1, -1):
        following_N = (counts_SN[step + 1] + 1).clamp_(max=reach)
        torch.mul(counts_SN[step], following_N, out=counts_SN[step])
    return counts_SN


def _whole_number_type(largest: int) -> torch.dtype:
    kinds = (torch.uint8, torch.int16, torch.int32)
    return next(kind for kind in kinds if largest <= torch.iinfo(kind).max)
