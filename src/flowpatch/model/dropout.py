"""Dropout that costs a CPU little: 16 random bits a value, applied as a mask of bits.

PyTorch draws one random number a value on one thread, which takes longer on a CPU than the layer
around it. Here a fast generator, seeded from PyTorch's own, fills whole words; a comparison is
three integer operations, and a dropped value is one AND. The chance is exact to 1 / 32768, and
the scaling is by the chance that is really used. On a GPU PyTorch's own dropout is used.

Of several processes that share a batch each draws what its windows would be given if one process
had them all: it begins in the generator's stream where they stand.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHANCES = 2**15
"""How many equal chances a random word tells apart: the 15 bits that make no sign."""
_VALUES_A_WORD = 4
"""Random values in a word of the generator."""
_WORDS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}


_share = (0, 1)
"""The place of the first window in the batch of all processes, and how many windows are here."""


@contextmanager
def masks_of_share(first_window: int, windows: int) -> Iterator[None]:
    """Inside this block, masks are those of some windows of a larger batch.

    Whatever is dropped from has these windows as its leading dimension, in their order.
    """
    global _share
    before, _share = _share, (first_window, windows)
    try:
        yield
    finally:
        _share = before


def dropout(x: Tensor, probability: float) -> Tensor:
    """Zeros each value with the given probability, and scales the others up.

    Any shape; bfloat16, float16 or float32. The same seed of PyTorch gives the same result.
    """
    if not probability:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, probability)
    mask = KeepMask.draw(x.shape, probability)
    dropped: Tensor = _Dropout.apply(x, mask.words, mask.scale)  # type: ignore[no-untyped-call]
    return dropped


@dataclass(frozen=True)
class KeepMask:
    """Which values are kept: words of all ones, or of all zeros for the dropped; and the scale."""

    words: Tensor
    scale: float

    @classmethod
    def draw(cls, shape: torch.Size, probability: float) -> "KeepMask":
        """A new mask for a shape."""
        dropped_chances = round(probability * _CHANCES)
        count = shape.numel()
        first_window, windows = _share
        before, within = divmod(count // windows * first_window, _VALUES_A_WORD)
        # It fills memory at several GB a second, skips as much as is asked for in no time, and
        # its seed makes it part of PyTorch's state.
        generator = np.random.PCG64DXSM(int(torch.randint(2**63 - 1, ())))
        generator.advance(before)
        drawn = generator.random_raw(-(-(within + count) // _VALUES_A_WORD)).view(np.int16)
        words = drawn[within : within + count]
        # Without its sign bit a word is one of _CHANCES; below the threshold it becomes 0, and
        # from there on -1: all ones. All of it in place, whole registers at a time.
        words_of_shape = (
            torch.from_numpy(words)
            .bitwise_and_(_CHANCES - 1)
            .neg_()
            .add_(dropped_chances - 1)
            .bitwise_right_shift_(15)
            .view(shape)
        )
        return cls(words_of_shape, _CHANCES / (_CHANCES - dropped_chances))

    def apply(self, x: Tensor) -> Tensor:
        """A new tensor: dropped values are 0, the others scaled up."""
        word = _WORDS[x.dtype]
        kept = x.contiguous().view(word) & self.words.to(word)
        return kept.view(x.dtype).mul_(self.scale)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, words: Tensor, scale: float) -> Tensor:
        # Saved as autograd saves what it needs, so that it is let go where that is.
        ctx.save_for_backward(words)
        ctx.scale = scale
        return KeepMask(words, scale).apply(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (words,) = ctx.saved_tensors
        return KeepMask(words, ctx.scale).apply(gradient), None, None
