"""The order in which an epoch visits the windows: a function of seed and epoch, never of timing.

Of a series in memory it is any permutation. Of one that is read block by block while it trains,
windows are mixed over a bounded number of blocks that slides through all of them, which come in
an order of their own each epoch:

    block         7  #####
                  2    #####            a block's windows are spread at random over the turns of
                  5      #####          `mixed_blocks` blocks, one block later for each, so that
                  0        #####        at any moment as many blocks are in use and no more
                  3  ##      ###        the last ones begin the epoch as well as end it
                     visited --->

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
        # In place, and one array after the other: a long series has many millions of origins.
        block_of = origins // self.block_steps
        is_used = np.bincount(block_of) > 0
        blocks = np.count_nonzero(is_used)
        if blocks <= self.mixed_blocks:
            return generator.permutation(origins)
        turn_of_block = np.zeros(len(is_used))
        turn_of_block[is_used] = generator.permutation(blocks)
        turn = generator.random(len(origins))
        turn *= self.mixed_blocks
        turn += np.take(turn_of_block, block_of)
        del block_of
        turn %= blocks
        return origins[np.argsort(turn)]

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
