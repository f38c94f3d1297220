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

Whatever reads the series, memory or store, can follow either order: a run keeps its own.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class BlockOrder:
    """Windows mixed over `mixed_blocks` blocks of `block_steps` origins at a time."""

    block_steps: int
    mixed_blocks: int

    def __post_init__(self) -> None:
        if min(self.block_steps, self.mixed_blocks) < 1:
            raise ValueError(f"no order of windows: {self}")

    def mix(self, origins: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
        """The origins in an order drawn by the generator."""
        shuffled = generator.permutation(origins)
        block_of = shuffled // self.block_steps
        windows = np.bincount(block_of)
        is_used = windows > 0
        blocks = np.count_nonzero(is_used)
        if blocks <= self.mixed_blocks:
            return shuffled
        # Block by block, each in the order drawn. In place, and one array after the other, from
        # here on: a long series has many millions of origins.
        shuffled = shuffled[np.argsort(block_of, kind="stable")]
        del block_of
        first = np.cumsum(windows) - windows
        begins = np.zeros(len(windows))
        begins[is_used] = generator.permutation(blocks)
        turn = np.arange(len(origins), dtype=np.float64)
        turn -= np.repeat(first - generator.random(len(windows)), windows)
        turn *= np.repeat(self.mixed_blocks / np.maximum(1, windows), windows)
        turn += np.repeat(begins, windows)
        turn %= blocks
        return shuffled[np.argsort(turn)]

    def to_json(self) -> dict[str, int]:
        """What `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "BlockOrder":
        """The order that `to_json` described."""
        return cls(**content)


def epoch_order(
    origins: NDArray[np.int64], seed: int, epoch: int, order: BlockOrder | None = None
) -> NDArray[np.int64]:
    """The origins in the order in which an epoch visits them; without an `order`, in any."""
    generator = np.random.default_rng([seed, epoch])
    return order.mix(origins, generator) if order else generator.permutation(origins)
