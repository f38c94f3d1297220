"""ALTER TABLE on columns. The rows that are there are not touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from maxcompute_emulator import errors
from maxcompute_emulator.sql.create import read_column, read_column_list
from maxcompute_emulator.sql.reader import Reader
from maxcompute_emulator.sql.scope import Session
from maxcompute_emulator.types import Column
from maxcompute_emulator.warehouse import StoredColumn, Table, TableRecord

Change = Callable[[TableRecord], TableRecord]
_WIDER = {
    "TINYINT": ("SMALLINT", "INT", "BIGINT", "STRING", "DOUBLE", "DECIMAL"),
    "SMALLINT": ("INT", "BIGINT", "STRING", "DOUBLE", "DECIMAL"),
    "INT": ("BIGINT", "STRING", "DOUBLE", "DECIMAL"),
    "BIGINT": ("STRING", "DECIMAL"),
    "FLOAT": ("DOUBLE", "STRING"),
    "DOUBLE": ("STRING",),
    "CHAR": ("VARCHAR", "STRING"),
    "VARCHAR": ("VARCHAR", "STRING"),
    "DECIMAL": ("DECIMAL", "STRING"),
}


def changed(session: Session, table: Table, change: Change) -> None:
    """Change a table's description, which also sets the time of that."""
    session.warehouse.change(
        table, lambda record: replace(change(record), ddl_time=session.warehouse.clock())
    )


def add_columns(session: Session, table: Table, reader: Reader) -> None:
    """`ADD COLUMNS`: columns that hold NULL in the rows that are there."""
    quiet = reader.accept("IF", "NOT", "EXISTS")
    if reader.peek("("):
        columns = read_column_list(reader)
    else:
        columns = [read_column(reader)]
        while reader.accept(","):
            columns.append(read_column(reader))
    known = {column.name.lower() for column in (*table.columns, *table.partition_columns)}
    for column in columns:
        if column.name in known and not quiet:
            raise errors.semantic_error(f"column {column.name} already exists in {table.name}")
        if not column.nullable:
            raise errors.semantic_error(f"added column {column.name} must allow NULL")
    fresh = [column for column in columns if column.name not in known]

    def change(record: TableRecord) -> TableRecord:
        first = record.next_column_id
        added = tuple(StoredColumn(first + number, column) for number, column in enumerate(fresh))
        return replace(record, columns=(*record.columns, *added), next_column_id=first + len(added))

    changed(session, table, change)


def _stored(table: Table, name: str) -> StoredColumn:
    for stored in table.record.columns:
        if stored.column.name.lower() == name:
            return stored
    raise errors.semantic_error(f"column {name} cannot be resolved in {table.full_name}")


def drop_columns(session: Session, table: Table, reader: Reader) -> None:
    """`DROP COLUMNS`."""
    reader.accept("(")
    names = [reader.name()]
    while reader.accept(","):
        names.append(reader.name())
    reader.accept(")")
    gone = {_stored(table, name).id for name in names}
    if len(gone) == len(table.columns):
        raise errors.semantic_error(f"table {table.name} must keep a column")

    def change(record: TableRecord) -> TableRecord:
        kept = tuple(stored for stored in record.columns if stored.id not in gone)
        return replace(record, columns=kept)

    changed(session, table, change)


def rename_column(session: Session, table: Table, reader: Reader) -> None:
    """`RENAME COLUMN`."""
    old = _stored(table, reader.name())
    reader.expect("TO")
    _put_column(session, table, old, replace(old.column, name=reader.name()))


def change_column(session: Session, table: Table, reader: Reader) -> None:
    """`CHANGE COLUMN`: a new name, type, comment or place."""
    old = _stored(table, reader.name())
    if reader.accept("RENAME", "TO"):
        new = replace(old.column, name=reader.name())
    elif reader.accept("COMMENT"):
        new = replace(old.column, comment=reader.string())
    elif reader.accept("NULL"):
        new = replace(old.column, nullable=True)
    else:
        read = read_column(reader)
        new = replace(read, comment=read.comment or old.column.comment)
    position = _position(table, old, reader)
    _put_column(session, table, old, new, position)


def _position(table: Table, old: StoredColumn, reader: Reader) -> int | None:
    """Where FIRST or AFTER puts the column, counted without the column itself."""
    if reader.accept("FIRST"):
        return 0
    if reader.accept("AFTER"):
        before = _stored(table, reader.name())
        others = [stored for stored in table.record.columns if stored.id != old.id]
        return others.index(before) + 1
    return None


def _put_column(
    session: Session,
    table: Table,
    old: StoredColumn,
    new: Column,
    position: int | None = None,
) -> None:
    names = {
        column.name.lower()
        for column in (*table.columns, *table.partition_columns)
        if column is not old.column
    }
    if new.name in names:
        raise errors.semantic_error(f"column {new.name} already exists in {table.name}")
    if new.type != old.column.type and new.type.name not in _WIDER.get(old.column.type.name, ()):
        raise errors.semantic_error(
            f"column {new.name} cannot go from {old.column.type} to {new.type}"
        )
    if old.column.nullable and not new.nullable:
        raise errors.semantic_error(f"column {new.name} allows NULL and cannot forbid it")

    def change(record: TableRecord) -> TableRecord:
        made = StoredColumn(old.id, new)
        if position is None:
            columns = [made if item.id == old.id else item for item in record.columns]
        else:
            columns = [item for item in record.columns if item.id != old.id]
            columns.insert(position, made)
        return replace(record, columns=tuple(columns))

    changed(session, table, change)
