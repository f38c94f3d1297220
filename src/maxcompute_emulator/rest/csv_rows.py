"""Rows as CSV, the way plain results and previews show them."""

from __future__ import annotations

import datetime
import decimal
import json
from collections.abc import Iterable, Sequence
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from maxcompute_emulator.types import Column, DataType

_NULL = b"\\N"
_TEXT = {"STRING", "CHAR", "VARCHAR", "JSON"}


def csv_rows(columns: Sequence[Column], batches: Iterable[pa.RecordBatch], time_zone: str) -> bytes:
    """A heading and one line for each row; NULL is `\\N`."""
    writer = _Writer(ZoneInfo(time_zone))
    lines = [b",".join(_quoted(column.name.encode()) for column in columns)]
    for batch in batches:
        values = [
            _values(array, column.type)
            for array, column in zip(batch.columns, columns, strict=True)
        ]
        kinds = [column.type for column in columns]
        lines += [
            b",".join(writer.cell(value, kind) for value, kind in zip(row, kinds, strict=True))
            for row in zip(*values, strict=True)
        ]
    return b"\n".join(lines) + b"\n"


def _values(array: pa.Array, kind: DataType) -> list[Any]:
    """Python values; text as bytes, because it may be no UTF-8."""
    if kind.name in _TEXT:
        return list(array.cast(pa.binary()).to_pylist())
    if kind.name == "TIMESTAMP" or kind.name == "TIMESTAMP_NTZ":
        return list(array.cast(pa.int64()).to_pylist())
    return list(array.to_pylist())


def _quoted(value: bytes) -> bytes:
    return b'"' + value.replace(b'"', b'""') + b'"'


class _Writer:
    """Spells values; instants as read on the clock of a zone."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone

    def cell(self, value: Any, kind: DataType) -> bytes:
        if value is None:
            return _NULL
        if isinstance(value, bytes):
            return _quoted(value)
        return _quoted(self.text(value, kind).encode())

    def text(self, value: Any, kind: DataType) -> str:
        if kind.name == "ARRAY":
            items = (self._inner(item, kind.children[0]) for item in value)
            return "[" + ", ".join(items) + "]"
        if kind.name == "MAP":
            pairs = (
                f"{self._inner(key, kind.children[0])}:{self._inner(item, kind.children[1])}"
                for key, item in value
            )
            return "{" + ", ".join(pairs) + "}"
        if kind.name == "STRUCT":
            fields = zip(kind.fields, kind.children, strict=True)
            pairs = (f"{name}:{self._inner(value[name], child)}" for name, child in fields)
            return "{" + ", ".join(pairs) + "}"
        return self._plain(value, kind)

    def _inner(self, value: Any, kind: DataType) -> str:
        if value is None:
            return "\\N"
        if kind.name in _TEXT:
            return json.dumps(value, ensure_ascii=False)
        if kind.children:
            return self.text(value, kind)
        plain = self._plain(value, kind)
        return json.dumps(plain) if kind.name in ("DATETIME", "TIMESTAMP", "DATE") else plain

    def _plain(self, value: Any, kind: DataType) -> str:
        if isinstance(value, bool):
            return "true" if value else "false"
        if kind.name == "DATETIME":
            return self._local(value).strftime("%Y-%m-%d %H:%M:%S")
        if kind.name in ("TIMESTAMP", "TIMESTAMP_NTZ") and isinstance(value, int):
            return self._nanoseconds(value, local=kind.name == "TIMESTAMP")
        if kind.name == "INTERVAL_DAY_TIME":
            return f"{value['sec']}.{value['nano']:09d}"
        if isinstance(value, decimal.Decimal):
            return _decimal_text(value)
        return str(value)

    def _local(self, value: datetime.datetime) -> datetime.datetime:
        return value.replace(tzinfo=datetime.UTC).astimezone(self._zone)

    def _nanoseconds(self, value: int, local: bool) -> str:
        seconds, nanoseconds = divmod(value, 1_000_000_000)
        start = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        moment = start + datetime.timedelta(seconds=seconds)
        shown = moment.astimezone(self._zone) if local else moment
        fraction = f".{nanoseconds:09d}".rstrip("0").rstrip(".")
        return shown.strftime("%Y-%m-%d %H:%M:%S") + fraction


def _decimal_text(value: decimal.Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
