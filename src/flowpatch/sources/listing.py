"""Which files stand behind a path: one file, a pattern, or a folder with or without partitions."""

import glob
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from flowpatch.errors import SourceError, SourceNotFoundError
from flowpatch.sources.sql import text

FileFormat = Literal["parquet", "csv"]

SUFFIXES: dict[str, FileFormat] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".csv.zst": "csv",
}


CSV_OPTIONS = "header = true, all_varchar = true, comment = ''"
"""How CSV is read. `#` begins no comment: as the first sign of a key it would cost its record."""


@dataclass(frozen=True)
class Listing:
    """Files of one format, in the order of their names."""

    paths: tuple[Path, ...]
    format: FileFormat

    def __post_init__(self) -> None:
        # Noted before a file is read: what changes meanwhile must not pass for what was read.
        self.identity()

    @property
    def sql_paths(self) -> str:
        """The SQL list of the paths, as they are and not as patterns."""
        return f"[{', '.join(text(glob.escape(str(path))) for path in self.paths)}]"

    @property
    def folder_columns(self) -> set[str]:
        """The columns that hive folders such as ds=20250919/ give, in place of the files' own."""
        folders = (part for path in self.paths for part in path.parts[:-1])
        return {name for name, equals, _ in (part.partition("=") for part in folders) if equals}

    def relation(self, file_column: str | None = None) -> str:
        """The DuckDB table function that reads them, hive partitions as text columns.

        Files of one folder may differ in a column's type: by name, DuckDB reads the type that
        holds all of them, where it would else round fractions to the first file's integers.
        `file_column` asks for a column of that name with each row's path.
        """
        files = f"{self.sql_paths}, hive_partitioning = true, hive_types_autocast = false"
        if file_column is not None:
            files += f", filename = {text(file_column)}"
        if self.format == "parquet":
            by_name = f"union_by_name = {len(self.paths) > 1}"
            return f"read_parquet({files}, {by_name}, binary_as_string = true)"
        return f"read_csv({files}, {CSV_OPTIONS})"

    def only(self, names: Collection[str]) -> "Listing":
        """Those of the files that are named."""
        return Listing(tuple(path for path in self.paths if str(path) in names), self.format)

    def identity(self) -> list[dict[str, Any]]:
        """Name, size in bytes and time of last change of each file, as they were when listed."""
        return self._identity

    def check_whole(self) -> None:
        """Makes sure that no file has lost anything since it was listed.

        Text that was cut at the end of a line reads like a file that ends there.

        Raises:
            SourceError: one has.
        """
        for path, known in zip(self.paths, self._identity, strict=True):
            if _identity(path)["bytes"] < known["bytes"]:
                raise SourceError(
                    f"'{path}' was cut while it was read: it had {known['bytes']:,} bytes. Run the "
                    "command again when it is whole."
                )

    @cached_property
    def _identity(self) -> list[dict[str, Any]]:
        return [_identity(path) for path in self.paths]


def find_files(place: str, flag: str) -> Listing:
    """The files behind a path or pattern; `flag` is named in errors.

    Raises:
        SourceNotFoundError: nothing is there.
        SourceError: what is there is of no known format, or of two.
    """
    # Absolute: an update, which may run in another folder, must know them by the same names.
    paths = [path.absolute() for path in _candidates(place, flag) if _format(path)]
    formats = {_format(path) for path in paths}
    if len(formats) == 1 and (file_format := formats.pop()):
        return Listing(tuple(sorted(paths)), file_format)
    known = ", ".join(SUFFIXES)
    if formats:
        raise SourceError(
            f"'{place}' holds both Parquet and CSV files. "
            f"Name one kind, such as '{place}/**/*.csv'."
        )
    raise SourceError(f"'{place}' holds no file that {flag} can read. Allowed: {known}.")


def _candidates(place: str, flag: str) -> list[Path]:
    if not place.strip():
        # As a path, nothing would be the current folder: a shell variable that is not set.
        raise SourceNotFoundError(f"{flag} '{place}' is empty. Give a file, a pattern or a folder.")
    try:
        path = Path(place).expanduser()
        is_file, is_folder = path.is_file(), path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        # A name that is too long, or a home that nobody has.
        reason = getattr(error, "strerror", None) or error
        raise SourceNotFoundError(f"{flag} '{place}' can be no path: {reason}.") from error
    if is_file:
        return [path]
    if is_folder:
        return [
            found for found in path.rglob("*") if found.is_file() and not _is_hidden(found, path)
        ]
    if glob.has_magic(place):
        matches = [Path(found) for found in glob.glob(str(path), recursive=True)]  # noqa: PTH207
        folder = _fixed_part(path)
        # A pattern such as _*.csv asks for hidden files; any other does not mean them.
        hidden_too = _is_hidden(path, folder)
        if files := [
            found
            for found in matches
            if found.is_file() and (hidden_too or not _is_hidden(found, folder))
        ]:
            return files
        raise SourceNotFoundError(
            f"No file matches '{place}'. Check {flag}; a pattern needs quotes in the shell."
        )
    raise SourceNotFoundError(f"No file or folder '{place}'. Check {flag}.")


def _identity(path: Path) -> dict[str, Any]:
    try:
        state = path.stat()
    except OSError as error:
        raise SourceError(
            f"'{path}' was there and cannot be looked at any more: {error.strerror}. Run the "
            "command again when nothing removes files there."
        ) from error
    return {"file": str(path), "bytes": state.st_size, "changed_ns": state.st_mtime_ns}


def _fixed_part(pattern: Path) -> Path:
    """The folder above the first part that holds a wildcard."""
    return next(parent for parent in pattern.parents if not glob.has_magic(str(parent)))


def _is_hidden(path: Path, folder: Path) -> bool:
    # Writers leave files such as _SUCCESS, ._x.crc and _temporary/ beside the data.
    return any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)


def _format(path: Path) -> FileFormat | None:
    name = path.name.lower()
    return next((kind for suffix, kind in SUFFIXES.items() if name.endswith(suffix)), None)
