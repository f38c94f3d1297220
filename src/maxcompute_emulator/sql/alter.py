"""ALTER TABLE."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from maxcompute_emulator import errors
from maxcompute_emulator.sql.alter_columns import (
    add_columns,
    change_column,
    changed,
    drop_columns,
    rename_column,
)
from maxcompute_emulator.sql.clustering import read_clustering
from maxcompute_emulator.sql.create import read_properties
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
from maxcompute_emulator.warehouse import Part, Table, TableRecord
from maxcompute_emulator.warehouse.partition_spec import format_spec
from maxcompute_emulator.warehouse.records import STORAGE_TIER, PartValues


def alter(session: Session, reader: Reader) -> None:
    """Run a statement that begins with ALTER, which has been read."""
    if not reader.accept("VIEW"):
        reader.expect("TABLE")
    table = find_table(session, reader.dotted())
    if reader.accept("PARTITION"):
        _alter_partition(session, table, read_partition(reader), reader)
        return
    actions: list[tuple[tuple[str, ...], Callable[[Session, Table, Reader], None]]] = [
        (("ADD", "COLUMNS"), add_columns),
        (("ADD", "COLUMN"), add_columns),
        (("ADD",), _add_partitions),
        (("DROP", "COLUMNS"), drop_columns),
        (("DROP", "COLUMN"), drop_columns),
        (("DROP",), _drop_partitions),
        (("RENAME", "TO"), _rename),
        (("SET",), _set),
        (("CHANGE", "COLUMN"), change_column),
        (("CHANGE",), change_column),
        (("RENAME", "COLUMN"), rename_column),
        (("CHANGEOWNER", "TO"), _change_owner),
        (("TOUCH",), _touch),
        (("MERGE",), _merge),
        (("DISABLE", "LIFECYCLE"), _disable_lifecycle),
        (("ENABLE", "LIFECYCLE"), _enable_lifecycle),
        (("NOT", "CLUSTERED"), _no_clustering),
    ]
    if clustering := read_clustering(reader):
        reader.finish()
        changed(session, table, lambda record: replace(record, clustering=clustering))
        return
    for words, action in actions:
        if reader.accept(*words):
            action(session, table, reader)
            reader.finish()
            return
    raise errors.unsupported(f"ALTER TABLE {reader.current.value.upper()}")


def _no_clustering(session: Session, table: Table, _reader: Reader) -> None:
    changed(session, table, lambda record: replace(record, clustering=None))


def _disable_lifecycle(session: Session, table: Table, _reader: Reader) -> None:
    """The days are kept below -1, for the case that they are enabled again."""
    days = max(table.lifecycle, 0)
    changed(session, table, lambda record: replace(record, lifecycle=-1 - days))


def _enable_lifecycle(session: Session, table: Table, _reader: Reader) -> None:
    days = -1 - table.lifecycle
    if days > 0:
        changed(session, table, lambda record: replace(record, lifecycle=days))


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

    changed(session, table, change)


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

    changed(session, table, change)


def _set_tier(session: Session, table: Table, values: PartValues, tier: str) -> None:
    def change(record: TableRecord) -> TableRecord:
        part = replace(record.parts[values], storage_tier=tier)
        return replace(record, parts={**record.parts, values: part})

    changed(session, table, change)


def _touch(session: Session, table: Table, reader: Reader) -> None:
    clauses = read_partitions(reader)
    touched = {values for tests in clauses for values in existing_values(table, tests)}
    # Clients see whole seconds, and the time must have moved on for them.
    now = max(session.warehouse.clock(), table.modified + 1)

    def touch(part: Part) -> Part:
        return replace(part, modified=now) if not clauses or part.values in touched else part

    changed(
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


# The table itself.


def _rename(session: Session, table: Table, reader: Reader) -> None:
    parts = reader.dotted()
    changed(session, table, lambda record: replace(record, name=parts[-1]))


def _change_owner(session: Session, table: Table, reader: Reader) -> None:
    owner = reader.string()
    changed(session, table, lambda record: replace(record, owner=owner))


def _set(session: Session, table: Table, reader: Reader) -> None:
    if reader.accept("LIFECYCLE"):
        days = reader.integer()
        if days < 1:
            raise errors.semantic_error(f"lifecycle must be a positive number, not {days}")
        changed(session, table, lambda record: replace(record, lifecycle=days))
    elif reader.accept("COMMENT"):
        comment = reader.string()
        changed(session, table, lambda record: replace(record, comment=comment))
    elif reader.accept("TBLPROPERTIES"):
        added = read_properties(reader)
        changed(
            session,
            table,
            lambda record: replace(record, properties={**record.properties, **added}),
        )
    else:
        raise errors.unsupported(f"ALTER TABLE SET {reader.rest()[:40]}")
