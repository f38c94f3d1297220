"""Partition specifications: `ds='20250919',h=1` in any quoting, read and written."""

from __future__ import annotations

import re
from collections.abc import Sequence

from maxcompute_emulator import errors
from maxcompute_emulator.types import Column, DataType
from maxcompute_emulator.warehouse.records import PartValues

_INTEGERS = {"TINYINT", "SMALLINT", "INT", "BIGINT"}
_ITEM = re.compile(
    r"""\s*`?(?P<name>\w+)`?\s*=\s*(?:'(?P<single>[^']*)'|"(?P<double>[^"]*)"|(?P<bare>[^,/'"]*))"""
    r"""\s*(?:[,/]|$)"""
)


def parse_spec(text: str) -> dict[str, str]:
    """Names (lower case) and values, in the order written.

    Raises:
        ServiceError: The text is not a specification.
    """
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _ITEM.match(text, position)
        if match is None or match.end() == position:
            raise errors.invalid_partition_spec(text)
        value = next(item for item in match.group("single", "double", "bare") if item is not None)
        found[match.group("name").lower()] = value.strip() if match.group("bare") else value
        position = match.end()
    return found


def full_values(columns: Sequence[Column], text: str) -> PartValues:
    """The values of a specification that names every partition key.

    Raises:
        ServiceError: A key is missing, unknown or empty.
    """
    spec = parse_spec(text)
    names = [column.name.lower() for column in columns]
    if sorted(spec) != sorted(names) or not all(spec.values()):
        raise errors.invalid_partition_spec(text)
    values = zip(columns, (spec[name] for name in names), strict=True)
    return tuple(normal_value(column.type, value) for column, value in values)


def matches(columns: Sequence[Column], spec: dict[str, str], values: PartValues) -> bool:
    """Whether a partition's values agree with a specification that may name only some keys."""
    wanted = [spec.get(column.name.lower()) for column in columns]
    return all(
        want is None or normal_value(column.type, want) == value
        for column, want, value in zip(columns, wanted, values, strict=True)
    )


def normal_value(data_type: DataType, value: str) -> str:
    """One spelling for each value: `01` is `1` where the key is a number."""
    if data_type.name not in _INTEGERS:
        return value
    try:
        return str(int(value))
    except ValueError:
        raise errors.invalid_partition_spec(f"'{value}' is no {data_type}") from None


def format_spec(columns: Sequence[Column], values: PartValues, *, separator: str = ",") -> str:
    """The specification as the tunnel writes it: `ds='20250919',h='1'`."""
    pairs = zip(columns, values, strict=True)
    return separator.join(f"{column.name}='{value}'" for column, value in pairs)


def format_path(columns: Sequence[Column], values: PartValues) -> str:
    """The specification as `SHOW PARTITIONS` writes it: `ds=20250919/h=1`."""
    pairs = zip(columns, values, strict=True)
    return "/".join(f"{column.name}={value}" for column, value in pairs)
