"""Projects, schemas, tables, partitions and their rows, held in DuckDB."""

from maxcompute_emulator.warehouse.catalog import SchemaRecord
from maxcompute_emulator.warehouse.records import (
    Clustering,
    Part,
    Segment,
    StoredColumn,
    TableRecord,
)
from maxcompute_emulator.warehouse.snapshot import Snapshot
from maxcompute_emulator.warehouse.table import Table
from maxcompute_emulator.warehouse.upload import Upload
from maxcompute_emulator.warehouse.warehouse import Warehouse

__all__ = [
    "Clustering",
    "Part",
    "SchemaRecord",
    "Segment",
    "Snapshot",
    "StoredColumn",
    "Table",
    "TableRecord",
    "Upload",
    "Warehouse",
]
