"""What is known of a table, as frozen values: a change makes a new record.

```
TableRecord ── columns          each with an id that outlives renaming and reordering
     └─ parts: values -> Part   one for each partition; without partition keys one, of no values
                └─ Segment      an immutable DuckDB table; a row range is a rowid range of it
```
Appending adds a segment, overwriting swaps the list, and altering columns touches no data: a
segment that lacks a column reads as NULL there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from maxcompute_emulator.types import Column, TimeTruncation, parse_type

DEFAULT_SCHEMA = "default"
TABLE_KIND = "MANAGED_TABLE"
STORAGE_TIER = "storagetier"
VIEW_KIND = "VIRTUAL_VIEW"
MATERIALIZED_KIND = "MATERIALIZED_VIEW"
VIEW_KINDS = (VIEW_KIND, MATERIALIZED_KIND)

PartValues = tuple[str, ...]


@dataclass(frozen=True)
class StoredColumn:
    """A column, and the id that names it in segments."""

    id: int
    column: Column


@dataclass(frozen=True)
class Segment:
    """One immutable DuckDB table of rows.

    Attributes:
        id: Names the DuckDB table.
        rows: How many.
        size_bytes: An estimate of what they take.
        column_types: Column id -> the type, as text, that the segment holds it in.
        escaped: Ids of columns whose text holds escaped bytes; see `raw_text`.
    """

    id: int
    rows: int
    size_bytes: int
    column_types: Mapping[int, str]
    escaped: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Clustering:
    """How a table says that its rows lie.

    Attributes:
        kind: `hash` or `range`.
        columns: Names.
        order: Names, each with `asc` or `desc`.
        buckets: How many; 0 where that is left open.
    """

    kind: str
    columns: tuple[str, ...]
    order: tuple[tuple[str, str], ...] = ()
    buckets: int = 0


@dataclass(frozen=True)
class Part:
    """One partition of a table, or all of a table without partition keys."""

    values: PartValues
    created: float
    modified: float
    ddl_time: float
    version: int
    segments: tuple[Segment, ...] = ()
    storage_tier: str = ""

    @property
    def rows(self) -> int:
        """How many rows it holds."""
        return sum(segment.rows for segment in self.segments)

    @property
    def size_bytes(self) -> int:
        """An estimate of what its rows take."""
        return sum(segment.size_bytes for segment in self.segments)


@dataclass(frozen=True)
class TableRecord:
    """A table or a view at one moment. Times are seconds since 1970, in UTC."""

    id: int
    project: str
    schema: str
    name: str
    columns: tuple[StoredColumn, ...]
    created: float
    modified: float
    ddl_time: float
    owner: str
    partition_columns: tuple[Column, ...] = ()
    kind: str = TABLE_KIND
    comment: str = ""
    lifecycle: int = -1
    next_column_id: int = 0
    properties: Mapping[str, str] = field(default_factory=dict)
    primary_key: tuple[str, ...] = ()
    view_text: str = ""
    clustering: Clustering | None = None
    parts: Mapping[PartValues, Part] = field(default_factory=dict)


def table_to_json(record: TableRecord) -> str:
    """Everything but the parts, which are stored one by one."""
    body = {
        **{name: getattr(record, name) for name in _PLAIN_FIELDS},
        "properties": dict(record.properties),
        "primary_key": list(record.primary_key),
        "clustering": asdict(record.clustering) if record.clustering else None,
        "columns": [[stored.id, *_column_to_list(stored.column)] for stored in record.columns],
        "partition_columns": [_column_to_list(column) for column in record.partition_columns],
    }
    return json.dumps(body, ensure_ascii=False)


def table_from_json(text: str, parts: Mapping[PartValues, Part]) -> TableRecord:
    """The record that `table_to_json` wrote, with its parts."""
    body = json.loads(text)
    return TableRecord(
        **{name: body[name] for name in _PLAIN_FIELDS},
        properties=body["properties"],
        primary_key=tuple(body["primary_key"]),
        columns=tuple(StoredColumn(item[0], _column(item[1:])) for item in body["columns"]),
        partition_columns=tuple(_column(item) for item in body["partition_columns"]),
        clustering=_clustering(body.get("clustering")),
        parts=parts,
    )


def part_to_json(part: Part) -> str:
    """A part with its segments."""
    body = {name: getattr(part, name) for name in (*_PART_FIELDS, "storage_tier")}
    body["segments"] = [
        [
            segment.id,
            segment.rows,
            segment.size_bytes,
            [list(item) for item in segment.column_types.items()],
            sorted(segment.escaped),
        ]
        for segment in part.segments
    ]
    return json.dumps(body, ensure_ascii=False)


def part_from_json(text: str) -> Part:
    """The part that `part_to_json` wrote."""
    body = json.loads(text)
    segments = tuple(
        Segment(number, rows, size, dict(map(tuple, types)), frozenset(escaped))
        for number, rows, size, types, escaped in body["segments"]
    )
    plain = {name: body[name] for name in _PART_FIELDS if name != "values"}
    # Files of earlier versions have no tier.
    tier = body.get("storage_tier", "")
    return Part(values=tuple(body["values"]), segments=segments, storage_tier=tier, **plain)


_PLAIN_FIELDS = (
    "id",
    "project",
    "schema",
    "name",
    "created",
    "modified",
    "ddl_time",
    "owner",
    "kind",
    "comment",
    "lifecycle",
    "next_column_id",
    "view_text",
)
_PART_FIELDS = ("values", "created", "modified", "ddl_time", "version")


def _clustering(body: dict[str, Any] | None) -> Clustering | None:
    if body is None:
        return None
    order = tuple((name, direction) for name, direction in body["order"])
    return Clustering(body["kind"], tuple(body["columns"]), order, body["buckets"])


def _column_to_list(column: Column) -> list[Any]:
    made = column.generated
    rule = [made.column, made.part] if made else None
    return [column.name, str(column.type), column.comment, column.nullable, rule]


def _column(item: list[Any]) -> Column:
    # Files of earlier versions have no rule.
    name, text, comment, nullable, rule = [*item, None][:5]
    made = TimeTruncation(*rule) if rule else None
    return Column(name, parse_type(text), comment, nullable, made)
