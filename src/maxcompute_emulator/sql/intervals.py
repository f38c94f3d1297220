"""Intervals: constants, and what they do to dates and times."""

from __future__ import annotations

import re

from sqlglot import exp

from maxcompute_emulator import errors
from maxcompute_emulator.sql.coercion import instant
from maxcompute_emulator.sql.scope import CLOCK_TYPES, DATETIME, Typed
from maxcompute_emulator.sql.time_formats import date_part
from maxcompute_emulator.types import DataType, duckdb_type

DAY_TIME = DataType("INTERVAL_DAY_TIME")
YEAR_MONTH = DataType("INTERVAL_YEAR_MONTH")
_DAY_TIME_TEXT = re.compile(r"([+-]?)(\d+)[ ]+(\d+):(\d+):(\d+)(?:\.(\d{1,9}))?")
_YEAR_MONTH_TEXT = re.compile(r"([+-]?)(\d+)-(\d+)")
_UNIT_SECONDS = {"day": 86400, "hour": 3600, "minute": 60, "second": 1}
_UNIT_MONTHS = {"year": 12, "month": 1}
_NANOSECONDS = 1_000_000_000


def day_time(text: str) -> Typed:
    """`days hours:minutes:seconds[.fraction]` as an INTERVAL_DAY_TIME.

    Raises:
        ServiceError: The text is none.
    """
    match = _DAY_TIME_TEXT.fullmatch(text.strip())
    if match is None:
        raise errors.semantic_error(f"'{text}' is no interval of days. Allowed: '3 12:30:11.5'")
    days, hours, minutes, seconds = (int(match[group]) for group in range(2, 6))
    whole = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    nanoseconds = int((match[6] or "").ljust(9, "0"))
    return _of_nanoseconds(_signed(match[1], whole * _NANOSECONDS + nanoseconds))


def year_month(text: str) -> Typed:
    """`years-months` as an INTERVAL_YEAR_MONTH.

    Raises:
        ServiceError: The text is none.
    """
    match = _YEAR_MONTH_TEXT.fullmatch(text.strip())
    if match is None:
        raise errors.semantic_error(f"'{text}' is no interval of months. Allowed: '10-11'")
    return _of_months(_signed(match[1], int(match[2]) * 12 + int(match[3])))


def constant(node: exp.Interval) -> Typed | None:
    """The value of INTERVAL before a constant; None where it stands before an expression."""
    if not isinstance(node.this, exp.Literal) or node.unit is None:
        return None
    text = str(node.this.this)
    if isinstance(node.unit, exp.IntervalSpan):
        first, last = (date_part(item.name) for item in (node.unit.this, node.unit.expression))
        if (first, last) == ("day", "second"):
            return day_time(text)
        if (first, last) == ("year", "month"):
            return year_month(text)
        raise errors.unsupported(f"INTERVAL from {first} to {last}")
    unit = date_part(node.unit.name)
    if not re.fullmatch(r"[+-]?\d+", text.strip()):
        raise errors.semantic_error(f"'{text}' is no number of {unit}s")
    if unit in _UNIT_MONTHS:
        return _of_months(int(text) * _UNIT_MONTHS[unit])
    if unit in _UNIT_SECONDS:
        return _of_nanoseconds(int(text) * _UNIT_SECONDS[unit] * _NANOSECONDS)
    return None


def as_duckdb(value: Typed) -> str:
    """An interval in the form that DuckDB adds to a time."""
    if value.kind == "INTERVAL_YEAR_MONTH":
        return f"to_months(CAST({value.sql} AS INTEGER))"
    if value.kind == "INTERVAL_DAY_TIME":
        micros = f"({value.sql}).sec * 1000000 + ({value.sql}).nano // 1000"
        return f"to_microseconds({micros})"
    return value.sql


def difference(later: Typed, earlier: Typed) -> Typed:
    """The time between two times, as an INTERVAL_DAY_TIME.

    Raises:
        ServiceError: One of them is no DATE or DATETIME.
    """
    for side in (later, earlier):
        if side.kind not in ("DATE", "DATETIME"):
            raise errors.unsupported(f"the difference of {side.kind}s; cast them to DATETIME first")
    micros = f"(epoch_us({instant(later)}) - epoch_us({instant(earlier)}))"
    return _struct(f"{micros} // 1000000", f"{micros} % 1000000 * 1000")


def shifted(moment: Typed, sign: str, interval: Typed) -> Typed:
    """A DATE or DATETIME plus or minus an interval.

    Raises:
        ServiceError: The time is of another type, or is added to a time.
    """
    if interval.kind in CLOCK_TYPES:
        raise errors.semantic_error("two times cannot be added")
    if moment.kind not in ("DATE", "DATETIME"):
        raise errors.unsupported(f"arithmetic on {moment.kind}; cast it to DATETIME first")
    return Typed(f"({instant(moment)} {sign} {as_duckdb(interval)})", DATETIME)


def _signed(sign: str, value: int) -> int:
    return -value if sign == "-" else value


def _of_months(months: int) -> Typed:
    return Typed(f"CAST({months} AS BIGINT)", YEAR_MONTH)


def _of_nanoseconds(total: int) -> Typed:
    """Seconds and nanoseconds of one sign, as the tunnel carries them."""
    seconds, nanoseconds = divmod(abs(total), _NANOSECONDS)
    sign = -1 if total < 0 else 1
    return _struct(str(sign * seconds), str(sign * nanoseconds))


def _struct(seconds: str, nanoseconds: str) -> Typed:
    packed = f"struct_pack(sec := {seconds}, nano := {nanoseconds})"
    return Typed(f"CAST({packed} AS {duckdb_type(DAY_TIME)})", DAY_TIME)
