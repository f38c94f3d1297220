"""Names and literals that are safe inside SQL text.

Values are bound as parameters wherever an engine can; these two are for what it cannot bind.
"""


def identifier(name: str) -> str:
    """A column or table name, quoted so that nothing in it ends the quotation."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """A text literal, quoted so that nothing in it ends the quotation."""
    return "'" + value.replace("'", "''") + "'"
