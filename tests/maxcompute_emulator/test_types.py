"""Types are read and spelled as MaxCompute does, at any depth."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maxcompute_emulator.errors import ServiceError
from maxcompute_emulator.types import DataType, arrow_type, duckdb_type, parse_type

_PLAIN = [
    "tinyint",
    "smallint",
    "int",
    "bigint",
    "float",
    "double",
    "decimal",
    "decimal(10,2)",
    "string",
    "char(3)",
    "varchar(65535)",
    "binary",
    "boolean",
    "date",
    "datetime",
    "timestamp",
    "timestamp_ntz",
    "interval_day_time",
    "interval_year_month",
    "json",
    "void",
]


def _nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return (
        inner.map(lambda item: f"array<{item}>")
        | st.tuples(inner, inner).map(lambda pair: f"map<{pair[0]},{pair[1]}>")
        | st.lists(inner, min_size=1, max_size=3).map(
            lambda items: f"struct<{','.join(f'f{n}:{item}' for n, item in enumerate(items))}>"
        )
    )


def _has_keys(text: str) -> bool:
    """A map's key is never void."""
    return "map<void" not in text


@given(st.recursive(st.sampled_from(_PLAIN), _nested, max_leaves=8).filter(_has_keys))
def test_a_type_reads_back_as_it_is_spelled(text: str) -> None:
    parsed = parse_type(text.upper().replace("F0", "f0").replace("F1", "f1").replace("F2", "f2"))
    assert str(parsed) == text
    assert isinstance(arrow_type(parsed), pa.DataType)
    assert duckdb_type(parsed)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "number",
        "decimal(39,0)",
        "decimal(5,6)",
        "varchar",
        "char(256)",
        "array",
        "array<int",
        "map<int>",
        "struct<>",
        "struct<a>",
        "bigint(3)",
        "int int",
        "decimal(1,2,3)",
    ],
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ServiceError, match="ODPS-0130161"):
        parse_type(text)


def test_other_spellings() -> None:
    assert parse_type(" Decimal ( 10 , 2 ) ") == DataType("DECIMAL", (10, 2))
    assert parse_type("struct< `a b` : int , c : array< string > >").fields == ("a b", "c")
    assert parse_type("decimal").precision_and_scale == (38, 18)
    assert parse_type("decimal(5)").precision_and_scale == (5, 0)


def test_arrow_forms() -> None:
    assert arrow_type(parse_type("datetime")) == pa.timestamp("ms")
    assert arrow_type(parse_type("timestamp")) == pa.timestamp("ns")
    assert arrow_type(parse_type("decimal")) == pa.decimal128(38, 18)
    assert arrow_type(parse_type("map<string,array<date>>")) == pa.map_(
        pa.string(), pa.list_(pa.date32())
    )
