"""Blocks of whole days into the array of values, and what a version will know of them.

A fork is the part of a version that another process writes: it is sent there, and comes back with
where the chunks lie that were written (`StoreWriter.fork`, `StoreWriter.join`).
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from icechunk import ForkSession
from numpy.typing import NDArray

from flowpatch.places.place import Place, place_of
from flowpatch.series.dense import DayCounts
from flowpatch.store.array_writer import EVERY_CHUNK
from flowpatch.store.chunks import read_steps, write_steps
from flowpatch.store.facts import BlockFacts
from flowpatch.store.repository import reading, writing
from flowpatch.time_axis import TimeAxis


@dataclass(frozen=True)
class BlockWriter:
    """Writes into the array `value` of the store at a place."""

    value: Any
    axis: TimeAxis
    place: Place

    def write(
        self, first_step: int, values: NDArray[np.float32], counts: DayCounts | None
    ) -> BlockFacts:
        """Writes the (S, N) values of whole days, and looks at them. See `BlockFacts.of`.

        Raises:
            StoreError: the write was refused.
        """
        with writing(self.place), ThreadPoolExecutor(1, "looking") as beside:
            # What is known of the values is found on one core while another compresses them.
            looked = beside.submit(BlockFacts.of, self.axis, first_step, values, counts)
            write_steps(self.value, first_step, values)
            return looked.result()

    def look(self, first_step: int, stop_step: int) -> BlockFacts:
        """Looks at whole days as they lie there.

        Raises:
            StoreError: they cannot be read.
        """
        with reading(self.place):
            values = read_steps(self.value, first_step, stop_step)
        return BlockFacts.of(self.axis, first_step, values)


@dataclass(frozen=True)
class Fork:
    """A version that is being written, for another process: `address` is where from anywhere."""

    session: ForkSession
    axis: TimeAxis
    address: str

    def opened(self) -> BlockWriter:
        """Its array of values.

        Raises:
            StoreError: it cannot be reached from here.
        """
        place = place_of(self.address)
        with reading(place):
            value: Any = zarr.open_group(self.session.store, mode="a")["value"]
        return BlockWriter(value.with_config(EVERY_CHUNK), self.axis, place)
