"""The type that a CAST names, from sqlglot's names to MaxCompute's."""

from __future__ import annotations

from sqlglot import exp

from maxcompute_emulator.types import DataType, parse_type

_TYPE_NAMES = {"TEXT": "STRING", "TIMESTAMPNTZ": "TIMESTAMP_NTZ", "TIMESTAMPLTZ": "TIMESTAMP"}
_LEGACY_NAMES = {"VARBINARY": "BINARY", "TIMESTAMPTZ": "TIMESTAMP"}


def data_type_of(node: exp.DataType) -> DataType:
    """The MaxCompute type that a CAST names."""
    return parse_type(_type_text(node))


def _type_text(node: exp.DataType) -> str:
    name = node.this.name if not isinstance(node.this, str) else node.this
    if name == "USERDEFINED":
        return str(node.args.get("kind") or node.sql())
    name = _TYPE_NAMES.get(name) or _LEGACY_NAMES.get(name) or name
    inner = node.expressions
    if name in ("ARRAY", "MAP"):
        return f"{name}<{','.join(_type_text(child) for child in inner)}>"
    if name == "STRUCT":
        fields = (f"{field.name}:{_type_text(field.args['kind'])}" for field in inner)
        return f"STRUCT<{','.join(fields)}>"
    if inner:
        return f"{name}({','.join(item.name for item in inner)})"
    return name
