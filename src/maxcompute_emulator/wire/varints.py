"""Variable-length integers: seven bits a byte, the lowest first, the top bit says that more follow.

Signed integers are zigzag first: 0, -1, 1, -2 become 0, 1, 2, 3.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_UINT64 = (1 << 64) - 1
_MAX_BYTES = 10
_SHIFTS = np.arange(_MAX_BYTES, dtype=np.uint64) * np.uint64(7)
_THRESHOLDS = np.uint64(1) << _SHIFTS[1:]
_POSITIONS = np.arange(_MAX_BYTES)


def varint(value: int) -> bytes:
    """One unsigned integer."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value: int) -> bytes:
    """One signed 64-bit integer."""
    return varint(((value << 1) ^ (value >> 63)) & _UINT64)


def varints(values: NDArray[np.uint64]) -> list[bytes]:
    """Many unsigned integers at once."""
    groups = (values[:, None] >> _SHIFTS) & np.uint64(0x7F)
    lengths = 1 + (values[:, None] >= _THRESHOLDS).sum(axis=1)
    groups[(lengths - 1)[:, None] > _POSITIONS] |= np.uint64(0x80)
    raw = groups.astype(np.uint8).tobytes()
    starts = range(0, len(raw), _MAX_BYTES)
    return [raw[at : at + length] for at, length in zip(starts, lengths.tolist(), strict=True)]


def zigzags(values: NDArray[Any]) -> list[bytes]:
    """Many signed integers of any width at once."""
    wide = values.astype(np.int64)
    return varints(((wide << 1) ^ (wide >> 63)).view(np.uint64))


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The unsigned integer at `at`, and the position behind it.

    Raises:
        IndexError: The data ends inside the integer.
        ValueError: The integer has more than ten bytes.
    """
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value = byte & 0x7F
    for place in range(1, _MAX_BYTES):
        byte = data[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value & _UINT64, at + place + 1
    raise ValueError("A variable-length integer has more than ten bytes.")


def unzigzag(value: int) -> int:
    """The signed integer that was zigzag encoded as `value`."""
    return (value >> 1) ^ -(value & 1)
