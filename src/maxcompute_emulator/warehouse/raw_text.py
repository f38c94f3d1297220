"""Bytes in a STRING that are no UTF-8, which DuckDB's text cannot hold as they are.

A value with such bytes is held escaped: each stray byte `0xNN` becomes the private character
U+10FFNN, and reading turns it back. The segment remembers which columns hold escaped values, so
text without stray bytes costs nothing.
"""

from __future__ import annotations

import pyarrow as pa

from maxcompute_emulator import errors

_SURROGATE = 0xDC00
_PRIVATE = 0x10FF00
_STRAY = range(0x80, 0x100)
_TO_PRIVATE = {_SURROGATE + byte: _PRIVATE + byte for byte in _STRAY}
_TO_SURROGATE = {_PRIVATE + byte: _SURROGATE + byte for byte in _STRAY}


def is_text(array: pa.Array) -> bool:
    """Whether every value of a string array, at any depth, is UTF-8."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def escape(array: pa.Array, column: str) -> pa.Array:
    """A string array whose stray bytes are held as private characters.

    Raises:
        ServiceError: The bytes are inside an array, map or struct, or stand beside text that
            uses the private characters itself.
    """
    if not pa.types.is_string(array.type):
        message = f"column '{column}' has bytes that are not UTF-8 inside a nested value"
        raise errors.malformed_data_stream(message)
    return pa.array([_escape(value, column) for value in _as_bytes(array)], pa.string())


def unescape(array: pa.Array) -> pa.Array:
    """The array that `escape` was given: of type string, with its stray bytes."""
    values = [
        None if value is None else value.translate(_TO_SURROGATE).encode("utf-8", "surrogateescape")
        for value in array.to_pylist()
    ]
    return pa.array(values, pa.binary()).view(pa.string())


def _as_bytes(array: pa.Array) -> list[bytes | None]:
    return list(array.view(pa.binary()).to_pylist())


def _escape(value: bytes | None, column: str) -> str | None:
    if value is None:
        return None
    text = value.decode("utf-8", "surrogateescape")
    if any(ord(character) in _TO_SURROGATE for character in text):
        message = (
            f"column '{column}' mixes bytes that are not UTF-8 with characters "
            "U+10FF80 to U+10FFFF; the emulator cannot hold both"
        )
        raise errors.malformed_data_stream(message)
    return text.translate(_TO_PRIVATE)
