"""Date parts and formats: MaxCompute's letters to DuckDB's."""

from __future__ import annotations

import re

from maxcompute_emulator import errors

_PARTS = {
    "year": ("yyyy", "year", "yy"),
    "month": ("mm", "month", "mon"),
    "day": ("dd", "day", "d"),
    "hour": ("hh", "hour"),
    "minute": ("mi", "minute"),
    "second": ("ss", "second"),
    "millisecond": ("ff3",),
    "microsecond": ("ff6",),
    "week": ("w", "week"),
    "quarter": ("q", "quarter"),
}
_PART_OF = {spelling: part for part, spellings in _PARTS.items() for spelling in spellings}

_FORMAT = {
    "yyyy": "%Y",
    "mm": "%m",
    "dd": "%d",
    "hh24": "%H",
    "hh": "%H",
    "mi": "%M",
    "ss": "%S",
    "ff3": "%g",
    "ff6": "%f",
    "ff9": "%n",
}
_JAVA_FORMAT = {
    "yyyy": "%Y",
    "MM": "%m",
    "dd": "%d",
    "HH": "%H",
    "mm": "%M",
    "ss": "%S",
    "SSS": "%g",
}


def date_part(name: str) -> str:
    """DuckDB's name of a part: `mi` is `minute`.

    Raises:
        ServiceError: There is no such part.
    """
    found = _PART_OF.get(name.lower())
    if found is None:
        allowed = ", ".join(sorted(_PART_OF))
        raise errors.semantic_error(f"invalid date part '{name}'. Allowed: {allowed}")
    return found


def time_format(text: str) -> str:
    """The format of TO_CHAR and TO_DATE: `yyyy-mm-dd hh:mi:ss`."""
    return _convert(text.lower(), _FORMAT)


def java_format(text: str) -> str:
    """The format of DATE_FORMAT, in which `MM` are months and `mm` minutes."""
    return _convert(text, _JAVA_FORMAT)


def _convert(text: str, letters: dict[str, str]) -> str:
    by_length = sorted(letters, key=len, reverse=True)
    pattern = "|".join(map(re.escape, by_length))
    result, position = "", 0
    for match in re.finditer(f"{pattern}|[A-Za-z]", text):
        if match.group() not in letters:
            raise errors.unsupported(f"date format '{text}': '{match.group()}'")
        result += text[position : match.start()].replace("%", "%%") + letters[match.group()]
        position = match.end()
    return result + text[position:].replace("%", "%%")
