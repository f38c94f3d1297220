"""Memory of batches that nobody holds any more, used again for the next ones.

A batch is some megabytes. Given back to the system and asked for anew, they would be faulted in
page by page, which takes ten times as long as filling them.
"""

import math
import sys

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

KEPT = 6
"""Arrays kept at most: input and labels of the batch at work, of the one before, and of the last
batch of an epoch, which may be smaller."""
_HELD_HERE = 3
"""References to a free array while it is looked at: the list's, the loop's, the question's own."""


class BatchMemory:
    """Float32 memory on the CPU, handed out as tensors and taken again once they are gone."""

    def __init__(self) -> None:
        self._arrays: list[NDArray[np.float32]] = []

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """A tensor whose memory no other tensor shows; its values are left open."""
        size = math.prod(shape)
        for array in self._arrays:
            # A tensor, and every view of it, keeps the array that it was made from.
            if array.size == size and sys.getrefcount(array) == _HELD_HERE:
                return torch.from_numpy(array).view(shape)
        made = np.empty(size, dtype=np.float32)
        self._arrays = [*self._arrays[-(KEPT - 1) :], made]
        return torch.from_numpy(made).view(shape)
