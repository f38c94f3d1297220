"""The encoder's blocks compiled for a GPU: what lies between matrix products becomes few kernels.

Both halves of a block are compiled once, whatever the number of blocks, so that it takes seconds
and not a minute; PyTorch keeps what it compiled for the next process.
"""

import os
import shutil
import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.utils._triton import has_triton

from flowpatch.model.layers import ReadyHalf

_MOST_KINDS = 64
"""Shapes, precisions and widths that one process compiles for; PyTorch's own limit is 8."""


def run_half(half: ReadyHalf, x_PSD: Tensor) -> Tensor:
    """(..., P, S, D) -> (..., P, S, D) through half a block."""
    return half(x_PSD)


@cache
def compiled_half() -> Callable[[ReadyHalf, Tensor], Tensor]:
    """`run_half`, compiled anew for every shape that it is called with."""
    torch._dynamo.config.recompile_limit = _MOST_KINDS
    compiled = torch.compile(run_half, dynamic=False, fullgraph=True)

    def run(half: ReadyHalf, x_PSD: Tensor) -> Tensor:
        with warnings.catch_warnings():
            # PyTorch looks for gradients of the weights made ready, and warns of its own looking;
            # and that float32 could be less exact is known.
            warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
            warnings.filterwarnings("ignore", "TensorFloat32 tensor cores")
            return compiled(half, x_PSD)

    return run


def missing_for_compiling(device: torch.device) -> str:
    """What a device lacks to be compiled for, in words; empty where it lacks nothing."""
    if device.type != "cuda":
        return "a GPU"
    if not has_triton():
        return "Triton"
    compilers = (os.environ.get("CC"), "cc", "gcc", "clang")
    return "" if any(name and shutil.which(name) for name in compilers) else "a C compiler"
