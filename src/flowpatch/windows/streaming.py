"""Windows of a series larger than memory: the same batches, from blocks read while others train.

    block k       origins k * S .. (k + 1) * S
    its rows      input_len steps before the first origin .. output_len steps from the last one

A block holds all of its windows, so a window is one slice of one block. Which blocks are held is
left to `read_ahead.py`, how windows are mixed over them to `order.py`, and how long and how many
they are to `residence.py`.

Shape suffixes: B windows, T input steps, H label steps, S steps, N nodes, K blocks at once.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowpatch.store.sample_store import SampleStore
from flowpatch.windows.batches import Batch, Windows, check_origins
from flowpatch.windows.inputs import scale_and_fill
from flowpatch.windows.memory import BatchMemory
from flowpatch.windows.missing import Missing
from flowpatch.windows.order import BlockOrder
from flowpatch.windows.read_ahead import NONE, ReadAhead
from flowpatch.windows.residence import BlockPlan

REACH = 64
"""Batches ahead in which a batch is looked for in the order that was told."""


class Streamed(Windows):
    """All windows of a store, of which only some blocks are in memory.

    Args:
        store: an open store version.
        plan: how long a block is, and how many are held.
        input_len: steps before the origin.
        output_len: steps from the origin.
        missing: what the model sees in a missing cell.
    """

    def __init__(
        self,
        store: SampleStore,
        plan: BlockPlan,
        input_len: int,
        output_len: int,
        missing: Missing = "last",
    ) -> None:
        nodes = store.manifest.nodes
        super().__init__(
            store.axis,
            store.statistics,
            input_len,
            output_len,
            missing,
            torch.device("cpu"),
            nodes,
        )
        self._store, self._block_steps = store, plan.block_steps
        self.order = BlockOrder(plan.block_steps, plan.mixed_blocks)
        rows = plan.block_steps + input_len + output_len - 1
        self._slots_KSN = np.empty((plan.held_blocks, rows, nodes), dtype=np.float32)
        blocks = -(-store.axis.length // plan.block_steps)
        self._ahead = ReadAhead(blocks, plan.held_blocks, self._read_block)
        self._memory = BatchMemory()
        self._expected, self._position = np.empty(0, dtype=np.int64), 0

    def expect(self, origins: NDArray[np.int64], back: Sequence[int] = ()) -> None:
        """Begins to read what the windows at these origins need, in their order."""
        self._expected, self._position = np.asarray(origins, dtype=np.int64), 0
        needed = np.empty((len(origins), 1 + len(back)), dtype=np.int64)
        for column, steps in enumerate([0, *back]):
            needed[:, column] = self._blocks_of(self._expected - steps)
        self._ahead.expect(needed)

    def batch(self, origins: NDArray[np.int64]) -> Batch:
        """The windows at (B,) origins, each a slice of a block; waits for what is not read yet."""
        origins = np.asarray(origins, dtype=np.int64)
        check_origins(origins, self.input_len, self.axis.length - self.output_len)
        positions = self._positions_of(origins)
        x_BTN = self._memory.empty((len(origins), self.input_len, self.nodes))
        y_BHN = self._memory.empty((len(origins), self.output_len, self.nodes))
        blocks = self._blocks_of(origins)
        for row, (origin, block, position) in enumerate(
            zip(origins.tolist(), blocks.tolist(), positions, strict=True)
        ):
            with self._ahead.held(block, position) as slot:
                begin = origin - self._first_row(block)
                values_SN = torch.from_numpy(self._slots_KSN[slot])
                x_BTN[row] = values_SN[begin - self.input_len : begin]
                y_BHN[row] = values_SN[begin : begin + self.output_len]
        # While this batch trains, the next block may take the place of one that is done with.
        self._position = positions[-1] + 1 if positions else self._position
        self._ahead.go_on(self._position)
        scale_and_fill(x_BTN, self.statistics, self.missing)
        return self._dated(x_BTN, y_BHN, torch.from_numpy(origins.copy()))

    def values(self, origins_B: Tensor, first: int, stop: int) -> Tensor:
        """(B, S, N) values of the steps origin + first .. origin + stop, all in one block."""
        is_of_window = -self.input_len <= first and stop <= self.output_len
        if not is_of_window and stop - first > self.output_len:
            raise ValueError(f"steps {first}..{stop} from an origin are not in one block")
        origins = origins_B.cpu().numpy()
        blocks = self._blocks_of(origins if is_of_window else origins + first)
        values_BSN = torch.full((len(origins), stop - first, self.nodes), torch.nan)
        for row, (origin, block) in enumerate(zip(origins.tolist(), blocks.tolist(), strict=True)):
            if block != NONE:
                with self._ahead.held(block, self._position) as slot:
                    begin = origin + first - self._first_row(block)
                    before = max(0, -(origin + first))
                    found_SN = self._slots_KSN[slot][begin + before : begin + stop - first]
                    values_BSN[row, before:] = torch.from_numpy(found_SN)
        return values_BSN

    def days(self, first: int, stop: int) -> Iterator[tuple[int, Tensor]]:
        """Each day of the steps first .. stop and its (S, N) values, read from the store."""
        for begin, values_SN in self._store.days(first, stop):
            yield begin, torch.from_numpy(values_SN)

    def _positions_of(self, origins: NDArray[np.int64]) -> list[int]:
        """Where origins stand in the order that was told; told now if they do not."""
        begin = self._position
        ahead = self._expected[begin : begin + REACH * len(origins)]
        if np.array_equal(ahead[: len(origins)], origins):
            return list(range(begin, begin + len(origins)))
        place_of = {origin: begin + place for place, origin in enumerate(ahead.tolist())}
        places = [place_of.get(origin, NONE) for origin in origins.tolist()]
        if NONE in places or sorted(places) != places:
            self.expect(origins)
            return list(range(len(origins)))
        return places

    def _blocks_of(self, steps: NDArray[np.int64]) -> NDArray[np.int64]:
        """The blocks that windows at these steps lie in; `NONE` where they end before the first."""
        blocks = np.maximum(steps, 0)
        blocks //= self._block_steps
        blocks[steps + self.output_len <= 0] = NONE
        return blocks

    def _first_row(self, block: int) -> int:
        """The step of a block's first row."""
        return max(0, block * self._block_steps - self.input_len)

    def _read_block(self, block: int, slot: int) -> None:
        first = self._first_row(block)
        stop = (block + 1) * self._block_steps + self.output_len - 1
        stop = min(stop, self.axis.length)
        self._store.read_into(self._slots_KSN[slot][: stop - first], first)
