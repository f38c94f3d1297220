"""Raw records in Parquet or CSV files, read through DuckDB: the embedded default.

Covers any number of key columns; which files there are is left to `listing.py`, how records are
numbered to `record_relation.py`, the node table to `node_relation.py`.
"""

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from flowpatch.errors import ColumnError
from flowpatch.progress import say
from flowpatch.sources.columns import RecordColumns
from flowpatch.sources.contract import (
    MANY_RECORDS,
    NodeIndex,
    NodeRecords,
    RecordBlock,
    RecordPart,
    SourcePart,
    Survey,
)
from flowpatch.sources.engine import column_types, connect, name_of, reading
from flowpatch.sources.file_records import FileRecords
from flowpatch.sources.listing import Listing, find_files
from flowpatch.sources.node_relation import read_node_relation
from flowpatch.sources.parts import chosen_names, sum_of, with_surveys
from flowpatch.sources.record_relation import RecordRelation
from flowpatch.sources.sql import one_of, text, unused_name
from flowpatch.time_axis import TimeAxis

if TYPE_CHECKING:
    from flowpatch.sources.plain_csv import PlainCsv

COPY_BYTES = 2**25
"""Files of text from this size on are copied once into columns of numbers."""

PLAIN_BYTES = 2**27
"""CSV files from this size on repay the loading of compiled loops that parse their plain lines."""


@dataclass(frozen=True)
class FilesSource:
    """Records and node table in files."""

    records: str
    nodes: str
    columns: RecordColumns
    scratch: Path | None = None
    """Where a passing copy of many records may lie; by default the system's folder for such."""
    names: frozenset[str] | None = None
    """Which of the files behind `records` are read; all by default."""

    def describe(self) -> dict[str, Any]:
        """The files behind the records and the nodes, with their sizes and times of change."""
        return {
            "kind": "files",
            "records": self._record_files.identity(),
            "nodes": self._node_files.identity(),
        }

    def read_nodes(self) -> NodeRecords:
        """The node table. See `RecordSource.read_nodes`."""
        return self._node_records

    @cached_property
    def _node_records(self) -> NodeRecords:
        relation = self._node_files.relation()
        return read_node_relation(self._connection, relation, self.columns, self.nodes)

    def survey(self) -> Survey:
        """By statistics, or one scan of the time column. See `RecordSource.survey`."""
        return self._survey

    @cached_property
    def _survey(self) -> Survey:
        return sum_of(self._surveys.values())

    @cached_property
    def _surveys(self) -> dict[str, Survey]:
        """What each file holds that holds any record, by its name."""
        files = self._record_files
        found = None
        if files.format == "parquet":
            found = self._relation.surveys_by_statistics(files.sql_paths)
        if found is None:
            found = self._readable.surveys()
        names = {name_of(path): str(path) for path in files.paths}
        return {names[name]: survey for name, survey in found.items()}

    def parts(self) -> tuple[SourcePart, ...]:
        """The files of records. See `RecordSource.parts`."""
        return _parts(self._record_files)

    def surveyed_parts(self) -> tuple[SourcePart, ...]:
        """The files with what `survey` found in each. See `RecordSource.surveyed_parts`."""
        return with_surveys(self.parts(), self._surveys)

    def only(self, names: Collection[str]) -> "FilesSource":
        """Some of the files, looked for anew. See `RecordSource.only`.

        Where files hold a column in different types, those that are left decide how it is read.
        """
        return replace(self, names=chosen_names(names, self.parts(), self.records))

    @cached_property
    def _readable(self) -> "RecordRelation | PlainCsv":
        """The records, or a typed copy where reading them more than once would cost much more."""
        folder = self.copies_to
        if folder is None:
            return self._relation
        size = self._record_bytes
        if size > shutil.disk_usage(folder).free:
            say(f"'{folder}' has no room for a passing copy of the records: reading takes longer")
            return self._relation
        copied = (size >= PLAIN_BYTES and self._plain_csv(folder)) or self._copy(folder)
        self._record_files.check_whole()
        return copied

    def _plain_csv(self, folder: Path) -> "PlainCsv | None":
        if self._record_files.format != "csv":
            return None
        # Imported here: few records need not wait for the compiler.
        from flowpatch.sources.plain_csv import read_plain_csv

        with ExitStack() as leaving:
            made = Path(leaving.enter_context(_passing_folder(folder)))
            found = read_plain_csv(
                self._record_files, self._relation, self._node_records, made, leaving
            )
            if found is not None:
                self._leaving.push(leaving.pop_all())
            return found

    def _copy(self, folder: Path) -> RecordRelation:
        made = Path(self._leaving.enter_context(_passing_folder(folder)))
        return self._relation.typed_copy(made / "records.parquet", self._node_records.keys)

    @property
    def _record_bytes(self) -> int:
        return sum(path.stat().st_size for path in self._record_files.paths)

    @property
    def _is_text(self) -> bool:
        """Whether instants must be read out of text before any record can be left out."""
        return self._relation.types[self.columns.time_column] == "VARCHAR"

    def read_blocks(
        self, nodes: NodeIndex, axis: TimeAxis, first_step: int, stop_step: int, *, in_order: bool
    ) -> Iterator[RecordBlock | RecordPart]:
        """One scan of the records. See `RecordSource.read_blocks`."""
        return self.surveyed.read_blocks(nodes, axis, first_step, stop_step, in_order=in_order)

    @cached_property
    def surveyed(self) -> FileRecords:
        """What reads the records once they are surveyed; pickled, it reads them elsewhere."""
        readable = self._readable
        many = self._survey.records >= MANY_RECORDS
        is_copy = readable is not self._relation
        return FileRecords(self._record_files, self.columns, readable, is_copy, many)

    @property
    def files(self) -> Listing:
        """The files of records."""
        return self._record_files

    @property
    def copies_to(self) -> Path | None:
        """The folder in which a passing copy of the records will lie; None where none is made."""
        if not self._is_text or self._record_bytes < COPY_BYTES:
            return None
        return self.scratch or Path(tempfile.gettempdir())

    def close(self) -> None:
        """Ends the engine's connection and removes the copy."""
        self._connection.close()
        self._leaving.close()

    @cached_property
    def _leaving(self) -> ExitStack:
        return ExitStack()

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        return connect()

    @cached_property
    def _record_files(self) -> Listing:
        files = find_files(self.records, "--records")
        if self.names is None:
            return files
        return files.only(chosen_names(self.names, _parts(files), self.records))

    @cached_property
    def _node_files(self) -> Listing:
        return find_files(self.nodes, "--nodes")

    @cached_property
    def _relation(self) -> RecordRelation:
        files = self._record_files
        with reading(str(files.paths[0])):
            types = column_types(self._connection, files.relation())
        file_column = unused_name("file", types)
        relation = RecordRelation(
            self._connection,
            files.relation(file_column),
            types,
            self.columns,
            self.records,
            part=one_of(file_column, [name_of(path) for path in files.paths]),
        )
        relation.check_columns()
        self._check_every_file()
        return relation

    def _check_every_file(self) -> None:
        """Read by name, a column that a file lacks would be empty there without a word."""
        files, columns = self._record_files, self.columns
        if files.format != "parquet" or len(files.paths) == 1:
            return
        used = [
            *columns.node_columns,
            columns.time_column,
            columns.value_column,
            columns.adcode_column,
        ]
        query = f"""
            SELECT name, count(DISTINCT file_name) FROM parquet_schema({files.sql_paths})
            WHERE name IN ({", ".join(map(text, used))}) GROUP BY name ORDER BY name"""
        with reading(self.records):
            found = self._connection.sql(query).fetchall()
        for name, count in found:
            if count < len(files.paths) and (
                name != columns.adcode_column or columns.adcode is not None
            ):
                raise ColumnError(
                    f"Column '{name}' is in {count} of the {len(files.paths)} files of "
                    f"'{self.records}' only. Write it into all of them, or read fewer files."
                )


def _parts(files: Listing) -> tuple[SourcePart, ...]:
    found = [
        SourcePart(file["file"], {"bytes": file["bytes"], "changed_ns": file["changed_ns"]})
        for file in files.identity()
    ]
    return tuple(sorted(found, key=lambda part: part.name))


def _passing_folder(folder: Path) -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix=".flowpatch-", dir=folder)
