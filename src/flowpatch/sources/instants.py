"""A record's wall-clock instant in DuckDB's SQL, from whatever its time column holds.

An instant that names its zone or offset is converted to the zone asked for; any other is taken as
wall-clock time there. What cannot be read becomes NULL, to be counted, and never ends a build.
"""

from collections.abc import Callable

from flowpatch.sources.sql import identifier, text

FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999
"""The years 1 to 9999: what lies beyond is no instant, such as milliseconds read as seconds."""


def instant_sql(
    column: str,
    kind: str,
    time_format: str | None,
    time_zone: str,
    pattern_type: Callable[[str], str],
) -> str | None:
    """The SQL expression of the instant as a TIMESTAMP; None where the column is no time.

    Args:
        column: name of the time column.
        kind: its DuckDB type.
        time_format: None, `unix_s`, `unix_ms` or a strptime pattern, as `--time-format`.
        time_zone: the zone whose wall clock is asked for.
        pattern_type: gives the type of instant that DuckDB parses with a pattern.
    """
    quoted = identifier(column)
    if kind in ("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS"):
        return _local(f"CAST({quoted} AS TIMESTAMPTZ)", time_zone)
    if kind.startswith("TIMESTAMP") or kind == "DATE":
        return f"CAST({quoted} AS TIMESTAMP)"
    if time_format in ("unix_s", "unix_ms"):
        return _from_unix(quoted, 1000 if time_format == "unix_s" else 1, time_zone)
    if time_format:
        parsed = f"TRY_STRPTIME(CAST({quoted} AS VARCHAR), {text(time_format)})"
        has_zone = pattern_type(time_format) == "TIMESTAMP WITH TIME ZONE"
        return _in_calendar(_local(parsed, time_zone) if has_zone else parsed)
    if kind == "VARCHAR":
        return _in_calendar(_from_text(quoted, time_zone))
    return None


def _local(instant: str, time_zone: str) -> str:
    return f"({instant} AT TIME ZONE {text(time_zone)})"


def _from_unix(column: str, milliseconds: int, time_zone: str) -> str:
    # A fraction of a second is cut off: rounded, it could end in the next step.
    ms = f"TRY_CAST(floor(TRY_CAST({column} AS DOUBLE) * {milliseconds}) AS BIGINT)"
    valid = f"CASE WHEN {ms} BETWEEN {FIRST_MS} AND {LAST_MS} THEN {ms} END"
    return _local(f"make_timestamptz(({valid}) * 1000)", time_zone)


def _from_text(column: str, time_zone: str) -> str:
    # A sign or letter behind the hour is an offset or a zone, which a plain cast would ignore.
    return (
        f"CASE WHEN regexp_matches({column}, ':.*[-+A-Za-z]') "
        f"THEN {_local(f'TRY_CAST({column} AS TIMESTAMPTZ)', time_zone)} "
        f"ELSE TRY_CAST({column} AS TIMESTAMP) END"
    )


def _in_calendar(instant: str) -> str:
    """NULL for what DuckDB takes for an instant and no calendar holds, such as 'infinity'."""
    first, last = "TIMESTAMP '0001-01-01'", "TIMESTAMP '9999-12-31 23:59:59.999'"
    return f"CASE WHEN ({instant}) BETWEEN {first} AND {last} THEN ({instant}) END"
