"""Commands of flowpatch in processes that may be killed at any moment, without a second of imports.

    Commands()          in a test: starts a process that has imported everything, and nothing runs
    python command_forker.py    that process: forks a child for each command that it is told

A fork of the test itself would inherit the threads of engines that the test has used, as dead ones.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, below 0 where a signal killed it, and what it said.

    `seconds` are those that it computed for: the same on a machine that others use as well.
    """

    code: int
    said: str
    seconds: float

    @property
    def is_killed(self) -> bool:
        return self.code == -signal.SIGKILL


class Running:
    """A command under way."""

    def __init__(self, commands: "Commands", process: int, output: Path) -> None:
        self._commands, self.process, self._output = commands, process, output

    def said(self) -> str:
        return self._output.read_text(errors="replace")

    def kill(self) -> None:
        # No other process can have this number: it is kept until its parent has waited for it.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGKILL)

    def state(self) -> str:
        """T for one that stands still, Z for one that has ended."""
        return Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()[0]

    def go_on(self) -> None:
        os.kill(self.process, signal.SIGCONT)

    def computed_seconds(self) -> float | None:
        """In all threads together; None once it has ended."""
        state, *counts = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        # utime and stime, the 14th and 15th field of all.
        ticks = int(counts[10]) + int(counts[11])
        return None if state == "Z" else ticks / os.sysconf("SC_CLK_TCK")

    def wait(self) -> Ended:
        code, seconds = self._commands.ask({"wait": self.process}).split()
        return Ended(int(code), self.said(), float(seconds))


class Commands:
    """Starts commands, as a context manager.

    `block_bytes` is the smallest write and the memory for gathering: 1 makes a stretch of every
    day.
    """

    def __init__(self, folder: Path, block_bytes: int = 1) -> None:
        self._folder, self._count = folder, 0
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(block_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "ready"

    def __enter__(self) -> "Commands":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()

    def start(self, command: list[str], **how: Any) -> Running:
        """`signal_at` names a function, `module:Class.function`: at its first call the process
        sends itself the signal `number`, by default SIGKILL."""
        self._count += 1
        output = self._folder / f"said-{self._count}.txt"
        output.touch()
        process = int(self.ask({"command": command, "output": str(output), **how}))
        return Running(self, process, output)

    def run(self, command: list[str], **how: Any) -> Ended:
        return self.start(command, **how).wait()

    def run_for(self, seconds: float, command: list[str]) -> Ended:
        """Kills the command once it has computed for so long, unless it has ended by then."""
        running = self.start(command)
        tick = 1 / os.sysconf("SC_CLK_TCK")
        while (computed := running.computed_seconds()) is not None and computed + tick < seconds:
            time.sleep(0.001)
        time.sleep(seconds % tick)
        running.kill()
        return running.wait()

    def freeze(self, command: list[str], *, at: str) -> Running:
        """Starts the command, which stands still where it calls `at`, until SIGCONT."""
        running = self.start(command, signal_at=at, number=signal.SIGSTOP)
        until = time.monotonic() + 60
        while (state := running.state()) != "T":
            assert state != "Z", running.said()
            assert time.monotonic() < until
            time.sleep(0.001)
        return running

    def ask(self, what: dict[str, Any]) -> str:
        assert self._process.stdin
        print(json.dumps(what), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


def serve(block_bytes: int) -> None:
    # All that the commands import; none of it starts a thread.
    import filelock  # noqa: F401
    import numcodecs.blosc  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import rich.progress  # noqa: F401
    import zarr.codecs  # noqa: F401

    import flowpatch.cli.preprocess
    import flowpatch.cli.update
    import flowpatch.preprocessing.build
    import flowpatch.preprocessing.update  # noqa: F401
    from flowpatch.preprocessing import stretches
    from flowpatch.store import arrays

    stretches.GATHER_BYTES = arrays.BLOCK_BYTES = block_bytes
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            _, status, used = os.wait4(asked["wait"], 0)
            print(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, flush=True)
        elif child := os.fork():
            print(child, flush=True)
        else:
            _run(**asked)


def _run(
    command: list[str], output: str, signal_at: str | None = None, number: int = signal.SIGKILL
) -> None:
    from flowpatch.cli import entry

    said = os.open(output, os.O_WRONLY)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if signal_at is not None:
        _put_signal_at(signal_at, number)
    sys.argv = ["flowpatch", *command]
    entry()


def _put_signal_at(place: str, number: int) -> None:
    owner_name, _, name = place.rpartition(".")
    owner = resolve_name(owner_name)
    function = getattr(owner, name)

    def signal_first(*given: Any, **named: Any) -> Any:
        setattr(owner, name, function)
        os.kill(os.getpid(), number)
        return function(*given, **named)

    setattr(owner, name, signal_first)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
