"""The root command: which commands there are, settings files, and what an error looks like.

A command's module is imported when that command runs, so `flowpatch --help` loads none of them.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Dict

from flowpatch.errors import FlowpatchError, SettingsError

COMMANDS = {
    "preprocess": "Turn raw records into a sample store.",
    "inspect": "Show what a sample store holds: period, nodes, coverage, quality, versions.",
    "train": "Train PatchSTG from a sample store, or go on with a stopped run.",
    "evaluate": "Score a run beside the naive forecasts.",
    "simulate": "Write the raw records of a simulated city.",
}

_HELP = """Raw traffic records to a sample store once, PatchSTG training from it at will.

Every flag is also a key of a TOML file with a section for each command: `--config city.toml`.
Flags win over the file. `--debug` shows the traceback of an error.
"""


def build_app() -> App:
    """The root command, with its commands still to be imported."""
    app = App(
        name="flowpatch",
        help=_HELP,
        help_format="markdown",
        version=_version,
        default_parameter=Parameter(negative=()),
    )
    for name, summary in COMMANDS.items():
        app.command(f"flowpatch.cli.{name}:{name}", name=name, help=summary)
    return app


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs one command and exits: 0 done, 1 failed, 2 misused, 130 interrupted."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    debug = _take_flag(tokens, "--debug")
    try:
        app = build_app()
        if config := _take_option(tokens, "--config"):
            app.config = (_read_config(Path(config)),)
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except FlowpatchError as error:
        _fail(str(error), error.exit_code, debug)
    except CycloptsError as error:
        _fail(_plain(error), 2, debug)
    except BrokenPipeError:
        # The reader of a pipe went away, as `head` does; nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        _fail("Interrupted.", 130, debug)
    except MemoryError:
        _fail("Out of memory. Use a smaller --batch-size, or a shorter period.", 1, debug)
    except Exception as error:
        _fail(
            f"{type(error).__name__}: {error}\nThis is a fault of flowpatch. "
            "Run again with --debug and report what it shows.",
            1,
            debug,
        )
    sys.exit(0)


def _fail(message: str, exit_code: int, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    sys.exit(exit_code)


def _plain(error: CycloptsError) -> str:
    """The message alone: no frames, no types, no links."""
    from pydantic import ValidationError

    from flowpatch.settings import explain

    cause = error.__cause__
    return explain(cause) if isinstance(cause, ValidationError) else str(error).strip()


def _take_flag(tokens: list[str], flag: str) -> bool:
    found = flag in tokens
    tokens[:] = [token for token in tokens if token != flag]
    return found


def _take_option(tokens: list[str], option: str) -> str | None:
    """Removes an option that may stand before or behind the command, and returns its value."""
    for position, token in enumerate(tokens):
        name, equals, value = token.partition("=")
        if name != option:
            continue
        if not equals and position + 1 == len(tokens):
            raise SettingsError(f"{option} needs the path of a TOML file.")
        taken = value if equals else tokens[position + 1]
        del tokens[position : position + (1 if equals else 2)]
        return taken
    return None


def _read_config(path: Path) -> Dict:
    # Imported here: settings files are rare, and pydantic costs start-up time.
    from flowpatch.settings import read_toml

    return Dict(read_toml(path, COMMANDS), source=str(path))


def _version() -> str:
    from importlib.metadata import version

    return version("flowpatch")
