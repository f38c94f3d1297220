"""Arrays that the processes of one machine share, so that each is in memory once.

The first process of the machine makes a piece of memory without a name, and the others open it
through that process. It is gone when the last of them is, however it ended: nothing is left in
/dev/shm, whose size (64 MB in many containers) sets no limit either. What is written there twice
is written with the same values, so no process waits for another after the series has been read.
"""

import math
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from flowpatch.launch import Launch
from flowpatch.store.sample_store import SampleStore

T = TypeVar("T")


class Machine(Protocol):
    """The processes of one machine; all of them call its methods in the same order."""

    launch: Launch

    def together(self) -> AbstractContextManager[None]:
        """Work inside this block is done by all or fails in all."""

    def from_main(self, action: Callable[[], T]) -> T:
        """What an action of one process returns or raises, in all processes of all machines."""

    def hand_out(self, value: T) -> T:
        """The value of the first process of the machine."""


def shares_memory(machine: Machine | None) -> bool:
    """Whether there is anyone to share memory with, and a way to."""
    # Without a memfd, as on macOS, every process keeps its own.
    return machine is not None and machine.launch.local_size > 1 and hasattr(os, "memfd_create")


def read_shared(store: SampleStore, machine: Machine | None) -> NDArray[np.float32]:
    """(T, N) values of a store, read once for a machine where its processes can share them.

    Raises:
        StoreDamagedError: a chunk is missing or does not decode; in all processes.
    """
    if machine is None or not shares_memory(machine):
        return store.read()
    shape = (store.axis.length, store.manifest.nodes)
    values = shared_array(shape, np.float32, machine)
    with machine.together():
        if machine.launch.is_first_here:
            store.read_into(values, 0)
    return values


def read_shared_in_pieces(
    store: SampleStore, machine: Machine | None, steps: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """First step and (S, N) values of one piece of a store after the other, S up to `steps`.

    All are in the same memory: a piece is gone once the next is asked for.

    Raises:
        StoreDamagedError: a chunk is missing or does not decode; in all processes.
    """
    shape = (min(steps, store.axis.length), store.manifest.nodes)
    together = machine if shares_memory(machine) else None
    values = (
        np.empty(shape, np.float32)
        if together is None
        else shared_array(shape, np.float32, together)
    )
    for first in range(0, store.axis.length, steps):
        piece = values[: store.axis.length - first]
        with together.together() if together else nullcontext():
            if together is None or together.launch.is_first_here:
                store.read_into(piece, first)
        yield first, piece
        if together is not None:
            # Nobody writes the next piece before all have taken this one.
            together.hand_out(None)


def shared_array(shape: tuple[int, ...], dtype: DTypeLike, machine: Machine) -> NDArray[Any]:
    """An array of zeros that all processes of a machine read and write."""
    size, file = math.prod(shape) * np.dtype(dtype).itemsize, -1
    with machine.together():
        if machine.launch.is_first_here:
            file = os.memfd_create("flowpatch")
            os.truncate(file, max(1, size))
    path = machine.hand_out(f"/proc/{os.getpid()}/fd/{file}")
    with machine.together(), Path(path).open("r+b") as opened:
        memory = mmap.mmap(opened.fileno(), max(1, size))
    if machine.launch.is_first_here:
        os.close(file)
    return np.frombuffer(memory, dtype=dtype, count=math.prod(shape)).reshape(shape)
