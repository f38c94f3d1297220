"""Tables and partitions as the client reads them: XML around JSON."""

from __future__ import annotations

import json
from typing import Any

from maxcompute_emulator.rest.xml import element, http_date, json_element
from maxcompute_emulator.types import Column
from maxcompute_emulator.warehouse import Clustering, Part, Table
from maxcompute_emulator.warehouse.records import MATERIALIZED_KIND, STORAGE_TIER, VIEW_KIND

_SHARDS = "emulator.shards"
_HUB_LIFECYCLE = "emulator.hublifecycle"


def table_xml(table: Table, extended: bool) -> str:
    """One table with its columns, or with what `extended` adds to them."""
    body = _schema(table)
    if extended:
        body |= _extended(table)
    return element(
        "Table",
        element("Name", text=table.name),
        element("TableId", text=table.id),
        json_element("Schema", body, format="Json"),
        element("Owner", text=table.owner),
        element("Type", text=table.kind),
        format="Json",
    )


def listed_table_xml(table: Table, extended: bool) -> str:
    """A table in a list."""
    more = (
        [
            element("TableId", text=table.id),
            element("Comment", text=table.comment),
            element("CreationTime", text=http_date(table.created)),
            element("LastModifiedTime", text=http_date(table.modified)),
        ]
        if extended
        else []
    )
    return element(
        "Table",
        element("Name", text=table.name),
        element("Owner", text=table.owner),
        element("Type", text=table.kind),
        *more,
    )


def partition_xml(table: Table, part: Part, extended: bool) -> str:
    """One partition: what is known of it, or only what `extended` asks for beside that."""
    size_bytes = _stored_bytes(part.rows, part.size_bytes)
    body: dict[str, Any] = (
        {
            "IsArchived": False,
            "IsExstore": False,
            "LifeCycle": table.lifecycle,
            "PhysicalSize": 3 * size_bytes,
            "FileNum": len(part.segments),
            "Reserved": json.dumps({"StorageTier": part.storage_tier} if part.storage_tier else {}),
        }
        if extended
        else {
            "createTime": int(part.created),
            "lastDDLTime": int(part.ddl_time),
            "lastModifiedTime": int(part.modified),
            "partitionSize": size_bytes,
            "partitionRecordNum": part.rows,
        }
    )
    return element("Partition", *_values(table, part), json_element("Schema", body))


def listed_partition_xml(table: Table, part: Part) -> str:
    """A partition in a list."""
    return element(
        "Partition",
        *_values(table, part),
        element("CreationTime", text=int(part.created)),
        element("LastDDLTime", text=int(part.ddl_time)),
        element("LastModifiedTime", text=int(part.modified)),
        element("PartitionSize", text=_stored_bytes(part.rows, part.size_bytes)),
        element("PartitionRecordCount", text=part.rows),
    )


def _values(table: Table, part: Part) -> list[str]:
    pairs = zip(table.partition_columns, part.values, strict=True)
    return [element("Column", Name=column.name, Value=value) for column, value in pairs]


def _stored_bytes(rows: int, size_bytes: int) -> int:
    return size_bytes if rows else 0


def _schema(table: Table) -> dict[str, Any]:
    body: dict[str, Any] = {
        "columns": [_column(column) for column in table.columns],
        "partitionKeys": [_key(table, column) for column in table.partition_columns],
        "comment": table.comment,
        "createTime": int(table.created),
        "lastDDLTime": int(table.ddl_time),
        "lastModifiedTime": int(table.modified),
        "isVirtualView": table.kind == VIEW_KIND,
        "isMaterializedView": table.kind == MATERIALIZED_KIND,
        "isMaterializedViewRewriteEnabled": False,
        "isExternalTable": False,
        "lifecycle": table.lifecycle,
        "owner": table.owner,
        "size": _stored_bytes(table.record_count, table.size_bytes),
        "recordNum": table.record_count,
        "tableLabel": "0",
        "tableName": table.name,
        "hubLifecycle": -1,
    }
    if table.is_view:
        body |= {"viewText": table.view_text, "viewExpandedText": table.view_text}
    if _SHARDS in table.properties:
        body |= {
            "shardExist": True,
            "shardInfo": {
                "ShardNum": int(table.properties[_SHARDS]),
                "HubLifecycle": int(table.properties.get(_HUB_LIFECYCLE, "-1")),
                "DistributeCols": [],
                "SortCols": [],
            },
        }
    return body


def _extended(table: Table) -> dict[str, Any]:
    reserved: dict[str, Any] = {"schema_version": str(int(table.ddl_time * 1000))}
    if table.is_transactional:
        reserved["Transactional"] = "true"
    if table.primary_key:
        reserved["PrimaryKey"] = list(table.primary_key)
    if table.clustering:
        reserved |= _clustering(table.clustering)
    if STORAGE_TIER in table.properties:
        reserved["StorageTier"] = table.properties[STORAGE_TIER]
    rows, size = table.record_count, table.size_bytes
    return {
        "IsArchived": False,
        "PhysicalSize": 3 * _stored_bytes(rows, size),
        "FileNum": sum(len(part.segments) for part in table.record.parts.values()),
        "Reserved": json.dumps(reserved),
    }


def _clustering(clustering: Clustering) -> dict[str, Any]:
    return {
        "ClusterType": clustering.kind,
        "BucketNum": clustering.buckets,
        "ClusterCols": list(clustering.columns),
        "SortCols": [{"col": name, "order": order} for name, order in clustering.order],
    }


def _key(table: Table, key: Column) -> dict[str, Any]:
    """A partition key; where a rule gives its value, as a call with its arguments before it."""
    rule = key.generated
    if rule is None:
        return _column(key)
    kinds = {column.name: str(column.type) for column in table.columns}
    steps = [
        {"leafExprDesc": {"type": kinds[rule.column], "reference": {"name": rule.column}}},
        {"leafExprDesc": {"type": "string", "constant": rule.part}},
        {"functionCall": {"name": "trunc_time", "type": "string"}},
    ]
    return _column(key) | {"generateExpression": steps}


def _column(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": str(column.type),
        "comment": column.comment,
        "label": "",
        "isNullable": column.nullable,
    }
