"""Steps written chunk by chunk and read into place: what plain Zarr writes and reads."""

import numpy as np
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.storage import MemoryStore

from flowpatch.store.array_writer import CHECKSUM, EVERY_CHUNK
from flowpatch.store.arrays import COMPRESSOR
from flowpatch.store.chunks import read_steps, write_steps

NODES = 3


def array_of(steps: int, chunk_steps: int) -> zarr.Array:
    return zarr.create_array(
        MemoryStore(),
        shape=(steps, NODES),
        dtype="float32",
        chunks=(chunk_steps, NODES),
        fill_value=float("nan"),
        compressors=[COMPRESSOR, CHECKSUM],
        config=EVERY_CHUNK,
    )


@given(
    steps=st.integers(1, 40),
    chunk_steps=st.integers(1, 40),
    pieces=st.lists(st.tuples(st.integers(0, 39), st.integers(0, 40)), max_size=4),
)
def test_steps_written_anywhere_are_where_plain_zarr_puts_them(
    steps: int, chunk_steps: int, pieces: list[tuple[int, int]]
) -> None:
    ours, plain = array_of(steps, chunk_steps), array_of(steps, chunk_steps)
    for number, (first, length) in enumerate([(0, steps), *pieces]):
        first = min(first, steps)
        stop = min(steps, first + length)
        values = np.arange((stop - first) * NODES, dtype=np.float32).reshape(-1, NODES)
        values[values % 5 == number % 5] = np.nan
        write_steps(ours, first, values)
        if len(values):
            plain[first:stop] = values
    assert np.array_equal(ours[:], plain[:], equal_nan=True)
    assert np.array_equal(read_steps(ours, 0, steps), plain[:], equal_nan=True)


def test_what_is_written_may_change_once_it_is_written() -> None:
    array, values = array_of(20, 5), np.ones((20, NODES), dtype=np.float32)
    write_steps(array, 0, values)
    values[:] = 2
    assert (array[:] == 1).all()
