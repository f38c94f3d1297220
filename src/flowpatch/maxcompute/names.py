"""Names and literals of MaxCompute: checked first, then quoted, so that none can change a query."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from flowpatch.errors import SettingsError

SCHEME = "odps://"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,127}")
_COLUMN = re.compile(r"\w{1,128}")
_PARTITION_VALUE = re.compile(r"[\w .:+-]{1,255}")


@dataclass(frozen=True)
class TableName:
    """A table of a project, and of a schema where the project has them.

    Raises:
        SettingsError: a part is no name.
    """

    project: str
    table: str
    schema: str | None = None

    def __post_init__(self) -> None:
        check_name(self.project, "project")
        check_name(self.table, "table")
        if self.schema is not None:
            check_name(self.schema, "schema")

    @classmethod
    def of_address(cls, address: str) -> "TableName":
        """The table behind `odps://PROJECT/TABLE` or `odps://PROJECT/SCHEMA/TABLE`.

        Raises:
            SettingsError: it is no such address.
        """
        parts = address.removeprefix(SCHEME).split("/")
        if not is_address(address) or len(parts) not in (2, 3):
            raise SettingsError(
                f"'{address}' is no table's address. Write odps://PROJECT/TABLE, or "
                "odps://PROJECT/SCHEMA/TABLE."
            )
        return cls(parts[0], parts[-1], parts[1] if len(parts) == 3 else None)

    @classmethod
    def of_text(cls, text: str, project: str) -> "TableName":
        """The table named `TABLE`, `SCHEMA.TABLE` or `PROJECT.SCHEMA.TABLE`, or by its address."""
        if is_address(text):
            return cls.of_address(text)
        parts = text.split(".")
        if len(parts) > 3:
            raise SettingsError(f"'{text}' is no table's name. Write TABLE or SCHEMA.TABLE.")
        if len(parts) == 3:
            return cls(parts[0], parts[2], parts[1])
        return cls(project, parts[-1], parts[0] if len(parts) == 2 else None)

    @property
    def sql(self) -> str:
        """The name as SQL takes it."""
        return ".".join(f"`{part}`" for part in (self.project, self.schema, self.table) if part)

    @property
    def address(self) -> str:
        """`odps://PROJECT/TABLE`."""
        return SCHEME + "/".join(part for part in (self.project, self.schema, self.table) if part)

    def sibling(self, table: str) -> "TableName":
        """Another table beside this one."""
        return TableName(self.project, table, self.schema)


def is_address(text: str) -> bool:
    """Whether this names a table in MaxCompute, not a file."""
    return text.startswith(SCHEME)


def check_name(name: str, what: str) -> str:
    """The name itself.

    Raises:
        SettingsError: it is no name of a project, schema or table.
    """
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"'{name}' is no {what}'s name. Allowed: a letter, then letters, digits and "
            "underscores, 128 at most."
        )
    return name


def column(name: str) -> str:
    """A column's name as SQL takes it.

    Raises:
        SettingsError: it is no name of a column.
    """
    if not _COLUMN.fullmatch(name):
        raise SettingsError(
            f"'{name}' is no column's name in MaxCompute. Allowed: letters, digits and underscores."
        )
    return f"`{name}`"


def text(value: str) -> str:
    """A text literal as SQL takes it; nothing in it ends the literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def check_code(code: str, flag: str) -> str:
    """A city's code.

    Raises:
        SettingsError: it holds anything but letters, digits, dots, hyphens and underscores.
    """
    if not re.fullmatch(r"[\w.-]{1,64}", code):
        raise SettingsError(
            f"Bad {flag} '{code}': allowed are letters, digits, dots, hyphens and underscores."
        )
    return code


def partition_spec(values: Mapping[str, str]) -> str:
    """`ds='20250919',hour='08'`: a partition as the tunnel takes it.

    Raises:
        SettingsError: a value holds something that no partition's name should.
    """
    for name, value in values.items():
        column(name)
        if not _PARTITION_VALUE.fullmatch(value):
            raise SettingsError(f"The partition {name}='{value}' has a name that cannot be read.")
    return ",".join(f"{name}='{value}'" for name, value in values.items())
