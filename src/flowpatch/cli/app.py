"""The root command: which commands there are, settings files, and what an error looks like.

A command's module is imported when that command runs, so `flowpatch --help` loads none of them.
"""

import gc
import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Dict
from cyclopts.exceptions import (
    CoercionError,
    MissingArgumentError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from flowpatch.cli.printing import visible
from flowpatch.errors import FlowpatchError, SettingsError, StoppedByUser
from flowpatch.launch import is_one_of_several
from flowpatch.redaction import redact

COMMANDS = {
    "preprocess": "Turn raw records into a sample store.",
    "update": "Bring a sample store up to date: new days, corrected days, new nodes.",
    "inspect": "Show what a sample store holds: period, nodes, coverage, quality, versions.",
    "train": "Train PatchSTG from a sample store, or go on with a stopped run.",
    "evaluate": "Score a run beside the naive forecasts.",
    "samples": "Look after sample stores and their versions; sample tables in MaxCompute.",
    "doctor": "Check the way to MaxCompute: keys, endpoint, project, tables, speed.",
    "simulate": "Write the raw records of a simulated city.",
}
SUBCOMMANDS = {
    "samples": {
        "list": "List the sample stores of a folder.",
        "show": "Show a version: what it holds, where it came from, who used it.",
        "log": "List the versions of a store, and what each changed.",
        "compare": "Show what differs between two versions.",
        "tag": "Give a version a name.",
        "untag": "Take a name away.",
        "rollback": "Make an older version the current one.",
        "expire": "Remove old versions that nobody needs.",
        "verify": "Read everything of a version and check it.",
        "copy": "Copy a store, with all versions and tags.",
        "remove": "Remove a store.",
        "publish": "Write the samples of a store version as a table in MaxCompute.",
        "fetch": "Rebuild a sample store from a table in MaxCompute.",
    },
}
_HOMES = {
    "list": "catalogue:list_stores",
    "show": "catalogue:show_version",
    "log": "catalogue:log_versions",
    "compare": "compare:compare",
    "tag": "versions:tag",
    "untag": "versions:untag",
    "rollback": "versions:rollback",
    "expire": "versions:expire",
    "verify": "whole:verify",
    "copy": "whole:copy",
    "remove": "whole:remove",
    "publish": "tables:publish",
    "fetch": "tables:fetch",
}
"""The file of `samples/` that holds a command, and the function."""

SELDOM = (50_000, 20, 50)
"""When Python looks for what can be let go, in its own terms. A command's start makes some hundred
thousand objects that stay, and looking through them as often as usual takes a tenth of it."""

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
        suppress_keyboard_interrupt=False,
        default_parameter=Parameter(negative_iterable=()),
    )
    for name, summary in COMMANDS.items():
        if name in SUBCOMMANDS:
            app.command(_build_group(name, summary))
        else:
            app.command(f"flowpatch.cli.{name}:{name}", name=name, help=summary)
    return app


def _build_group(name: str, summary: str) -> App:
    group = App(name=name, help=summary, help_format="markdown", version_flags=())
    for command, help_text in SUBCOMMANDS[name].items():
        home = f"flowpatch.cli.{name}.{_HOMES[command]}"
        group.command(home, name=command, help=help_text)
    return group


def main(arguments: Sequence[str], build: Callable[[], App] = build_app) -> NoReturn:
    """Runs one command and exits: 0 done, 1 failed, 2 misused, 130 interrupted."""
    sys.exit(_run(list(arguments), build))


def entry(build: Callable[[], App] = build_app) -> NoReturn:
    """What the shell calls: `main`, but without Python's own end.

    Zarr and Icechunk keep threads of their own. Now and then one of them still reached for Python
    while it was being taken down, and a command that had done its work died of SIGABRT (1 in 120
    runs on a busy machine). All results are written and flushed here, so nothing is lost.
    """
    gc.set_threshold(*SELDOM)
    exit_code = _run(sys.argv[1:], build)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(exit_code)


def _run(tokens: list[str], build: Callable[[], App]) -> int:
    debug = _take_flag(tokens, "--debug")
    try:
        app = build()
        if config := _take_option(tokens, "--config"):
            app.config = (_read_config(Path(config)),)
        _print_any_name()
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        # Here a full disk can still be told; at the very end Python could only complain.
        if sys.stdout is not None:
            sys.stdout.flush()
    except StoppedByUser as stopped:
        # Asked for, so it is no error.
        return _say(visible(str(stopped)), stopped.exit_code)
    except FlowpatchError as error:
        return _fail(str(error), error.exit_code, debug)
    except CycloptsError as error:
        return _fail(_plain(error, app.name[0]), 2, debug)
    except BrokenPipeError:
        # The reader of a pipe went away, as `head` does; nothing is wrong.
        _drop_output()
    except KeyboardInterrupt:
        return _fail("Interrupted.", 130, debug)
    except MemoryError:
        return _fail("Out of memory. Use a smaller --batch-size, or a shorter period.", 1, debug)
    except OSError as error:
        _drop_output()
        place = f"use '{error.filename}'" if error.filename else "write"
        what = error.strerror or str(error)
        return _fail(f"Cannot {place}: {what}. Check path, permissions and space.", 1, debug)
    except Exception as error:
        return _fail(
            f"{type(error).__name__}: {error}\nThis is a fault of flowpatch. "
            "Run again with --debug and report what it shows.",
            1,
            debug,
        )
    return 0


def _fail(message: str, exit_code: int, debug: bool) -> int:
    # Errors of a client may quote a key; no message or traceback shows one.
    trace = f"{redact(traceback.format_exc())}\n" if debug else ""
    return _say(f"error: {redact(visible(message))}", exit_code, trace)


def _say(message: str, exit_code: int, trace: str = "") -> int:
    """Says how a command ended; of several processes with the same to say, one says it."""
    if not is_one_of_several():
        print(f"{trace}{message}", file=sys.stderr)
        return exit_code
    # Imported here: what runs alone never touches it.
    from flowpatch.training.processes import one_voice

    with one_voice(message) as is_mine:
        if is_mine:
            print(f"{trace}{message}", file=sys.stderr, flush=True)
    return exit_code


def _print_any_name() -> None:
    """A name that the output's encoding lacks is written with escapes, not refused."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """What is still buffered would fail once more at the end."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _plain(error: CycloptsError, name: str) -> str:
    """What is wrong, what is allowed, and the next step: no frames, no types, no links."""
    from pydantic import ValidationError

    from flowpatch.settings import explain

    command = " ".join([name, *(error.command_chain or ())])
    if isinstance(error.__cause__, ValidationError):
        # A misspelt flag often is why a setting is missing.
        unknown = [token for token in error.unused_tokens or () if token.startswith("--")]
        lines = [f"Unknown option {token}. See {command} --help." for token in unknown]
        return "\n".join([*lines, explain(error.__cause__)])
    match error:
        case MissingArgumentError(keyword=str(flag)):
            return f"{flag} needs a value. One that begins with a hyphen is given as {flag}=VALUE."
        case MissingArgumentError(argument=argument) if argument is not None:
            flag = argument.name
            also = ", or the key in a TOML file" if flag.startswith("--") else ""
            return f"{flag} is missing: give it{also}. See {command} --help."
        case UnknownOptionError(token=token) if token.source != "cli":
            key = ".".join(re.findall(r"\[(.*?)\]", token.keyword or ""))
            hint = "".join(re.findall(r"Did you mean --(.*)\?", str(error))).replace("-", "_")
            return f"Unknown key '{key}' in '{token.source}'. " + (
                f"Did you mean '{hint}'?" if hint else f"Allowed are the flags of {command} --help."
            )
        case UnusedCliTokensError(unused_tokens=[token, *_]):
            return f"Unexpected argument '{token}'. See {command} --help."
        case CoercionError(token=token, target_type=kind) if token and kind in (int, float):
            number = "whole number" if kind is int else "number"
            return f"Bad value '{token.value}' for {token.keyword}: it must be a {number}."
    return f"{str(error).strip()} See {command} --help."


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
        if any(token.partition("=")[0] == option for token in tokens):
            raise SettingsError(f"{option} is given twice. Put all sections into one file.")
        return taken
    return None


def _read_config(path: Path) -> Dict:
    # Imported here: settings files are rare, and pydantic costs start-up time.
    from flowpatch.settings import read_toml

    return Dict(read_toml(path, COMMANDS), source=str(path))


def _version() -> str:
    from importlib.metadata import version

    return version("flowpatch")
