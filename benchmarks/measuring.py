"""Seconds, peak memory, and medians of both. What is measured is left to the other files.

Whatever is heavy runs in a process of its own, so that nothing measured before it is in its memory
or its caches, and the processes end with the block that started them, also on Ctrl-C.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
POLL_S = 0.05
"""How often the memory of a process is looked at. Each look costs it some time."""
PATIENCE_S = 10
"""What a process may take to clean up when it is to end early."""


@dataclass(frozen=True)
class Spread:
    """The median of several runs, with the lowest and the highest."""

    median: float
    lowest: float
    highest: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of one or more values."""
        return cls(median(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Ran:
    """A process that ended well: its seconds, peak memory, and what it printed."""

    seconds: float
    peak_bytes: int
    printed: str


def seconds_of(action: Callable[[], object]) -> float:
    """Seconds that an action takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def alternate(rounds: int, *actions: Callable[[], float]) -> list[tuple[float, ...]]:
    """The figures of each action over so many rounds, the actions taking turns.

    A machine that slows down for a while slows all of them.
    """
    taken = [[action() for action in actions] for _ in range(rounds)]
    return list(zip(*taken, strict=True))


def flowpatch(*arguments: object) -> list[str]:
    """A command of flowpatch, as words."""
    return [sys.executable, "-m", "flowpatch", *map(str, arguments)]


def run(command: Sequence[str], folder: Path | None = None, *, memory: bool = False) -> Ran:
    """Runs a command to its end.

    Args:
        command: its words.
        folder: where it runs; by default the repository's root.
        memory: look at its memory too, and at that of all its workers; else the peak is 0. Not
            to be done while seconds count.

    Raises:
        RuntimeError: it failed; the message ends with what it said.
    """
    started, peak, printed = time.perf_counter(), 0, None
    with started_process(command, folder) as process:
        while printed is None:
            try:
                printed, said = process.communicate(timeout=POLL_S if memory else None)
            except subprocess.TimeoutExpired:
                peak = max(peak, resident_bytes(process.pid))
        seconds = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{said[-2000:]}")
    return Ran(seconds, peak, printed)


def run_child(function: str, /, *, memory: bool = False, **arguments: object) -> tuple[Any, Ran]:
    """Calls `module:function` in a fresh Python; returns what it returned, as plain JSON values.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-m", "benchmarks.child", function, json.dumps(arguments)]
    ran = run(command, memory=memory)
    return json.loads(ran.printed.splitlines()[-1]), ran


@contextmanager
def started_process(
    command: Sequence[str], folder: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process that is ended, with all its workers, when the block is left."""
    process = None
    try:
        # Stopped half way, Popen would leave a process that nobody knows of.
        with interruption_held_back():
            process = subprocess.Popen(  # noqa: S603
                command,
                cwd=folder or ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        yield process
    finally:
        if process:
            _end(process)


@contextmanager
def interruption_held_back() -> Iterator[None]:
    """A Ctrl-C inside this block is raised at its end."""
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt


def _end(process: "subprocess.Popen[str]") -> None:
    """Asks the process to end, which lets it clean up; ends it, and its workers, if it does not."""
    if process.poll() is None:
        with suppress(psutil.Error):
            workers = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE_S)
            for worker in workers:
                with suppress(psutil.Error):
                    worker.kill()
        process.kill()
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe:
            pipe.close()


def highest_resident_bytes(pid: int | str = "self") -> int:
    """The most memory that a process ever held, by default this one, as the kernel counted it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell the highest memory of a process: use Linux")


def resident_bytes(pid: int) -> int:
    """Proportional memory of a process and its workers: pages that they share count once."""
    total = 0
    try:
        main = psutil.Process(pid)
        for process in (main, *main.children(recursive=True)):
            total += process.memory_full_info().pss
    except psutil.Error:
        return total
    return total
