"""Which columns of a table of records mean what: the same for every source."""

from dataclasses import dataclass

LATITUDE_NAMES = ("lat", "latitude")
LONGITUDE_NAMES = ("lng", "lon", "long", "longitude")


@dataclass(frozen=True, kw_only=True)
class RecordColumns:
    """The columns of records and node table, and how their instants are written.

    `time_format` is None for what DuckDB reads by itself (`2025-09-19 08:00:00` and its kin), a
    strptime format for other text, or `unix_s` / `unix_ms` for numbers; a column of native
    instants needs none. An instant that names its zone or offset is converted to `time_zone`,
    any other is taken as wall-clock time there. A record or node belongs to the city if its
    `adcode_column` equals `adcode`, where one is given.
    """

    node_columns: tuple[str, ...]
    time_column: str
    value_column: str
    time_format: str | None = None
    time_zone: str = "UTC"
    latitude_column: str | None = None
    longitude_column: str | None = None
    adcode: str | None = None
    adcode_column: str = "adcode"
