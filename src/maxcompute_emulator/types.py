"""Column types: their spelling, and the forms in which their values are held.

In the process values travel as Arrow, the form that the tunnel's Arrow streams use as well:

| type | Arrow | DuckDB |
| --- | --- | --- |
| TINYINT, SMALLINT, INT, BIGINT | int8, int16, int32, int64 | the same widths |
| FLOAT, DOUBLE | float32, float64 | FLOAT, DOUBLE |
| DECIMAL(p,s); DECIMAL is (38,18) | decimal128(p,s) | DECIMAL(p,s) |
| STRING, CHAR(n), VARCHAR(n), JSON | string | VARCHAR, for JSON its own JSON |
| BINARY | binary | BLOB |
| BOOLEAN | bool | BOOLEAN |
| DATE | date32 | DATE |
| DATETIME | timestamp[ms], an instant | TIMESTAMPTZ |
| TIMESTAMP | timestamp[ns], an instant | TIMESTAMPTZ_NS |
| TIMESTAMP_NTZ | timestamp[ns], as read on the clock | TIMESTAMP_NS |
| INTERVAL_DAY_TIME | struct<sec: int64, nano: int32> | the same STRUCT |
| INTERVAL_YEAR_MONTH | int64, months | BIGINT |
| ARRAY, MAP, STRUCT | list, map, struct | LIST, MAP, STRUCT |
| VOID | null | VARCHAR, always NULL |

An instant is held as UTC without a zone in its Arrow type. A STRING is a row of bytes as the
service has it: bytes that are no UTF-8 pass through, and only functions on text refuse them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from maxcompute_emulator import errors

DECIMAL_PRECISION = 38
DECIMAL_SCALE = 18
CHAR_LIMIT = 255
VARCHAR_LIMIT = 65535

DAY_TIME_ARROW = pa.struct([("sec", pa.int64()), ("nano", pa.int32())])

_PLAIN: dict[str, tuple[pa.DataType, str]] = {
    "TINYINT": (pa.int8(), "TINYINT"),
    "SMALLINT": (pa.int16(), "SMALLINT"),
    "INT": (pa.int32(), "INTEGER"),
    "BIGINT": (pa.int64(), "BIGINT"),
    "FLOAT": (pa.float32(), "FLOAT"),
    "DOUBLE": (pa.float64(), "DOUBLE"),
    "STRING": (pa.string(), "VARCHAR"),
    "CHAR": (pa.string(), "VARCHAR"),
    "VARCHAR": (pa.string(), "VARCHAR"),
    "BINARY": (pa.binary(), "BLOB"),
    "BOOLEAN": (pa.bool_(), "BOOLEAN"),
    "DATE": (pa.date32(), "DATE"),
    "DATETIME": (pa.timestamp("ms"), "TIMESTAMP WITH TIME ZONE"),
    "TIMESTAMP": (pa.timestamp("ns"), "TIMESTAMPTZ_NS"),
    "TIMESTAMP_NTZ": (pa.timestamp("ns"), "TIMESTAMP_NS"),
    "INTERVAL_DAY_TIME": (DAY_TIME_ARROW, 'STRUCT("sec" BIGINT, "nano" INTEGER)'),
    "INTERVAL_YEAR_MONTH": (pa.int64(), "BIGINT"),
    "JSON": (pa.string(), "JSON"),
    "VOID": (pa.null(), "VARCHAR"),
}
_ALIASES = {"INTEGER": "INT", "LONG": "BIGINT", "NUMERIC": "DECIMAL"}
_LENGTH_LIMITS = {"CHAR": CHAR_LIMIT, "VARCHAR": VARCHAR_LIMIT}


@dataclass(frozen=True)
class DataType:
    """A column type.

    Attributes:
        name: Upper case, such as `BIGINT` or `ARRAY`.
        parameters: Precision and scale, or the length of CHAR and VARCHAR.
        children: Types inside: of an ARRAY the element, of a MAP key and value, of a STRUCT the
            fields.
        fields: Names of a STRUCT's fields, one for each child.
    """

    name: str
    parameters: tuple[int, ...] = ()
    children: tuple[DataType, ...] = ()
    fields: tuple[str, ...] = ()

    def __str__(self) -> str:
        """MaxCompute's spelling, in lower case."""
        name = self.name.lower()
        if self.fields:
            inner = (
                f"{field}:{child}" for field, child in zip(self.fields, self.children, strict=True)
            )
            return f"{name}<{','.join(inner)}>"
        if self.children:
            return f"{name}<{','.join(map(str, self.children))}>"
        if self.parameters:
            return f"{name}({','.join(map(str, self.parameters))})"
        return name

    @property
    def precision_and_scale(self) -> tuple[int, int]:
        """Of a DECIMAL."""
        if not self.parameters:
            return DECIMAL_PRECISION, DECIMAL_SCALE
        return self.parameters[0], self.parameters[1] if len(self.parameters) > 1 else 0


@dataclass(frozen=True)
class TimeTruncation:
    """`trunc_time(column, part)`: what gives the key of an automatically partitioned table.

    Attributes:
        column: The name of a column of the table.
        part: Such as `day`.
    """

    column: str
    part: str


@dataclass(frozen=True)
class Column:
    """A column of a table, a partition key, or a column of a result."""

    name: str
    type: DataType
    comment: str = ""
    nullable: bool = True
    generated: TimeTruncation | None = None


def arrow_type(data_type: DataType) -> pa.DataType:
    """The form in which values of this type travel inside the emulator."""
    return nested_arrow_type(data_type, _plain_arrow_type)


def nested_arrow_type(data_type: DataType, plain: Callable[[DataType], pa.DataType]) -> pa.DataType:
    """A type in Arrow, with what it holds at any depth in the form that `plain` gives."""
    inner = [nested_arrow_type(child, plain) for child in data_type.children]
    if data_type.name == "ARRAY":
        return pa.list_(inner[0])
    if data_type.name == "MAP":
        return pa.map_(inner[0], inner[1])
    if data_type.name == "STRUCT":
        return pa.struct(list(zip(data_type.fields, inner, strict=True)))
    return plain(data_type)


def _plain_arrow_type(data_type: DataType) -> pa.DataType:
    if data_type.name == "DECIMAL":
        return pa.decimal128(*data_type.precision_and_scale)
    return _PLAIN[data_type.name][0]


def arrow_schema(columns: tuple[Column, ...]) -> pa.Schema:
    """The schema of batches that hold these columns."""
    return pa.schema([(column.name, arrow_type(column.type)) for column in columns])


def duckdb_type(data_type: DataType) -> str:
    """The type of the DuckDB column that holds values of this type."""
    if data_type.name == "DECIMAL":
        precision, scale = data_type.precision_and_scale
        return f"DECIMAL({precision},{scale})"
    inner = [duckdb_type(child) for child in data_type.children]
    if data_type.name == "ARRAY":
        return f"{inner[0]}[]"
    if data_type.name == "MAP":
        return f"MAP({inner[0]}, {inner[1]})"
    if data_type.name == "STRUCT":
        pairs = (
            f"{_quoted(name)} {kind}" for name, kind in zip(data_type.fields, inner, strict=True)
        )
        return f"STRUCT({', '.join(pairs)})"
    return _PLAIN[data_type.name][1]


def parse_type(text: str) -> DataType:
    """Read a type as MaxCompute spells it, at any depth.

    Raises:
        ServiceError: The text is not a type.
    """
    return _TypeParser(text).parse()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class _TypeParser:
    """Recursive descent over the tokens of one type."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = re.findall(r"`[^`]+`|\w+|[<>(),:]|\S", text)
        self.position = 0

    def parse(self) -> DataType:
        found = self._type()
        if self.position != len(self.tokens):
            raise errors.invalid_type(self.text)
        return found

    def _peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self.position += 1
        return token

    def _expect(self, wanted: str) -> None:
        if self._next() != wanted:
            raise errors.invalid_type(self.text)

    def _type(self) -> DataType:
        name = self._next().upper()
        name = _ALIASES.get(name, name)
        composites: dict[str, Callable[[], DataType]] = {
            "ARRAY": self._array,
            "MAP": self._map,
            "STRUCT": self._struct,
        }
        if name in composites:
            self._expect("<")
            found = composites[name]()
            self._expect(">")
            return found
        if name != "DECIMAL" and name not in _PLAIN:
            raise errors.invalid_type(self.text)
        parameters = self._parameters()
        if not _fits(name, parameters):
            raise errors.invalid_type(self.text)
        if name == "DECIMAL" and len(parameters) == 1:
            # Spelled out, since the client takes 18 for a scale that is not given.
            parameters = (*parameters, 0)
        return DataType(name, parameters)

    def _array(self) -> DataType:
        return DataType("ARRAY", children=(self._type(),))

    def _map(self) -> DataType:
        key = self._type()
        if key.name == "VOID":
            raise errors.invalid_type(self.text)
        self._expect(",")
        return DataType("MAP", children=(key, self._type()))

    def _struct(self) -> DataType:
        fields: list[str] = []
        children: list[DataType] = []
        while not fields or self._peek() == ",":
            if fields:
                self._expect(",")
            fields.append(self._next().strip("`"))
            self._expect(":")
            children.append(self._type())
        return DataType("STRUCT", children=tuple(children), fields=tuple(fields))

    def _parameters(self) -> tuple[int, ...]:
        if self._peek() != "(":
            return ()
        self._expect("(")
        numbers: list[int] = []
        while not numbers or self._peek() == ",":
            if numbers:
                self._expect(",")
            token = self._next()
            if not token.isdecimal():
                raise errors.invalid_type(self.text)
            numbers.append(int(token))
        self._expect(")")
        return tuple(numbers)


def _fits(name: str, parameters: tuple[int, ...]) -> bool:
    if name == "DECIMAL":
        precision, scale = DataType(name, parameters).precision_and_scale
        return len(parameters) <= 2 and 1 <= precision <= DECIMAL_PRECISION and scale <= precision
    if name in _LENGTH_LIMITS:
        return len(parameters) == 1 and 1 <= parameters[0] <= _LENGTH_LIMITS[name]
    return not parameters
