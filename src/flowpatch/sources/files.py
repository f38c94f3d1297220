"""Raw records in Parquet or CSV files, read through DuckDB: the embedded default.

Covers any number of key columns; which files there are is left to `listing.py`, how records are
numbered to `record_relation.py`, the node table to `node_relation.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import duckdb

from flowpatch.errors import ColumnError
from flowpatch.sources.columns import RecordColumns
from flowpatch.sources.contract import NodeIndex, NodeRecords, RecordBlock, Survey
from flowpatch.sources.engine import column_types, connect, reading
from flowpatch.sources.listing import Listing, find_files
from flowpatch.sources.node_relation import read_node_relation
from flowpatch.sources.record_relation import RecordRelation
from flowpatch.sources.sql import text
from flowpatch.time_axis import TimeAxis


@dataclass(frozen=True)
class FilesSource:
    """Records and node table in files."""

    records: str
    nodes: str
    columns: RecordColumns

    def describe(self) -> dict[str, Any]:
        """The files behind the records and the nodes, with their sizes and times of change."""
        return {
            "kind": "files",
            "records": self._record_files.identity(),
            "nodes": self._node_files.identity(),
        }

    def read_nodes(self) -> NodeRecords:
        """The node table. See `RecordSource.read_nodes`."""
        relation = self._node_files.relation()
        return read_node_relation(self._connection, relation, self.columns, self.nodes)

    def survey(self) -> Survey:
        """One scan of the time column. See `RecordSource.survey`."""
        return self._relation.survey()

    def read_blocks(
        self, nodes: NodeIndex, axis: TimeAxis, first_step: int, stop_step: int, *, in_order: bool
    ) -> Iterator[RecordBlock]:
        """One scan of the records. See `RecordSource.read_blocks`."""
        return self._relation.blocks(nodes, axis, first_step, stop_step, in_order=in_order)

    def close(self) -> None:
        """Ends the engine's connection."""
        self._connection.close()

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        return connect()

    @cached_property
    def _record_files(self) -> Listing:
        return find_files(self.records, "--records")

    @cached_property
    def _node_files(self) -> Listing:
        return find_files(self.nodes, "--nodes")

    @cached_property
    def _relation(self) -> RecordRelation:
        files = self._record_files
        with reading(str(files.paths[0])):
            types = column_types(self._connection, files.relation())
        relation = RecordRelation(
            self._connection, files.relation(), types, self.columns, self.records
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
