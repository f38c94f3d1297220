"""What names mean inside one SELECT, and what is known of an expression's type."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import duckdb
from sqlglot import exp

from maxcompute_emulator import errors
from maxcompute_emulator.types import DataType
from maxcompute_emulator.warehouse import Warehouse
from maxcompute_emulator.warehouse.storage import literal, quoted

BIGINT = DataType("BIGINT")
BOOLEAN = DataType("BOOLEAN")
DATE = DataType("DATE")
DATETIME = DataType("DATETIME")
DOUBLE = DataType("DOUBLE")
INT = DataType("INT")
STRING = DataType("STRING")
TIMESTAMP = DataType("TIMESTAMP")
TIMESTAMP_NTZ = DataType("TIMESTAMP_NTZ")

TIME_ZONE_SETTING = "odps.sql.timezone"
TEXT_TYPES = {"STRING", "CHAR", "VARCHAR"}
INTEGER_TYPES = ("TINYINT", "SMALLINT", "INT", "BIGINT")
FRACTION_TYPES = {"FLOAT", "DOUBLE", "DECIMAL"}
CLOCK_TYPES = {"DATETIME", "TIMESTAMP", "TIMESTAMP_NTZ", "DATE"}


@dataclass(frozen=True)
class Typed:
    """An expression for DuckDB, and its MaxCompute type where that is known.

    `clock_sql`, where given, is a shorter way to the same instant as read on the clock.
    """

    sql: str
    type: DataType | None = None
    clock_sql: str = ""

    @property
    def kind(self) -> str:
        """The type's name, or nothing."""
        return self.type.name if self.type else ""


@dataclass(frozen=True)
class OutputColumn:
    """A column of a relation."""

    name: str
    type: DataType | None


@dataclass(frozen=True)
class Relation:
    """A query for DuckDB and what it gives."""

    sql: str
    columns: tuple[OutputColumn, ...]


@dataclass(frozen=True)
class Source:
    """A table, subquery or lateral view under its alias."""

    alias: str
    columns: tuple[OutputColumn, ...]

    def column(self, name: str) -> OutputColumn | None:
        """The column of this name in lower case."""
        return next((column for column in self.columns if column.name == name), None)


@dataclass
class Session:
    """For whom and with which settings a statement runs, and what its compilation found out.

    Attributes:
        warehouse: Where tables are.
        project: The project that plain names belong to.
        schema: The schema that plain names belong to.
        settings: Hints, by name.
        variables: Queries that the script has named, such as `@a`, in their order.
        escaped: Set once a table is read whose text holds escaped bytes.
        input_bytes: What the partitions that were read hold.
        views: Names of the views that are being opened.
        watch: Is told of the cursor that runs the statement, so that it can be interrupted.
    """

    warehouse: Warehouse
    project: str
    schema: str
    settings: Mapping[str, str]
    variables: Sequence[tuple[str, exp.Expr]] = ()
    escaped: bool = False
    input_bytes: int = 0
    views: list[str] = field(default_factory=list)
    watch: Callable[[duckdb.DuckDBPyConnection], None] = lambda _cursor: None

    def flag(self, name: str, default: bool = False) -> bool:
        """A setting that is true or false."""
        return self.settings.get(name, str(default)).strip().lower() == "true"

    def prepare(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Make a cursor ready to run the statement.

        Raises:
            ServiceError: The time zone that the settings name does not exist.
        """
        self.watch(cursor)
        zone = self.settings.get(TIME_ZONE_SETTING)
        if zone:
            try:
                cursor.execute(f"SET TimeZone = {literal(zone)}")
            except duckdb.Error:
                raise errors.semantic_error(f"time zone '{zone}' is unknown") from None

    @property
    def types2(self) -> bool:
        """Whether the type system 2.0 is on, in which small numbers are INT."""
        return self.flag("odps.sql.type.system.odps2") or self.flag("odps.sql.hive.compatible")

    @property
    def three_levels(self) -> bool:
        """Whether `a.b` means schema and table rather than project and table."""
        return self.flag("odps.namespace.schema")


@dataclass
class Scope:
    """The names that an expression may use."""

    session: Session
    sources: list[Source] = field(default_factory=list)
    aliases: dict[str, Typed] = field(default_factory=dict)
    shared: set[str] = field(default_factory=set)
    parent: Scope | None = None

    def resolve(self, names: list[str], line: int, column: int) -> Typed:
        """What a dotted name means: a column, or a field inside one.

        Raises:
            ServiceError: Nothing has this name, or several things have it.
        """
        found = self._find(names)
        scope = self.parent
        while found is None and scope is not None:
            found = scope._find(names)
            scope = scope.parent
        if found is None:
            message = f"column {'.'.join(names)} cannot be resolved"
            raise errors.semantic_error(message, line, column)
        return found

    def _find(self, names: list[str]) -> Typed | None:
        if len(names) > 1:
            for skipped in range(len(names) - 1):
                for source in self.sources:
                    if source.alias == names[skipped] and (
                        column := source.column(names[skipped + 1])
                    ):
                        return fields_of(_reference(source, column), names[skipped + 2 :])
        owners = [source for source in self.sources if source.column(names[0])]
        if len(owners) > 1 and names[0] not in self.shared:
            raise errors.semantic_error(f"column {names[0]} is ambiguous")
        if owners:
            column = owners[0].column(names[0])
            if column is None:
                return None
            plain = Typed(quoted(column.name), column.type)
            known = plain if names[0] in self.shared else _reference(owners[0], column)
            return fields_of(known, names[1:])
        alias = self.aliases.get(names[0])
        return fields_of(alias, names[1:]) if alias else None


def fields_of(value: Typed, names: list[str]) -> Typed:
    """A field inside a STRUCT, at any depth."""
    for name in names:
        inner = None
        if value.type and value.type.name == "STRUCT":
            pairs = zip(value.type.fields, value.type.children, strict=True)
            inner = next((kind for field, kind in pairs if field.lower() == name.lower()), None)
        value = Typed(f"struct_extract({value.sql}, '{name}')", inner)
    return value


def _reference(source: Source, column: OutputColumn) -> Typed:
    return Typed(f"{quoted(source.alias)}.{quoted(column.name)}", column.type)
