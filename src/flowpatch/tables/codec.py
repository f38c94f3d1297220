"""Arrays as the text of a cell.

zstd  base64 of zstd-compressed little-endian float32; the default
text  numbers separated by commas, as Python prints them and other tools write them: `12.0,nan`,
      whole numbers of indices and calendars as `12,13`

A reader tells them apart by the text itself: base64 of a zstd frame begins with `KLUv`, a number
never does. Whole numbers, such as the indices of nodes, are written as float32 too, which holds
them exactly up to 2**24.
"""

import base64
import binascii
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import zstandard
from numpy.typing import NDArray

from flowpatch.errors import SampleTableError

Encoding = Literal["zstd", "text"]

ZSTD_LEVEL = 9
"""A third smaller than the default level on counts of vehicles, at 26 MB a second and core."""
ZSTD_BEGIN = "KLUv"
"""The first characters of base64 of a zstd frame."""
LARGEST_WHOLE = 2**24
"""Whole numbers from here on do not fit a float32."""
LONGEST_NUMBER = 18
"""Characters of a float32 as text, its comma included, at most."""

_EDGES = "[]() \t\r\n"
_MISSING = {"": "nan", "none": "nan", "null": "nan", "na": "nan", "\\n": "nan"}


def encode(values: NDArray[Any], encoding: Encoding, level: int = ZSTD_LEVEL) -> str:
    """The array as the text of a cell; its shape is for the reader to know."""
    numbers = np.ascontiguousarray(values, dtype="<f4").ravel()
    if encoding == "zstd":
        packed = zstandard.ZstdCompressor(level=level).compress(numbers.tobytes())
        return base64.b64encode(packed).decode("ascii")
    # from_pandas would make NaN null; here NaN is a number like others.
    texts = pc.cast(pa.array(numbers, from_pandas=False), pa.string())
    if not np.issubdtype(values.dtype, np.integer):
        whole = pc.match_substring_regex(texts, "^-?[0-9]+$")
        texts = pc.if_else(whole, pc.binary_join_element_wise(texts, ".0", ""), texts)
    offsets = pa.array([0, len(texts)], pa.int32())
    return str(pc.binary_join(pa.ListArray.from_arrays(offsets, texts), ",")[0])


def decode(cell: str, place: str, at_most: int) -> NDArray[np.float32]:
    """The (K,) float32 numbers of a cell in either encoding, NaN for those that are not finite.

    Args:
        cell: its text.
        place: named in errors.
        at_most: more numbers than these are not unpacked, whatever the cell claims to hold.

    Raises:
        SampleTableError: it holds something else, or more.
    """
    zstd = cell.startswith(ZSTD_BEGIN)
    numbers = _unpack(cell, place, at_most) if zstd else _parse(cell, place)
    if len(numbers) > at_most:
        raise SampleTableError(
            f"{place} has more than {at_most:,} numbers. The metadata is of another table."
        )
    return np.where(np.isfinite(numbers), numbers, np.float32(np.nan))


def longest_cell(numbers: int, encoding: Encoding) -> int:
    """Characters that a cell of so many numbers takes at most."""
    if encoding == "text":
        return numbers * LONGEST_NUMBER
    packed = numbers * 4 + numbers // 32 + 64
    return (packed + 2) // 3 * 4


def _unpack(cell: str, place: str, at_most: int) -> NDArray[np.float32]:
    try:
        packed = base64.b64decode(cell, validate=True)
        size = zstandard.frame_content_size(packed)
        # A frame may leave out its size, and unpack to thousands of times its own.
        reader = zstandard.ZstdDecompressor().stream_reader(packed)
        numbers = reader.read(4 * at_most + 1)
        if size not in (-1, len(numbers)) and len(numbers) <= 4 * at_most:
            raise ValueError("it is cut short")
        if len(numbers) > 4 * at_most:
            numbers = numbers[: 4 * at_most] + bytes(4)
        return np.frombuffer(numbers, dtype="<f4")
    except (binascii.Error, zstandard.ZstdError, ValueError) as error:
        raise SampleTableError(f"{place} does not decode: {error}.") from None


def _parse(cell: str, place: str) -> NDArray[np.float32]:
    if not cell.strip():
        return np.empty(0, dtype=np.float32)
    pieces = pc.split_pattern(pa.array([cell]), ",").flatten()
    try:
        return _numbers(pieces)
    except pa.ArrowInvalid:
        pass
    # Other tools write brackets, spaces, and missing values in words of their own.
    cleaned = [piece.strip(_EDGES) for piece in pieces.to_pylist()]
    try:
        return _numbers(pa.array([_MISSING.get(piece.lower(), piece) for piece in cleaned]))
    except pa.ArrowInvalid as error:
        raise SampleTableError(f"{place} is no list of numbers: {error}.") from None


def _numbers(texts: pa.Array) -> NDArray[np.float32]:
    numbers: NDArray[np.float32] = pc.cast(texts, pa.float32()).to_numpy(zero_copy_only=False)
    return numbers
