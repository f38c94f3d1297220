"""The values of a version, carried to another axis or other nodes inside a new one.

days only at the end         the array is resized: not a byte is moved
days before, or fewer        chunks are moved as they are, where they begin with a day
other nodes                  values are read, spread and written, block by block
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype

from flowpatch.store.chunks import IN_FLIGHT, write_steps

Positions = NDArray[np.int64]


def move_steps(array: zarr.Array[Any], steps: int, length: int) -> bool:
    """Moves an array of values by whole chunks: step 0 becomes step `steps`, of `length` in all.

    Steps that come to lie before 0 are left out. False, and nothing done, where the chunks do not
    begin at such steps.
    """
    by, rest = divmod(steps, array.chunks[0])
    if rest:
        return False
    chunks, nodes = -(-array.shape[0] // array.chunks[0]), array.shape[1]
    if by > 0:
        array.resize((length, nodes))
    if by:
        moved = range(max(0, -by), chunks)
        with ThreadPoolExecutor(1) as mover:
            mover.submit(asyncio.run, _move_chunks(array, moved, by)).result()
    if by < 0:
        # Chunks at the end were moved away from there: what is left of them goes.
        array.resize((max(0, array.shape[0] + steps), nodes))
    array.resize((length, nodes))
    return True


async def _move_chunks(array: zarr.Array[Any], moved: range, by: int) -> None:
    """Chunk i becomes chunk i + by; a few at a time, none written over before it was read."""
    for begin in range(0, len(moved), IN_FLIGHT):
        group = moved[begin : begin + IN_FLIGHT] if by < 0 else _from_behind(moved, begin)
        found = await asyncio.gather(*(_get(array, chunk) for chunk in group))
        await asyncio.gather(
            *(_set(array, chunk + by, content) for chunk, content in zip(group, found, strict=True))
        )


def _from_behind(moved: range, begin: int) -> range:
    stop = len(moved) - begin
    return moved[max(0, stop - IN_FLIGHT) : stop]


async def _get(array: zarr.Array[Any], chunk: int) -> Any:
    key = array.metadata.encode_chunk_key((chunk, 0))
    found = await (array.store_path / key).get(default_buffer_prototype())
    if found is None:
        raise ValueError(f"chunk '{array.basename}/{key}' is missing")
    return found


async def _set(array: zarr.Array[Any], chunk: int, content: Any) -> None:
    await (array.store_path / array.metadata.encode_chunk_key((chunk, 0))).set(content)


def spread(
    read: Callable[[int, int], NDArray[np.float32]],
    array: zarr.Array[Any],
    first_step: int,
    stop_step: int,
    columns: Positions,
    block_steps: int,
) -> None:
    """Writes steps first_step .. stop_step of what `read` gives, its node i as node `columns[i]`.

    Nodes to which nothing is written are NaN.
    """
    for begin in range(first_step, stop_step, block_steps):
        end = min(stop_step, begin + block_steps)
        values = np.full((end - begin, array.shape[1]), np.nan, dtype=np.float32)
        values[:, columns] = read(begin, end)
        write_steps(array, begin, values)
