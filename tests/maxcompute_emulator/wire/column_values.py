"""Hypothesis strategies for column types and for values of them, as Arrow holds them."""

from decimal import Decimal

import pyarrow as pa
from hypothesis import strategies as st

from maxcompute_emulator.types import Column, DataType, arrow_schema, parse_type

_INT_BITS = {"TINYINT": 8, "SMALLINT": 16, "INT": 32, "BIGINT": 64}
_INT64 = st.integers(-(2**63), 2**63 - 1)
_NO_SURROGATES = st.characters(exclude_categories=["Cs"])
_SCALARS = [
    *(name.lower() for name in _INT_BITS),
    *("float", "double", "boolean", "string", "varchar(50)", "char(20)", "binary", "json"),
    *("date", "datetime", "timestamp", "timestamp_ntz"),
    *("interval_day_time", "interval_year_month"),
    *("decimal", "decimal(38,18)", "decimal(10,2)", "decimal(38,0)"),
]


def _scalar_types() -> st.SearchStrategy[DataType]:
    return st.sampled_from(_SCALARS).map(parse_type)


def _nested(inner: st.SearchStrategy[DataType]) -> st.SearchStrategy[DataType]:
    keys = st.sampled_from(["string", "bigint"]).map(parse_type)
    fields = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        inner.map(lambda t: DataType("ARRAY", children=(t,))),
        st.tuples(keys, inner).map(lambda pair: DataType("MAP", children=pair)),
        fields.map(
            lambda ts: DataType(
                "STRUCT", children=tuple(ts), fields=tuple(f"f{i}" for i in range(len(ts)))
            )
        ),
    )


data_types = st.recursive(_scalar_types(), _nested, max_leaves=5)


def _decimals(data_type: DataType) -> st.SearchStrategy[Decimal]:
    precision, scale = data_type.precision_and_scale
    limit = 10**precision - 1
    return st.integers(-limit, limit).map(lambda n: Decimal(f"{n}E-{scale}"))


def _nanos() -> st.SearchStrategy[int]:
    return st.integers(-(2**63) + 1, 2**63 - 1)


def values_of(data_type: DataType) -> st.SearchStrategy:
    name = data_type.name
    if name in _INT_BITS:
        half = 2 ** (_INT_BITS[name] - 1)
        return st.integers(-half, half - 1)
    if name == "DECIMAL":
        return _decimals(data_type)
    if name == "INTERVAL_DAY_TIME":
        return st.builds(
            lambda sec, nano: {"sec": sec, "nano": nano},
            st.integers(-(10**9), 10**9),
            st.integers(0, 999_999_999),
        )
    if name == "ARRAY":
        return st.lists(st.none() | values_of(data_type.children[0]), max_size=4)
    if name == "MAP":
        key, value = map(values_of, data_type.children)
        return st.dictionaries(key, st.none() | value, max_size=4).map(lambda m: list(m.items()))
    if name == "STRUCT":
        return st.fixed_dictionaries(
            {
                field: st.none() | values_of(child)
                for field, child in zip(data_type.fields, data_type.children, strict=True)
            }
        )
    return _SIMPLE[name]


_SIMPLE = {
    "FLOAT": st.floats(width=32, allow_nan=False),
    "DOUBLE": st.floats(allow_nan=False),
    "BOOLEAN": st.booleans(),
    "STRING": st.text(_NO_SURROGATES, max_size=200),
    "VARCHAR": st.text(_NO_SURROGATES, max_size=50),
    "CHAR": st.text(_NO_SURROGATES, max_size=20),
    "BINARY": st.binary(max_size=50),
    "JSON": st.just('{"a": [1, null]}'),
    "DATE": st.integers(-700_000, 2_900_000),
    "DATETIME": st.integers(-62_135_596_800_000, 253_402_300_799_999),
    "TIMESTAMP": _nanos(),
    "TIMESTAMP_NTZ": _nanos(),
    "INTERVAL_YEAR_MONTH": st.integers(-119_999, 119_999),
}


@st.composite
def batches(draw: st.DrawFn, types: st.SearchStrategy[DataType] = data_types) -> tuple:
    """Columns, and a batch of rows of them."""
    kinds = draw(st.lists(types, min_size=1, max_size=5))
    columns = tuple(Column(f"c{place}", kind) for place, kind in enumerate(kinds))
    n_rows = draw(st.integers(0, 8))
    schema = arrow_schema(columns)
    arrays = [
        pa.array(
            draw(st.lists(st.none() | values_of(c.type), min_size=n_rows, max_size=n_rows)),
            field.type,
        )
        for c, field in zip(columns, schema, strict=True)
    ]
    return columns, pa.RecordBatch.from_arrays(arrays, schema=schema)
