"""Names and literals that are safe inside SQL text.

Values are bound as parameters wherever an engine can; these two are for what it cannot bind.
"""

from collections.abc import Collection


def identifier(name: str) -> str:
    """A column or table name, quoted so that nothing in it ends the quotation."""
    return '"' + name.replace('"', '""') + '"'


def unused_name(wanted: str, names: Collection[str]) -> str:
    """A column's name like `wanted` that none of `names` is; DuckDB knows no case."""
    taken = {name.lower() for name in names}
    while wanted.lower() in taken:
        wanted += "_"
    return wanted


def one_of(column: str, values: Collection[str]) -> str:
    """A column whose every value is one of a few texts; any other value is an error.

    As an enumeration it is grouped and copied as fast as a number.
    """
    return f"CAST({identifier(column)} AS ENUM({', '.join(map(text, values))}))"


def text(value: str) -> str:
    """A text literal, quoted so that nothing in it ends the quotation."""
    return "'" + value.replace("'", "''") + "'"
