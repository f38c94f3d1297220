"""Loops over records, compiled: for what would take numpy many passes over memory.

The first use on a machine compiles for some seconds and keeps the result on disk; later ones load
it in a fraction of a second. Below MANY_RECORDS the plain ways are as fast, and nothing is loaded.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Loop = TypeVar("Loop", bound=Callable[..., object])

Number = TypeVar("Number", bound=np.generic)


def compiled(loop: Loop) -> Loop:
    """The loop as machine code, which runs without holding the interpreter.

    A division by zero gives what numpy gives: a check would keep loops from using whole registers.
    """
    try:
        return cast(Loop, numba.njit(loop, nogil=True, error_model="numpy", cache=True))
    except RuntimeError:
        # No folder can be written where the result could be kept.
        return cast(Loop, numba.njit(loop, nogil=True, error_model="numpy"))


def frozen(values: NDArray[Number]) -> NDArray[Number]:
    """The values, contiguous and read-only: to the compiler, arrays that may be written are of
    another type, for which it would compile again.
    """
    values = np.ascontiguousarray(values).view()
    values.flags.writeable = False
    return values
