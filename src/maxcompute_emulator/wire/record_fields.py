"""Column values as a record stream spells them, a whole Arrow column at a time.

Each value has two forms: the bytes on the wire, and the bytes that its record's checksum runs over
(fixed width and little endian, text without its length, nothing for flags and lengths).
"""

from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from maxcompute_emulator.types import DataType
from maxcompute_emulator.wire.varints import varint, zigzags

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5

_NULL_FLAG, _VALUE_FLAG = b"\x01", b"\x00"
_SECONDS_AND_NANOS = np.dtype([("seconds", "<i8"), ("nanos", "<i4")])
_NANOS = 1_000_000_000


class Cells(NamedTuple):
    """A column's values in both forms; NULLs are empty bytes."""

    wire: list[bytes]
    checked: list[bytes]


def wire_type(data_type: DataType) -> int:
    """The wire type in the tag of a value of this type."""
    if data_type.name in _WIRE_TYPES:
        return _WIRE_TYPES[data_type.name]
    return LENGTH_DELIMITED


def cells(array: pa.Array, data_type: DataType) -> Cells:
    """Encode a column, without tags."""
    if array.null_count == 0:
        return _ENCODERS[data_type.name](array, data_type)
    present = array.is_valid().to_pylist()
    values = array.drop_null()
    if len(values) == 0:
        empty = [b""] * len(array)
        return Cells(empty, empty)
    wire, checked = map(iter, _ENCODERS[data_type.name](values, data_type))
    return Cells(
        [next(wire) if is_present else b"" for is_present in present],
        [next(checked) if is_present else b"" for is_present in present],
    )


def _fixed(raw: bytes, width: int) -> list[bytes]:
    return [raw[at : at + width] for at in range(0, len(raw), width)]


def _integers(array: pa.Array, _: DataType) -> Cells:
    return _longs(array.to_numpy(zero_copy_only=False).astype("<i8"))


def _days(array: pa.Array, _: DataType) -> Cells:
    return _longs(array.view(pa.int32()).to_numpy().astype("<i8"))


def _instants(array: pa.Array, _: DataType) -> Cells:
    return _longs(array.view(pa.int64()).to_numpy())


def _longs(values: NDArray[Any]) -> Cells:
    return Cells(zigzags(values), _fixed(values.tobytes(), 8))


def _booleans(array: pa.Array, _: DataType) -> Cells:
    values = [b"\x01" if value else b"\x00" for value in array.to_pylist()]
    return Cells(values, values)


def _floats(array: pa.Array, _: DataType) -> Cells:
    values = _fixed(array.to_numpy().astype("<f4", copy=False).tobytes(), 4)
    return Cells(values, values)


def _doubles(array: pa.Array, _: DataType) -> Cells:
    values = _fixed(array.to_numpy().astype("<f8", copy=False).tobytes(), 8)
    return Cells(values, values)


def _bytes(array: pa.Array, _: DataType) -> Cells:
    if pa.types.is_string(array.type):
        array = array.view(pa.binary())
    values = array.to_pylist()
    return Cells([varint(len(value)) + value for value in values], values)


def _decimals(array: pa.Array, _: DataType) -> Cells:
    values = [decimal_text(value).encode() for value in array.to_pylist()]
    return Cells([varint(len(value)) + value for value in values], values)


def decimal_text(value: Decimal) -> str:
    """A decimal as the service prints it: no exponent, no zeros at the end."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _timestamps(array: pa.Array, _: DataType) -> Cells:
    seconds, nanos = np.divmod(array.view(pa.int64()).to_numpy(), _NANOS)
    return _pairs(seconds, nanos)


def _day_times(array: pa.Array, _: DataType) -> Cells:
    return _pairs(array.field("sec").to_numpy(), array.field("nano").to_numpy())


def _pairs(seconds: NDArray[Any], nanos: NDArray[Any]) -> Cells:
    checked = np.empty(len(seconds), _SECONDS_AND_NANOS)
    checked["seconds"], checked["nanos"] = seconds, nanos
    wire = [first + second for first, second in zip(zigzags(seconds), zigzags(nanos), strict=True)]
    return Cells(wire, _fixed(checked.tobytes(), _SECONDS_AND_NANOS.itemsize))


def _flagged(array: pa.Array, data_type: DataType) -> Cells:
    """Values inside a nested one: a flag says whether a value follows."""
    wire, checked = cells(array, data_type)
    present = array.is_valid().to_pylist()
    return Cells(
        [
            _VALUE_FLAG + value if ok else _NULL_FLAG
            for value, ok in zip(wire, present, strict=True)
        ],
        checked,
    )


def _lists(array: pa.Array, data_type: DataType) -> Cells:
    return _grouped(array.offsets, array.values, data_type.children[0])


def _maps(array: pa.Array, data_type: DataType) -> Cells:
    keys = _grouped(array.offsets, array.keys, data_type.children[0])
    values = _grouped(array.offsets, array.items, data_type.children[1])
    return Cells(
        [key + value for key, value in zip(keys.wire, values.wire, strict=True)],
        [key + value for key, value in zip(keys.checked, values.checked, strict=True)],
    )


def _grouped(offsets: pa.Array, values: pa.Array, data_type: DataType) -> Cells:
    bounds = offsets.to_numpy()
    wire, checked = _flagged(values.slice(bounds[0], bounds[-1] - bounds[0]), data_type)
    edges = (bounds - bounds[0]).tolist()
    return Cells(
        [varint(end - at) + b"".join(wire[at:end]) for at, end in pairwise(edges)],
        [b"".join(checked[at:end]) for at, end in pairwise(edges)],
    )


def _structs(array: pa.Array, data_type: DataType) -> Cells:
    fields = [_flagged(array.field(i), kind) for i, kind in enumerate(data_type.children)]
    return Cells(
        list(map(b"".join, zip(*(field.wire for field in fields), strict=True))),
        list(map(b"".join, zip(*(field.checked for field in fields), strict=True))),
    )


_Encoder = Callable[[pa.Array, DataType], Cells]
_ENCODERS: dict[str, _Encoder] = {
    "TINYINT": _integers,
    "SMALLINT": _integers,
    "INT": _integers,
    "BIGINT": _integers,
    "INTERVAL_YEAR_MONTH": _integers,
    "BOOLEAN": _booleans,
    "DATE": _days,
    "DATETIME": _instants,
    "FLOAT": _floats,
    "DOUBLE": _doubles,
    "STRING": _bytes,
    "CHAR": _bytes,
    "VARCHAR": _bytes,
    "BINARY": _bytes,
    "JSON": _bytes,
    "DECIMAL": _decimals,
    "TIMESTAMP": _timestamps,
    "TIMESTAMP_NTZ": _timestamps,
    "INTERVAL_DAY_TIME": _day_times,
    "ARRAY": _lists,
    "MAP": _maps,
    "STRUCT": _structs,
}
_WIRE_TYPES = (
    {"FLOAT": FIXED32, "DOUBLE": FIXED64}
    | {
        name: VARINT
        for name, encoder in _ENCODERS.items()
        if encoder in (_integers, _days, _instants)
    }
    | {"BOOLEAN": VARINT}
)
