"""How the lines of CSV files are written, as DuckDB sees it: is it plain, and alike in all?"""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from flowpatch.sources.engine import reading
from flowpatch.sources.listing import CSV_OPTIONS, Listing
from flowpatch.sources.sql import text

_LINE_ENDS = {r"\n": "\n", r"\r\n": "\r\n"}
_NONE = "(empty)"
_LONGEST_HEADER = 2_000_000


@dataclass(frozen=True)
class Dialect:
    """Lines of fields between delimiters, without quotes; `columns` names the fields."""

    delimiter: str
    line_end: str
    columns: tuple[str, ...]

    def relation(self, paths: Sequence[Path], file_column: str) -> str:
        """The DuckDB table function that reads files of such lines and no header, as text.

        A column named `file_column` holds each line's path.
        """
        files = ", ".join(text(glob.escape(str(path))) for path in paths)
        columns = ", ".join(f"{text(name)}: 'VARCHAR'" for name in self.columns)
        return (
            f"read_csv([{files}], auto_detect = false, header = false, "
            f"filename = {text(file_column)}, "
            f"comment = '', delim = {text(self.delimiter)}, quote = '', escape = '', "
            f"new_line = {text(self.line_end.encode('unicode_escape').decode())}, "
            f"columns = {{{columns}}})"
        )


def common_dialect(connection: duckdb.DuckDBPyConnection, files: Listing) -> Dialect | None:
    """The dialect of all files; None where they differ, are compressed or not of such lines.

    The first file is looked into, as far as DuckDB's own look goes; of the others only the header,
    for a look takes longer than reading a file of a few megabytes.
    """
    if any(path.suffix.lower() != ".csv" for path in files.paths):
        return None
    first, *others = files.paths
    header = _header(first)
    if any(_header(path) != header for path in others):
        return None
    return _dialect(connection, first)


def _header(path: Path) -> bytes:
    with reading(str(path)), path.open("rb") as file:
        return file.readline(_LONGEST_HEADER)


def _dialect(connection: duckdb.DuckDBPyConnection, path: Path) -> Dialect | None:
    query = f"""
        SELECT Delimiter, Quote, Escape, Comment, SkipRows, HasHeader, NewLineDelimiter,
               [field.name FOR field IN Columns]
        FROM sniff_csv({text(glob.escape(str(path)))}, {CSV_OPTIONS})"""
    with reading(str(path)):
        ((delimiter, *others, line_end, columns),) = connection.sql(query).fetchall()
    plain = others == [_NONE, _NONE, _NONE, 0, True]
    if not plain or line_end not in _LINE_ENDS or len(delimiter.encode()) != 1:
        return None
    return Dialect(delimiter, _LINE_ENDS[line_end], tuple(columns))
