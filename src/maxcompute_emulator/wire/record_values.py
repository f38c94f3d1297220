"""Single values read from a record stream, and columns of them as Arrow.

A reader takes the data, a position and the list of what the checksum runs over; it returns the
value and the position behind it. It raises IndexError or `NeedMoreError` where the data ends too
early, and ValueError where the value makes no sense.
"""

import struct
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from typing import Any

import pyarrow as pa

from maxcompute_emulator import errors
from maxcompute_emulator.types import Column, DataType, arrow_type
from maxcompute_emulator.wire.limits import MAX_CELL_BYTES
from maxcompute_emulator.wire.varints import read_varint, unzigzag

Reader = Callable[[bytes, int, list[bytes]], tuple[Any, int]]

_LONG = struct.Struct("<q")
_SECONDS_AND_NANOS = struct.Struct("<qi")
_CONTEXT = Context(prec=100)
_NANOS = 1_000_000_000
_TEXT_TYPES = ("STRING", "CHAR", "VARCHAR", "JSON")


class NeedMoreError(Exception):
    """The value continues beyond the data; `n_bytes` is how far at least."""

    def __init__(self, n_bytes: int) -> None:
        super().__init__(n_bytes)
        self.n_bytes = n_bytes


def reader(column: Column) -> Reader:
    """The reader of a column's values; its errors name the column."""
    read_value = _reader(column.type)
    if column.type.name in _READERS and read_value is not _bytes:
        return read_value

    def read(data: bytes, at: int, checked: list[bytes]) -> tuple[Any, int]:
        try:
            return read_value(data, at, checked)
        except ValueError as error:
            raise ValueError(f"Column '{column.name}': {error}") from error

    return read


def _reader(data_type: DataType) -> Reader:
    if data_type.name == "DECIMAL":
        return _decimal_reader(data_type)
    if data_type.name == "ARRAY":
        return _list_reader(_reader(data_type.children[0]))
    if data_type.name == "MAP":
        return _map_reader(*map(_reader, data_type.children))
    if data_type.name == "STRUCT":
        return _struct_reader(data_type.fields, [_reader(child) for child in data_type.children])
    return _READERS[data_type.name]


def _long(data: bytes, at: int, checked: list[bytes]) -> tuple[int, int]:
    raw, at = read_varint(data, at)
    value = unzigzag(raw)
    checked.append(_LONG.pack(value))
    return value, at


def _boolean(data: bytes, at: int, checked: list[bytes]) -> tuple[bool, int]:
    raw, at = read_varint(data, at)
    checked.append(b"\x01" if raw else b"\x00")
    return bool(raw), at


def _float(data: bytes, at: int, checked: list[bytes]) -> tuple[float, int]:
    raw = _take(data, at, 4)
    checked.append(raw)
    return struct.unpack("<f", raw)[0], at + 4


def _double(data: bytes, at: int, checked: list[bytes]) -> tuple[float, int]:
    raw = _take(data, at, 8)
    checked.append(raw)
    return struct.unpack("<d", raw)[0], at + 8


def _bytes(data: bytes, at: int, checked: list[bytes]) -> tuple[bytes, int]:
    length, at = read_varint(data, at)
    if length > MAX_CELL_BYTES:
        raise ValueError(f"a value has {length} bytes; a cell holds at most {MAX_CELL_BYTES}.")
    value = _take(data, at, length)
    checked.append(value)
    return value, at + length


def _seconds_and_nanos(data: bytes, at: int, checked: list[bytes]) -> tuple[tuple[int, int], int]:
    seconds, at = read_varint(data, at)
    nanos, at = read_varint(data, at)
    pair = unzigzag(seconds), unzigzag(nanos)
    try:
        checked.append(_SECONDS_AND_NANOS.pack(*pair))
    except struct.error as error:
        raise ValueError(f"{pair[1]} nanoseconds do not fit into 32 bits.") from error
    return pair, at


def _timestamp(data: bytes, at: int, checked: list[bytes]) -> tuple[int, int]:
    (seconds, nanos), at = _seconds_and_nanos(data, at, checked)
    return seconds * _NANOS + nanos, at


def _day_time(data: bytes, at: int, checked: list[bytes]) -> tuple[dict[str, int], int]:
    (seconds, nanos), at = _seconds_and_nanos(data, at, checked)
    return {"sec": seconds, "nano": nanos}, at


def _take(data: bytes, at: int, length: int) -> bytes:
    value = data[at : at + length]
    if len(value) < length:
        raise NeedMoreError(length)
    return value


def _decimal_reader(data_type: DataType) -> Reader:
    precision, scale = data_type.precision_and_scale
    step = Decimal(1).scaleb(-scale)
    limit = Decimal(10) ** (precision - scale)

    def read(data: bytes, at: int, checked: list[bytes]) -> tuple[Decimal, int]:
        raw, at = _bytes(data, at, checked)
        try:
            value = Decimal(raw.decode()).quantize(step, ROUND_HALF_UP, _CONTEXT)
        except (InvalidOperation, UnicodeDecodeError) as error:
            raise ValueError(f"{raw!r} is no decimal.") from error
        if value.copy_abs() >= limit:
            raise ValueError(f"{raw.decode()} does not fit into {data_type}.")
        return value, at

    return read


def _list_reader(read_value: Reader) -> Reader:
    def read(data: bytes, at: int, checked: list[bytes]) -> tuple[list[Any], int]:
        length, at = read_varint(data, at)
        values = []
        for _ in range(length):
            value, at = _optional(read_value, data, at, checked)
            values.append(value)
        return values, at

    return read


def _map_reader(read_key: Reader, read_value: Reader) -> Reader:
    read_keys, read_values = _list_reader(read_key), _list_reader(read_value)

    def read(data: bytes, at: int, checked: list[bytes]) -> tuple[list[tuple[Any, Any]], int]:
        keys, at = read_keys(data, at, checked)
        values, at = read_values(data, at, checked)
        if len(keys) != len(values):
            raise ValueError(f"A map has {len(keys)} keys and {len(values)} values.")
        return list(zip(keys, values, strict=True)), at

    return read


def _struct_reader(names: tuple[str, ...], readers: list[Reader]) -> Reader:
    def read(data: bytes, at: int, checked: list[bytes]) -> tuple[dict[str, Any], int]:
        values = {}
        for name, read_value in zip(names, readers, strict=True):
            values[name], at = _optional(read_value, data, at, checked)
        return values, at

    return read


def _optional(read: Reader, data: bytes, at: int, checked: list[bytes]) -> tuple[Any, int]:
    is_null, at = read_varint(data, at)
    return (None, at) if is_null else read(data, at, checked)


_READERS: dict[str, Reader] = {
    **dict.fromkeys(("TINYINT", "SMALLINT", "INT", "BIGINT"), _long),
    **dict.fromkeys(("INTERVAL_YEAR_MONTH", "DATE", "DATETIME"), _long),
    **dict.fromkeys((*_TEXT_TYPES, "BINARY"), _bytes),
    "BOOLEAN": _boolean,
    "FLOAT": _float,
    "DOUBLE": _double,
    "TIMESTAMP": _timestamp,
    "TIMESTAMP_NTZ": _timestamp,
    "INTERVAL_DAY_TIME": _day_time,
}


def arrow_array(values: list[Any], column: Column) -> pa.Array:
    """Values that readers returned, as one Arrow column; one that misfits is a `ServiceError`."""
    target = arrow_type(column.type)
    try:
        if column.type.name in _TEXT_TYPES:
            # Bytes that are not UTF-8 pass, as they do at the service.
            return pa.array(values, pa.binary()).view(target)
        return pa.array(values, target)
    except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
        message = f"Column '{column.name}' of type {column.type}: {error}"
        raise errors.malformed_data_stream(message) from error
