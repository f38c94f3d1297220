"""The values of a version, read straight into place: chunks fetched, checked, decoded by all cores.

Zarr would decode each chunk into a buffer of its own and copy it from there. How chunks are cut
and compressed is in `arrays.py`; any Zarr reads them.
"""

import asyncio
import os
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numcodecs import blosc
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec
from zarr.core.buffer import default_buffer_prototype

DECODERS = os.cpu_count() or 1
IN_FLIGHT = 2 * DECODERS
"""Chunks fetched at a time: enough that no decoder waits, few enough to hold in memory."""
_CHECKSUM_BYTES = 4
_DECODED_SIZE = slice(4, 8)
"""Where Blosc's header keeps the number of decoded bytes."""


def is_readable(array: zarr.Array[Any]) -> bool:
    """Whether an array is cut and compressed as the values of every store are.

    That is: float32, chunks of whole steps, Blosc of any kind, CRC-32C.
    """
    codecs = [type(codec) for codec in getattr(array.metadata, "codecs", ())]
    return (
        array.dtype == np.dtype("<f4")
        and array.ndim == 2
        and array.chunks[1] == array.shape[1]
        and codecs == [BytesCodec, BloscCodec, Crc32cCodec]
    )


def read_steps(
    array: zarr.Array[Any], first: int, stop: int, into: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """(S, N) values of steps first .. stop of an array that is readable.

    `into` is memory for them, (S, N) and contiguous; by default it is made.

    Raises:
        ValueError: a chunk is missing, or is not what was written.
    """
    values = into
    if values is None:
        values = np.empty((stop - first, array.shape[1]), dtype=np.float32)
    # A loop in a thread of its own: the caller's thread may be running one already.
    with ThreadPoolExecutor(DECODERS) as decoders, ThreadPoolExecutor(1) as fetcher:
        reading = _read_into(values, array, first, first + len(values), decoders)
        fetcher.submit(asyncio.run, reading).result()
    return values


async def _read_into(
    values: NDArray[np.float32],
    array: zarr.Array[Any],
    first: int,
    stop: int,
    decoders: Executor,
) -> None:
    steps = array.chunks[0]
    decode_in = asyncio.get_running_loop().run_in_executor
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def read_chunk(chunk: int) -> None:
        begin, end = max(first, chunk * steps), min(stop, (chunk + 1) * steps)
        into = values[begin - first : end - first]
        key = array.metadata.encode_chunk_key((chunk, 0))
        async with slots:
            found = await (array.store_path / key).get(default_buffer_prototype())
            if found is None:
                raise ValueError(f"chunk '{array.basename}/{key}' is missing")
            content = np.frombuffer(found.as_buffer_like(), dtype=np.uint8)
            try:
                await decode_in(decoders, _decode, content, begin - chunk * steps, into, steps)
            except ValueError as error:
                raise ValueError(f"chunk '{array.basename}/{key}' {error}") from None

    chunks = range(first // steps, -(-stop // steps)) if first < stop else range(0)
    await asyncio.gather(*map(read_chunk, chunks))


def _decode(
    content: NDArray[np.uint8], skipped: int, into: NDArray[np.float32], steps: int
) -> None:
    """Checks a chunk of `steps` steps and puts those behind the `skipped` ones in place."""
    encoded, checksum = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
    decoded_bytes = steps * into[0].nbytes
    if (
        google_crc32c.value(encoded) != int.from_bytes(checksum.tobytes(), "little")
        or int.from_bytes(encoded[_DECODED_SIZE].tobytes(), "little") != decoded_bytes
    ):
        raise ValueError("is not what was written")
    if len(into) == steps:
        blosc.decompress(encoded, into)
        return
    whole = np.empty((steps, into.shape[1]), dtype=np.float32)
    blosc.decompress(encoded, whole)
    into[:] = whole[skipped : skipped + len(into)]
