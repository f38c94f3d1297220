"""Strict settings: what flags and TOML keys become, checked once and frozen.

Settings classes stand beside what they build (`sources/files.py`, `model/settings.py`, ...); this
file holds what they share. A field is a flag, a TOML key and a keyword argument at once, and its
docstring is the flag's help.
"""

import re
import tomllib
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from flowpatch.errors import SettingsError


class Settings(BaseModel):
    """Base of all settings: frozen, and an unknown key is an error.

    Raises:
        SettingsError: a key is unknown, missing, or its value is not allowed.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError(explain(error, known=type(self).model_fields)) from None

    def replace(self, **changes: Any) -> Self:
        """The same settings with some keys changed, checked again."""
        return type(self)(**{**self.model_dump(), **changes})


def explain(error: ValidationError, known: Iterable[str] = ()) -> str:
    """One line for each thing wrong: the key, the bad value, and what is allowed."""
    return "\n".join(_explain_one(detail, known) for detail in error.errors())


def _explain_one(detail: ErrorDetails, known: Iterable[str]) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    value = detail["input"]
    context = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            return f"Unknown setting '{key}'. Allowed: {', '.join(sorted(known))}."
        case "missing":
            return f"'{key}' is missing: give --{key.replace('_', '-')}, or the key in a TOML file."
        case "literal_error":
            allowed = context["expected"].replace("'", "").replace(" or ", ", ")
            return f"Unknown {key} '{value}'. Allowed: {allowed}."
        case "value_error":
            # A validator of ours: the message is already whole.
            return str(context["error"])
    allowed = detail["msg"].removeprefix("Input ").replace("should be", "must be", 1)
    return f"Bad value '{value}' for {key}: it {allowed}." if key else f"{detail['msg']}."


def _split_commas(value: Any) -> Any:
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        return value
    split = [
        piece.strip()
        for part in parts
        for piece in (part.split(",") if isinstance(part, str) else [str(part)])
    ]
    return tuple(piece for piece in split if piece)


Names = Annotated[tuple[str, ...], BeforeValidator(_split_commas)]
"""Several names: `a,b` on the command line, `["a", "b"]` in TOML."""


def _parse_date(value: Any) -> Any:
    if not isinstance(value, int | str):
        return value
    try:
        # fromisoformat also reads weeks (2025W10), which nobody means here.
        if not re.fullmatch(r"\d{8}|\d{4}-\d\d-\d\d", str(value)):
            raise ValueError
        return date.fromisoformat(str(value))
    except ValueError:
        raise ValueError(f"'{value}' is no date. Write it as 20250919 or 2025-09-19.") from None


Date = Annotated[date, BeforeValidator(_parse_date)]
"""A day: `20250919` or `2025-09-19`."""

_UNITS = {
    "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip


def parse_bytes(size: str | int) -> int:
    """A size in bytes: `2GB` and `1.5 GB` count in thousands, `2GiB` in 1024s; a number is bytes.

    Raises:
        SettingsError: it is no size, or none at all.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmgt]?i?b)?", str(size).strip().lower(), re.ASCII)
    unit = _UNITS.get(found[2] or "b") if found else None
    parsed = int(float(found[1]) * unit) if found and unit else 0
    if not parsed:
        raise SettingsError(f"'{size}' is no size. Write it as 2GB, 500MB, 1.5GiB, or in bytes.")
    return parsed


def format_bytes(size: int) -> str:
    """A size to read, in three figures: 8.59 GB, 24.1 MB."""
    for unit in ("GB", "MB", "kB"):
        if size >= _UNITS[unit.lower()]:
            return f"{size / _UNITS[unit.lower()]:.3g} {unit}"
    return f"{size} bytes"


Bytes = Annotated[int, BeforeValidator(parse_bytes)]
"""A size: `2GB`, `500MB`, `1.5GiB`, or a number of bytes."""


def read_toml(path: Path, sections: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The sections of a settings file, one for each command.

    Raises:
        SettingsError: no such file, not TOML, or a section that is no command.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"No settings file '{path}'. Check --config.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"Cannot read the settings file '{path}': {error}.") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"'{path}' is not valid TOML: {error}.") from None
    allowed = sorted(sections)
    for name, section in content.items():
        if name not in allowed or not isinstance(section, dict):
            raise SettingsError(
                f"Unknown section '{name}' in '{path}'. "
                f"Allowed: {', '.join(f'[{section}]' for section in allowed)}."
            )
    return content
