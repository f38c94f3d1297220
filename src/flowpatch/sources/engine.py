"""DuckDB inside this process: how it is set up, and its errors under our own names."""

import glob
import os.path
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from flowpatch.errors import ColumnError, SourceError
from flowpatch.sources.sql import identifier, text

ColumnTypes = dict[str, str]
"""Column name -> DuckDB type."""


def connect() -> duckdb.DuckDBPyConnection:
    """A database in memory, set up for reading records."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    # The one progress display is ours; DuckDB's own would write into a pipe.
    connection.execute("SET enable_progress_bar = false")
    # Nothing downstream depends on the order of the records, and keeping it costs memory.
    connection.execute("SET preserve_insertion_order = false")
    # DuckDB 2.0 lets its CSV reader do a TRY_CAST as if it were a CAST: one bad value would
    # end the build.
    connection.execute("SET disabled_optimizers = 'type_pushdown'")
    return connection


@contextmanager
def reading(place: str) -> Iterator[None]:
    """Errors of the engine inside this block become SourceErrors that name the place."""
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise SourceError(f"Cannot read '{place}': {summary(error)}") from error


def summary(error: Exception) -> str:
    """What went wrong, without the advice on DuckDB's own options that follows an empty line."""
    lines = str(error).strip().split("\n\n")[0].splitlines()
    return "; ".join(line.strip() for line in lines[:3]) or type(error).__name__


def name_of(path: Path) -> str:
    """The path of a file as DuckDB gives it back.

    That is the path as it was given, but where it had to be escaped: then it is tidied as a
    pattern is.
    """
    name = str(path)
    if not glob.has_magic(name):
        return name
    tidy = os.path.normpath(name)
    return tidy[1:] if tidy.startswith("//") else tidy


def column_types(connection: duckdb.DuckDBPyConnection, relation: str) -> ColumnTypes:
    """The columns of what stands behind FROM, with their types."""
    rows = connection.sql(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    return {name: kind for name, kind, *_ in rows}


def require(name: str, types: Mapping[str, str], where: str, flag: str) -> str:
    """The name itself.

    Raises:
        ColumnError: there is no such column; `flag` would name another.
    """
    if name not in types:
        raise ColumnError(
            f"No column '{name}' in the {where}. Columns there: {', '.join(types)}. "
            f"Name the right one with {flag}."
        )
    return name


def city_condition(adcode: str | None, adcode_column: str, types: ColumnTypes) -> str:
    """The SQL condition that keeps the rows of a city, `true` where none is asked for."""
    if adcode is None or adcode_column not in types:
        return "true"
    return f"CAST({identifier(adcode_column)} AS VARCHAR) = {text(adcode)}"
