"""How commands print: whole tables in a pipe, and names as they are, whatever is in them."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

PIPE_COLUMNS = 1000
"""Width where no terminal sets one: a log must not lose the end of a line."""


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
