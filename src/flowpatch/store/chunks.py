"""The values of a version, read straight into place and written straight from there.

Zarr would decode each chunk into a buffer of its own and copy it from there, and copy it to one
before it is compressed. How chunks are cut and compressed is in `arrays.py`; any Zarr reads them.
"""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
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


def read_steps(array: zarr.Array[Any], first: int, stop: int) -> NDArray[np.float32]:
    """(S, N) values of steps first .. stop of an array that is readable.

    Raises:
        ValueError: a chunk is missing, or is not what was written.
    """
    values = np.empty((stop - first, array.shape[1]), dtype=np.float32)
    with StepReader(array) as reader:
        reader.read_into(values, first)
    return values


def write_steps(array: zarr.Array[Any], first: int, values: NDArray[np.float32]) -> None:
    """Writes (S, N) values as the steps from `first` on, each chunk by itself.

    Zarr takes what fills a chunk as it lies there.
    """
    stop, steps = first + len(values), array.chunks[0]

    def write(chunk: int) -> None:
        begin, end = max(first, chunk * steps), min(stop, (chunk + 1) * steps)
        array[begin:end] = values[begin - first : end - first]

    with ThreadPoolExecutor(IN_FLIGHT, "chunk") as writers:
        # What a thread raised is raised by what is made of its result.
        list(writers.map(write, range(first // steps, -(-stop // steps))))


class StepReader:
    """Reads steps of one array, again and again in the same threads and the same memory.

    What many threads that come and go have freed, the C library keeps for each of them.
    """

    def __init__(self, array: zarr.Array[Any]) -> None:
        self._array, self._steps = array, array.chunks[0]
        # A loop in a thread of its own: the caller's thread may be running one already.
        self._fetcher = ThreadPoolExecutor(1, "fetch")
        self._decoders = ThreadPoolExecutor(DECODERS, "decode")
        self._scratch = threading.local()

    def __enter__(self) -> "StepReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._fetcher.shutdown()
        self._decoders.shutdown()

    def read_into(self, values: NDArray[np.float32], first: int) -> None:
        """Fills (S, N) contiguous values with the steps from `first` on.

        Raises:
            ValueError: a chunk is missing, or is not what was written.
        """
        self._fetcher.submit(asyncio.run, self._read_chunks(values, first)).result()

    async def _read_chunks(self, values: NDArray[np.float32], first: int) -> None:
        stop, slots = first + len(values), asyncio.Semaphore(IN_FLIGHT)
        chunks = range(first // self._steps, -(-stop // self._steps)) if len(values) else range(0)

        async def read(chunk: int) -> None:
            begin = max(first, chunk * self._steps)
            end = min(stop, (chunk + 1) * self._steps)
            into = values[begin - first : end - first]
            async with slots:
                await self._read_chunk(chunk, begin - chunk * self._steps, into)

        await asyncio.gather(*map(read, chunks))

    async def _read_chunk(self, chunk: int, skipped: int, into: NDArray[np.float32]) -> None:
        key = self._array.metadata.encode_chunk_key((chunk, 0))
        found = await (self._array.store_path / key).get(default_buffer_prototype())
        if found is None:
            raise ValueError(f"chunk '{self._array.basename}/{key}' is missing")
        content = np.frombuffer(found.as_buffer_like(), dtype=np.uint8)
        decode_in = asyncio.get_running_loop().run_in_executor
        try:
            await decode_in(self._decoders, self._decode, content, skipped, into)
        except ValueError as error:
            raise ValueError(f"chunk '{self._array.basename}/{key}' {error}") from None

    def _decode(self, content: NDArray[np.uint8], skipped: int, into: NDArray[np.float32]) -> None:
        """Checks a chunk and puts those of its steps behind the `skipped` ones in place."""
        encoded, checksum = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
        decoded_bytes = self._steps * into[0].nbytes
        if (
            google_crc32c.value(encoded) != int.from_bytes(checksum.tobytes(), "little")
            or int.from_bytes(encoded[_DECODED_SIZE].tobytes(), "little") != decoded_bytes
        ):
            raise ValueError("is not what was written")
        if len(into) == self._steps:
            blosc.decompress(encoded, into)
            return
        whole = self._whole_chunk()
        blosc.decompress(encoded, whole)
        into[:] = whole[skipped : skipped + len(into)]

    def _whole_chunk(self) -> NDArray[np.float32]:
        """Memory for a whole chunk, of the thread's own."""
        if not hasattr(self._scratch, "values"):
            shape = (self._steps, self._array.shape[1])
            self._scratch.values = np.empty(shape, dtype=np.float32)
        whole: NDArray[np.float32] = self._scratch.values
        return whole
