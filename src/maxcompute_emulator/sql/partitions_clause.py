"""`PARTITION (...)` clauses: full, partial, dynamic, and with comparisons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from maxcompute_emulator import errors
from maxcompute_emulator.sql.reader import Reader
from maxcompute_emulator.types import Column, duckdb_type
from maxcompute_emulator.warehouse import Table
from maxcompute_emulator.warehouse.partition_spec import normal_value
from maxcompute_emulator.warehouse.records import PartValues
from maxcompute_emulator.warehouse.storage import Storage, literal

_NUMBERS = {"TINYINT", "SMALLINT", "INT", "BIGINT"}
_COMPARE: dict[str, Callable[[int], bool]] = {
    "=": lambda order: order == 0,
    "==": lambda order: order == 0,
    "<>": lambda order: order != 0,
    "!=": lambda order: order != 0,
    "<": lambda order: order < 0,
    "<=": lambda order: order <= 0,
    ">": lambda order: order > 0,
    ">=": lambda order: order >= 0,
}


@dataclass(frozen=True)
class PartitionTest:
    """One item of a clause: a key, and what it is compared with (nothing for a dynamic one)."""

    key: str
    sign: str = ""
    value: str = ""


def read_partition(reader: Reader) -> list[PartitionTest]:
    """What stands after PARTITION, parentheses included."""
    reader.expect("(")
    tests = [_read_test(reader)]
    while reader.accept(",") or reader.accept("AND"):
        tests.append(_read_test(reader))
    reader.expect(")")
    return tests


def read_partitions(reader: Reader) -> list[list[PartitionTest]]:
    """Any number of PARTITION clauses, with or without commas between them."""
    found = []
    while reader.accept("PARTITION"):
        found.append(read_partition(reader))
        reader.accept(",")
    return found


def _read_test(reader: Reader) -> PartitionTest:
    key = reader.name()
    sign = reader.current.value
    if reader.current.kind == "sign" and sign in _COMPARE:
        reader.take()
        return PartitionTest(key, sign, reader.constant())
    return PartitionTest(key)


def full_values(table: Table, tests: list[PartitionTest]) -> PartValues:
    """The values of a clause that names every key with `=`.

    Raises:
        ServiceError: A key is missing, unknown or without a value.
    """
    given = {test.key: test.value for test in tests if test.sign in ("=", "==")}
    names = [column.name.lower() for column in table.partition_columns]
    if sorted(given) != sorted(names) or len(given) != len(tests) or not all(given.values()):
        spec = ",".join(f"{test.key}{test.sign}'{test.value}'" for test in tests)
        raise errors.semantic_error(f"invalid partition spec - {spec} does not fit {table.name}")
    return tuple(
        normal_value(column.type, given[name])
        for column, name in zip(table.partition_columns, names, strict=True)
    )


def matching(table: Table, tests: list[PartitionTest]) -> list[PartValues]:
    """Values of the partitions for which every item holds.

    Raises:
        ServiceError: An item names no partition key, or compares with nothing.
    """
    places = {column.name.lower(): n for n, column in enumerate(table.partition_columns)}
    for test in tests:
        if test.key not in places or not test.sign:
            raise errors.semantic_error(f"invalid partition condition on '{test.key}'")
    return [
        values
        for values in table.partitions
        if all(
            _holds(table.partition_columns[places[test.key]], values[places[test.key]], test)
            for test in tests
        )
    ]


def existing_values(table: Table, tests: list[PartitionTest]) -> list[PartValues]:
    """Partitions that a clause names.

    Raises:
        ServiceError: It names one that is missing.
    """
    found = matching(table, tests)
    exact = all(test.sign in ("=", "==") for test in tests)
    if not found and exact:
        spec = ",".join(f"{test.key}='{test.value}'" for test in tests)
        raise errors.semantic_error(f"partition not found - {spec} of {table.full_name}")
    return found


def _holds(column: Column, value: str, test: PartitionTest) -> bool:
    if column.type.name in _NUMBERS:
        left, right = int(value), int(normal_value(column.type, test.value))
        return _COMPARE[test.sign]((left > right) - (left < right))
    return _COMPARE[test.sign]((value > test.value) - (value < test.value))


def check_value(storage: Storage, column: Column, value: str) -> None:
    """A partition value must be one of the key's type.

    Raises:
        ServiceError: It is not.
    """
    if column.type.name in ("STRING", "VARCHAR", "CHAR"):
        return
    cursor = storage.cursor()
    try:
        test = f"SELECT TRY_CAST({literal(value)} AS {duckdb_type(column.type)}) IS NOT NULL"
        row = cursor.execute(test).fetchone()
    finally:
        cursor.close()
    if row is None or not row[0]:
        raise errors.semantic_error(f"'{value}' is no {column.type} for partition '{column.name}'")
