"""How commands print: whole tables in a pipe, and names as they are, whatever is in them."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

PIPE_COLUMNS = 1000
"""Width where no terminal sets one: a log must not lose the end of a line."""
NAMED = 5
"""So many days or nodes are named; of more, the first and the last."""


def show(*parts: "RenderableType") -> None:
    """Prints lines and tables to standard output."""
    # Imported here: rich costs start-up time that --json need not pay.
    from rich.console import Console

    # Names of files and columns are data: `[red]` and `:car:` mean nothing in them.
    console = Console(
        markup=False,
        emoji=False,
        highlight=False,
        width=None if sys.stdout.isatty() else PIPE_COLUMNS,
    )
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    print(captured.get(), end="")


def visible(text: str) -> str:
    """The text with every character that would steer a terminal written out."""
    return "".join(
        character
        if character.isprintable() or character == "\n"
        else character.encode("unicode_escape").decode()
        for character in text
    )


def size_of(count: int) -> str:
    """Bytes, to read."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"


def some(names: Sequence[str]) -> str:
    """Names in a row; of many, the first and the last."""
    if len(names) <= NAMED:
        return ", ".join(names)
    return f"{names[0]}, {names[1]} ... {names[-1]}"


def print_json(content: Any) -> None:
    """Prints plain values as JSON on standard output."""
    print(json.dumps(content, indent=2, ensure_ascii=False))
