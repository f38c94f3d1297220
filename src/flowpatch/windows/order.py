"""The order in which an epoch visits the windows: a function of seed and epoch, never of timing.

Of a series in memory it is any permutation. Of one that is read block by block while it trains,
windows are mixed over a bounded number of blocks that slides through all of them, which come in
an order of their own each epoch:

    block         7  #####
                  2    #####            a block's windows, in an order drawn, are spread evenly
                  5      #####          over the turns of `mixed_blocks` blocks, one later for each
                  0        #####        block, so that at any moment as many are in use, no more
                  3  ##      ###        the last ones begin the epoch as well as end it
                     visited --->

Evenly, and not at random: windows of one block are near each other in time and much alike. So a
batch of no more windows than there are blocks in use has as few that are alike as one that is
drawn from the whole series.

Within a batch, windows are put lane by lane. Blocks in use at one time are in lanes of their own,
and a block stays in its lane, so that processes that each take a part of every batch each need
blocks that hardly any other needs:

    lane    0  7 7 7 7 3 3 3          a batch:   7 7 | 2 | 5 5 0
            1    2 2 2 2                         process 0 | 1
            2      5 5 5 5

Whatever reads the series, memory or store, can follow either order: a run keeps its own.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_GOLDEN = (np.sqrt(5) - 1) / 2
"""Whose multiples, without their whole part, fill 0 .. 1 most evenly (Knuth, volume 3, 6.4)."""


@dataclass(frozen=True)
class BlockOrder:
    """Windows mixed over `mixed_blocks` blocks of `block_steps` origins at a time."""

    block_steps: int
    mixed_blocks: int

    def __post_init__(self) -> None:
        if min(self.block_steps, self.mixed_blocks) < 1:
            raise ValueError(f"no order of windows: {self}")

    def mix(
        self,
        origins: NDArray[np.int64],
        generator: np.random.Generator,
        batch_size: int | None = None,
    ) -> NDArray[np.int64]:
        """The origins in an order drawn by the generator; batches of so many put lane by lane."""
        # In place, and one array after the other: a long series has many millions of origins.
        shuffled = generator.permutation(origins)
        block_of = shuffled // self.block_steps
        windows = np.bincount(block_of)
        is_used = windows > 0
        if np.count_nonzero(is_used) <= self.mixed_blocks:
            return shuffled
        # Block by block, each in the order drawn.
        shuffled = shuffled[np.argsort(block_of, kind="stable")]
        del block_of
        begins = np.zeros(len(windows), dtype=np.int64)
        begins[is_used] = generator.permutation(np.count_nonzero(is_used))
        visited = np.argsort(self._turns(windows, begins, generator.random()))
        if batch_size is not None:
            place = np.arange(len(origins)) // batch_size
            place *= self.mixed_blocks
            place += np.repeat(begins % self.mixed_blocks, windows)[visited]
            visited = visited[np.argsort(place, kind="stable")]
        return shuffled[visited]

    def _turns(
        self, windows: NDArray[np.int64], begins: NDArray[np.int64], start: float
    ) -> NDArray[np.float64]:
        """When each window comes up, block by block: of block k `windows[k]`, from turn `begins[k]`
        on; `start`, from 0 to 1, is how far into the time between two windows the first ones come.
        """
        a_turn = windows / self.mixed_blocks
        # Of blocks that begin one after the other, any few have their windows at even distances.
        phase = (start + (_GOLDEN - a_turn) * begins) % 1
        turn = np.arange(windows.sum(), dtype=np.float64)
        turn -= np.repeat(np.cumsum(windows) - windows - phase, windows)
        turn /= np.repeat(a_turn, windows)
        turn += np.repeat(begins, windows)
        turn %= np.count_nonzero(windows)
        return turn

    def to_json(self) -> dict[str, int]:
        """What `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "BlockOrder":
        """The order that `to_json` described."""
        return cls(**content)


def epoch_order(
    origins: NDArray[np.int64],
    seed: int,
    epoch: int,
    order: BlockOrder | None = None,
    batch_size: int | None = None,
) -> NDArray[np.int64]:
    """The origins in the order in which an epoch visits them; without an `order`, in any.

    Where processes share batches of `batch_size`, they are arranged so that each needs few blocks.
    """
    generator = np.random.default_rng([seed, epoch])
    return order.mix(origins, generator, batch_size) if order else generator.permutation(origins)
