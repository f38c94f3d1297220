"""Lines of a CSV whose fields are written plainly -> keys, instants, values, in one compiled loop.

Plain are: keys of digits; instants such as 2025-09-19 08:00:00, by the wall clock; values of digits
with or without a fraction, or empty. Any other line is odd: its place is noted, and it is left to
an engine that knows every way of writing (`plain_csv.py`).
"""

import numpy as np
from numpy.typing import NDArray

from flowpatch.sources.compiled import compiled

SKIPPED, KEY_ONE, KEY_TWO, INSTANT, VALUE = range(5)
"""What a field of a line is."""

SHORTEST_LINE = 20
"""Bytes of the shortest plain line with its end: an instant of 19 bytes and the line's end."""

TOO_ODD = -1
"""In place of a count: a line ends in another way than the first, or too many lines are odd."""

_MINUS, _POINT, _ZERO, _COLON, _BLANK, _T = (np.uint8(ord(sign)) for sign in "-.0: T")
_LINE_FEED, _CARRIAGE_RETURN = np.uint8(10), np.uint8(13)

_KEY_DIGITS = 18
"""So many digits always fit an int64."""
_VALUE_DIGITS, _EXACT = 17, 2**53
"""Up to 2^53 and 10^17, a float64 holds the digits of a value, and the power of ten below them,
without loss (5^17 < 2^53), so that their quotient is the nearest float64 to what is written."""
_TENS = 10.0 ** np.arange(_VALUE_DIGITS + 1)
_LOW_BITS, _MIDPOINT = np.int64(2**29 - 1), np.int64(2**28)
"""The bits of a float64 that a float32 has not, and what they are half way between two of these."""


@compiled
def parse(
    data: NDArray[np.uint8],
    stop: int,
    delimiter: int,
    carriage: bool,
    roles: NDArray[np.int64],
    one: NDArray[np.int64],
    two: NDArray[np.int64],
    instant_s: NDArray[np.int64],
    value: NDArray[np.float32],
    odd: NDArray[np.int64],
) -> tuple[int, int]:
    """Reads whole lines; gives how many were plain and how many odd, or twice TOO_ODD.

    Args:
        data: the bytes; at `stop - 1` a line ends.
        stop: how many of them.
        delimiter: the byte between fields.
        carriage: whether lines end with a carriage return before their line feed.
        roles: (F,) what each field of a line is.
        one: the first keys of plain lines are written here.
        two: the second ones, where there are two.
        instant_s: their instants in seconds since 1970, by the wall clock.
        value: their values.
        odd: (most odd lines, 2) first byte and stop byte of each odd line are written here.
    """
    rows, odds, begin, last = 0, 0, 0, len(roles) - 1
    while begin < stop:
        at, plain = begin, True
        for field in range(len(roles)):
            role = roles[field]
            if role == SKIPPED:
                while (
                    data[at] != delimiter
                    and data[at] != _LINE_FEED
                    and data[at] != _CARRIAGE_RETURN
                ):
                    at += 1
            elif role == INSTANT:
                seconds, plain = _instant(data, at, stop)
                instant_s[rows] = seconds
                at += 19
            elif role == VALUE:
                number, at, plain = _value(data, at)
                value[rows] = number
            else:
                key, at, plain = _key(data, at)
                if role == KEY_ONE:
                    one[rows] = key
                else:
                    two[rows] = key
            if not plain or (field < last and data[at] != delimiter):
                plain = False
                break
            at += field < last
        if plain and data[at] == (_CARRIAGE_RETURN if carriage else _LINE_FEED):
            if carriage and data[at + 1] != _LINE_FEED:
                return TOO_ODD, TOO_ODD
            rows += 1
        else:
            at = _end_of_line(data, begin)
            if carriage != (data[at] == _CARRIAGE_RETURN) or odds == len(odd):
                return TOO_ODD, TOO_ODD
            if carriage and data[at + 1] != _LINE_FEED:
                return TOO_ODD, TOO_ODD
            odd[odds, 0], odd[odds, 1] = begin, at + 1 + carriage
            odds += 1
        begin = at + 1 + carriage
    return rows, odds


@compiled
def _end_of_line(data: NDArray[np.uint8], at: int) -> int:
    while data[at] != _LINE_FEED and data[at] != _CARRIAGE_RETURN:
        at += 1
    return at


@compiled
def _digits(data: NDArray[np.uint8], at: int, number: np.int64) -> tuple[np.int64, int]:
    """The number, continued by the digits that begin at `at`, and where they end."""
    digit = data[at] - _ZERO
    while digit <= 9:
        number = number * 10 + np.int64(digit)
        at += 1
        digit = data[at] - _ZERO
    return number, at


@compiled
def _key(data: NDArray[np.uint8], at: int) -> tuple[np.int64, int, bool]:
    negative = data[at] == _MINUS
    first = at + negative
    key, stop = _digits(data, first, np.int64(0))
    return (-key if negative else key), stop, 0 < stop - first <= _KEY_DIGITS


@compiled
def _value(data: NDArray[np.uint8], at: int) -> tuple[np.float32, int, bool]:
    negative = data[at] == _MINUS
    first = at + negative
    digits, stop = _digits(data, first, np.int64(0))
    count, decimals = stop - first, 0
    if count == 0:
        return np.float32(np.nan), stop, not negative
    if data[stop] == _POINT:
        point = stop
        digits, stop = _digits(data, point + 1, digits)
        decimals = stop - point - 1
        if decimals == 0:
            return np.float32(0), stop, False
    if count + decimals > _VALUE_DIGITS or digits > _EXACT:
        return np.float32(0), stop, False
    number = np.float64(digits)
    if decimals > 0:
        number /= _TENS[decimals]
        # Rounded twice is rounded once, except where the first lands between two float32.
        if (np.float64(number).view(np.int64) & _LOW_BITS) == _MIDPOINT:
            return np.float32(0), stop, False
    return np.float32(-number if negative else number), stop, True


@compiled
def _two_digits(data: NDArray[np.uint8], at: int) -> np.int64:
    """The number of two digits, a large one where one of them is none."""
    tens, units = data[at] - _ZERO, data[at + 1] - _ZERO
    number = np.int64(tens) * 10 + np.int64(units)
    return number + 1000 * np.int64((tens > 9) | (units > 9))


@compiled
def _instant(data: NDArray[np.uint8], at: int, stop: int) -> tuple[np.int64, bool]:
    """Seconds since 1970, by the wall clock."""
    if at + 19 > stop:
        return np.int64(0), False
    century, year = _two_digits(data, at), _two_digits(data, at + 2)
    month, day = _two_digits(data, at + 5), _two_digits(data, at + 8)
    hour, minute = _two_digits(data, at + 11), _two_digits(data, at + 14)
    second = _two_digits(data, at + 17)
    signs = (
        (data[at + 4] == _MINUS)
        & (data[at + 7] == _MINUS)
        & ((data[at + 10] == _BLANK) | (data[at + 10] == _T))
        & (data[at + 13] == _COLON)
        & (data[at + 16] == _COLON)
    )
    in_range = (century < 100) & (year < 100) & (hour < 24) & (minute < 60) & (second < 60)
    year += century * 100
    if not (signs & in_range & (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1)):
        return np.int64(0), False
    if day > 28 and day > _days_of_month(year, month):
        return np.int64(0), False
    days = _days_since_1970(year, month, day)
    return days * 86400 + hour * 3600 + minute * 60 + second, True


@compiled
def _days_of_month(year: np.int64, month: np.int64) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


@compiled
def _days_since_1970(year: np.int64, month: np.int64, day: np.int64) -> np.int64:
    """In the Gregorian calendar, whose years are taken from March on: a leap day is their last."""
    year -= np.int64(month <= 2)
    month = month - 3 if month > 2 else month + 9
    return (
        365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + day - 719469
    )
