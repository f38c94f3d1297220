"""A script cut into statements, with `SET name=value` taken out of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_PIECE = re.compile(
    r"""'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*"|`[^`]*`|--[^\n]*|/\*.*?\*/|;|[^'"`;\-/]+|.""",
    re.DOTALL,
)
_ASSIGNMENT = re.compile(r"\s*(@\w+)\s*:=\s*(.*)", re.DOTALL)
_SET = re.compile(r"\s*set\s+([\w.\-]+)\s*=\s*(.*)", re.IGNORECASE | re.DOTALL)


@dataclass
class Script:
    """Statements in order, and the settings that the script makes."""

    statements: list[str] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)


def read_script(text: str) -> Script:
    """Cut at semicolons outside of quotations and comments; comments go, hints too."""
    script = Script()
    for statement in _statements(text):
        setting = _SET.fullmatch(statement)
        if setting:
            script.settings[setting.group(1)] = setting.group(2).strip()
        else:
            script.statements.append(statement.strip())
    return script


def read_assignment(statement: str) -> tuple[str, str] | None:
    """Name and query of `@name := query`; None for any other statement."""
    match = _ASSIGNMENT.fullmatch(statement)
    return (match.group(1).lower(), match.group(2)) if match else None


def _statements(text: str) -> list[str]:
    found, current = [], ""
    for match in _PIECE.finditer(text):
        piece = match.group()
        if piece == ";":
            found.append(current)
            current = ""
        elif piece.startswith(("--", "/*")):
            current += " " + "\n" * piece.count("\n")
        else:
            current += piece
    found.append(current)
    return [statement for statement in found if statement.strip()]
