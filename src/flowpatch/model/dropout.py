"""Dropout that costs a CPU little: 16 random bits a value, applied as a product of whole numbers.

PyTorch draws one random number a value on one thread, which takes longer on a CPU than the layer
around it. Here a fast generator, seeded from PyTorch's own, fills whole words; one comparison makes
them 1 or 0, and the bits of a value times that are the value or zero. The chance is exact to
1 / 65536. What is kept is scaled up by the linear map before or behind, to which it costs nothing.
On a GPU PyTorch's own dropout is used, which scales by itself.

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

_CHANCES = 2**16
"""How many equal chances a random word tells apart."""
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


def drop(x: Tensor, probability: float) -> Tensor:
    """Zeros each value with the given probability; x is used up.

    Any shape; bfloat16, float16 or float32. The same seed of PyTorch gives the same result. The
    others are left to be multiplied by `scale_of_kept`.
    """
    if not probability:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, probability)
    mask = KeepMask.draw(x.shape, probability).laid_as(x)
    dropped: Tensor = _Drop.apply(x, mask.words)  # type: ignore[no-untyped-call]
    return dropped


def scale_of_kept(probability: float, device: torch.device) -> float:
    """By what a linear map around is to multiply, so that the mean stays as it was."""
    if device.type != "cpu":
        return 1.0
    return _CHANCES / (_CHANCES - _dropped_chances(probability))


@dataclass(frozen=True)
class KeepMask:
    """Which values are kept: words of 1, or of 0 for the dropped."""

    words: Tensor

    @classmethod
    def draw(cls, shape: torch.Size, probability: float) -> "KeepMask":
        """A new mask for a shape."""
        count = shape.numel()
        first_window, windows = _share
        before, within = divmod(count // windows * first_window, _VALUES_A_WORD)
        # It fills memory at several GB a second, skips as much as is asked for in no time, and
        # its seed makes it part of PyTorch's state.
        generator = np.random.PCG64DXSM(int(torch.randint(2**63 - 1, ())))
        generator.advance(before)
        drawn = generator.random_raw(-(-(within + count) // _VALUES_A_WORD)).view(np.int16)
        words = torch.from_numpy(drawn[within : within + count])
        least = _dropped_chances(probability) - _CHANCES // 2
        return cls(torch.ge(words, least, out=words).view(shape))

    def laid_as(self, x: Tensor) -> "KeepMask":
        """The same mask, its words in the order in which the values of x lie in memory."""
        like = torch.empty_like(x, device="meta")
        return KeepMask(self.words.as_strided(like.shape, like.stride()))

    def apply(self, x: Tensor) -> Tensor:
        """A new tensor: dropped values are 0."""
        word = _WORDS[x.dtype]
        return (x.contiguous().view(word) * self.words.to(word)).view(x.dtype)

    def apply_(self, x: Tensor) -> Tensor:
        """The same in place."""
        word = _WORDS[x.dtype]
        x.view(word).mul_(self.words.to(word))
        return x


def _dropped_chances(probability: float) -> int:
    return round(probability * _CHANCES)


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, words: Tensor) -> Tensor:
        # Saved as autograd saves what it needs, so that it is let go where that is.
        ctx.save_for_backward(words)
        ctx.mark_dirty(x)
        return KeepMask(words).apply_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (words,) = ctx.saved_tensors
        # It may be another's gradient too.
        return KeepMask(words).apply(gradient), None
