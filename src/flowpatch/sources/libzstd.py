"""Zstandard's own C library, called from compiled loops: many frames without the interpreter.

Through Python each page of a file costs as much again in calls, and in waiting for other threads.
"""

import ctypes
from functools import cache
from typing import Any
from weakref import finalize

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from flowpatch.sources.compiled import compiled

NAMES = ("libzstd.so.1", "libzstd.1.dylib")


@cache
def find_libzstd() -> ctypes.CDLL | None:
    """The library, if the system has it."""
    for name in NAMES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.ZSTD_createDCtx.restype = ctypes.c_void_p
        library.ZSTD_freeDCtx.argtypes = (ctypes.c_void_p,)
        return library
    return None


class Context:
    """What the library needs to decompress, for one thread at a time.

    `function` and `pointer` are what `decompress` takes.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer = library.ZSTD_createDCtx()
        if not pointer:
            raise MemoryError
        finalize(self, library.ZSTD_freeDCtx, pointer)
        function = ctypes.cast(library.ZSTD_decompressDCtx, ctypes.c_void_p)
        self.function, self.pointer = np.uint64(function.value or 0), np.uint64(pointer)


@intrinsic
def _call(_typing: Any, function: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:  # noqa: ARG001
    """A C function of five words at an address."""
    word = ir.IntType(64)

    def call(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(word, [word] * 5).as_pointer()
        return builder.call(builder.inttoptr(values[0], kind), list(values[1:]))

    return types.uint64(*[types.uint64] * 6), call


@compiled
def decompress(
    function: np.uint64,
    context: np.uint64,
    into: NDArray[np.uint8],
    stored: NDArray[np.uint8],
) -> np.uint64:
    """Whole frames into a place for what they hold; gives how many bytes that was, or a number
    beyond any size: `ZSTD_decompressDCtx`.
    """
    return _call(  # type: ignore[call-arg]
        function, context, into.ctypes.data, len(into), stored.ctypes.data, len(stored)
    )
