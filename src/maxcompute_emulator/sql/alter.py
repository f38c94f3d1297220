"""ALTER TABLE."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from maxcompute_emulator import errors
from maxcompute_emulator.sql.create import read_column, read_column_list, read_properties
from maxcompute_emulator.sql.names import find_table
from maxcompute_emulator.sql.partitions_clause import (
    PartitionTest,
    check_value,
    existing_values,
    full_values,
    matching,
    read_partition,
    read_partitions,
)
from maxcompute_emulator.sql.reader import Reader
from maxcompute_emulator.sql.scope import Session
from maxcompute_emulator.types import Column
from maxcompute_emulator.warehouse import Part, StoredColumn, Table, TableRecord
from maxcompute_emulator.warehouse.partition_spec import format_spec
from maxcompute_emulator.warehouse.records import STORAGE_TIER, PartValues

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


def alter(session: Session, reader: Reader) -> None:
    """Run a statement that begins with ALTER, which has been read."""
    if not reader.accept("VIEW"):
        reader.expect("TABLE")
    table = find_table(session, reader.dotted())
    if reader.accept("PARTITION"):
        _alter_partition(session, table, read_partition(reader), reader)
        return
    actions: list[tuple[tuple[str, ...], Callable[[Session, Table, Reader], None]]] = [
        (("ADD", "COLUMNS"), _add_columns),
        (("ADD", "COLUMN"), _add_columns),
        (("ADD",), _add_partitions),
        (("DROP", "COLUMNS"), _drop_columns),
        (("DROP", "COLUMN"), _drop_columns),
        (("DROP",), _drop_partitions),
        (("RENAME", "TO"), _rename),
        (("SET",), _set),
        (("CHANGE", "COLUMN"), _change_column),
        (("CHANGE",), _change_column),
        (("RENAME", "COLUMN"), _rename_column),
        (("CHANGEOWNER", "TO"), _change_owner),
        (("TOUCH",), _touch),
        (("MERGE",), _merge),
        (("DISABLE", "LIFECYCLE"), _disable_lifecycle),
        (("ENABLE", "LIFECYCLE"), _enable_lifecycle),
        (("NOT", "CLUSTERED"), lambda *_: None),
    ]
    for words, action in actions:
        if reader.accept(*words):
            action(session, table, reader)
            reader.finish()
            return
    raise errors.unsupported(f"ALTER TABLE {reader.current.value.upper()}")


def _disable_lifecycle(session: Session, table: Table, _reader: Reader) -> None:
    """The days are kept below -1, for the case that they are enabled again."""
    days = max(table.lifecycle, 0)
    _changed(session, table, lambda record: replace(record, lifecycle=-1 - days))


def _enable_lifecycle(session: Session, table: Table, _reader: Reader) -> None:
    days = -1 - table.lifecycle
    if days > 0:
        _changed(session, table, lambda record: replace(record, lifecycle=days))


def _changed(session: Session, table: Table, change: Change) -> None:
    """Change the table's description, which also sets the time of that."""
    session.warehouse.change(
        table, lambda record: replace(change(record), ddl_time=session.warehouse.clock())
    )


# Partitions.


def _add_partitions(session: Session, table: Table, reader: Reader) -> None:
    quiet = reader.accept("IF", "NOT", "EXISTS")
    clauses = read_partitions(reader)
    if not clauses:
        raise reader.error("expect PARTITION")
    wanted = []
    for tests in clauses:
        for test, column in ((test, _key(table, test)) for test in tests):
            check_value(session.warehouse.storage, column, test.value)
        values = full_values(table, tests)
        if values in table.partitions and not quiet:
            raise errors.partition_exists(format_spec(table.partition_columns, values))
        wanted.append(values)
    session.warehouse.add_partitions(table, wanted)


def _key(table: Table, test: PartitionTest) -> Column:
    for column in table.partition_columns:
        if column.name.lower() == test.key:
            return column
    raise errors.semantic_error(f"column {test.key} is no partition key of {table.name}")


def _drop_partitions(session: Session, table: Table, reader: Reader) -> None:
    quiet = reader.accept("IF", "EXISTS")
    clauses = read_partitions(reader)
    if not clauses:
        raise reader.error("expect PARTITION")
    gone = {
        values
        for tests in clauses
        for values in (matching(table, tests) if quiet else existing_values(table, tests))
    }

    def change(record: TableRecord) -> TableRecord:
        kept = {values: part for values, part in record.parts.items() if values not in gone}
        return replace(record, parts=kept)

    _changed(session, table, change)


def _alter_partition(
    session: Session, table: Table, tests: list[PartitionTest], reader: Reader
) -> None:
    (old,) = existing_values(table, tests)[:1] or [full_values(table, tests)]
    if reader.accept("SET", "PARTITIONPROPERTIES"):
        tier = read_properties(reader).get(STORAGE_TIER)
        reader.finish()
        if tier:
            _set_tier(session, table, old, tier)
        return
    reader.expect("RENAME", "TO", "PARTITION")
    new = full_values(table, read_partition(reader))
    reader.finish()
    if new in table.partitions:
        raise errors.partition_exists(format_spec(table.partition_columns, new))

    def change(record: TableRecord) -> TableRecord:
        parts = dict(record.parts)
        parts[new] = replace(parts.pop(old), values=new, ddl_time=session.warehouse.clock())
        return replace(record, parts=parts)

    _changed(session, table, change)


def _set_tier(session: Session, table: Table, values: PartValues, tier: str) -> None:
    def change(record: TableRecord) -> TableRecord:
        part = replace(record.parts[values], storage_tier=tier)
        return replace(record, parts={**record.parts, values: part})

    _changed(session, table, change)


def _touch(session: Session, table: Table, reader: Reader) -> None:
    clauses = read_partitions(reader)
    touched = {values for tests in clauses for values in existing_values(table, tests)}
    now = session.warehouse.clock()

    def touch(part: Part) -> Part:
        return replace(part, modified=now) if not clauses or part.values in touched else part

    _changed(
        session,
        table,
        lambda record: replace(
            record,
            modified=now,
            parts={values: touch(part) for values, part in record.parts.items()},
        ),
    )


def _merge(_session: Session, table: Table, reader: Reader) -> None:
    """`MERGE SMALLFILES`: the warehouse does so by itself."""
    if not reader.accept("SMALLFILES"):
        raise errors.unsupported(f"ALTER TABLE {table.name} MERGE {reader.rest()[:40]}")


# Columns.


def _add_columns(session: Session, table: Table, reader: Reader) -> None:
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

    _changed(session, table, change)


def _stored(table: Table, name: str) -> StoredColumn:
    for stored in table.record.columns:
        if stored.column.name.lower() == name:
            return stored
    raise errors.semantic_error(f"column {name} cannot be resolved in {table.full_name}")


def _drop_columns(session: Session, table: Table, reader: Reader) -> None:
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

    _changed(session, table, change)


def _rename_column(session: Session, table: Table, reader: Reader) -> None:
    old = _stored(table, reader.name())
    reader.expect("TO")
    _put_column(session, table, old, replace(old.column, name=reader.name()))


def _change_column(session: Session, table: Table, reader: Reader) -> None:
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

    _changed(session, table, change)


# The table itself.


def _rename(session: Session, table: Table, reader: Reader) -> None:
    parts = reader.dotted()
    _changed(session, table, lambda record: replace(record, name=parts[-1]))


def _change_owner(session: Session, table: Table, reader: Reader) -> None:
    owner = reader.string()
    _changed(session, table, lambda record: replace(record, owner=owner))


def _set(session: Session, table: Table, reader: Reader) -> None:
    if reader.accept("LIFECYCLE"):
        days = reader.integer()
        if days < 1:
            raise errors.semantic_error(f"lifecycle must be a positive number, not {days}")
        _changed(session, table, lambda record: replace(record, lifecycle=days))
    elif reader.accept("COMMENT"):
        comment = reader.string()
        _changed(session, table, lambda record: replace(record, comment=comment))
    elif reader.accept("TBLPROPERTIES"):
        added = read_properties(reader)
        _changed(
            session,
            table,
            lambda record: replace(record, properties={**record.properties, **added}),
        )
    else:
        raise errors.unsupported(f"ALTER TABLE SET {reader.rest()[:40]}")
