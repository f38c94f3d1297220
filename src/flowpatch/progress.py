"""The one progress display for all long work.

In a terminal: a bar with speed and remaining time on standard error. In a pipe: nothing but the
lines that `say` prints, so that logs stay quiet. Of several processes that were launched together
the main one speaks for all.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from flowpatch.launch import is_main


class Task(Protocol):
    """One piece of long work under way."""

    def advance(self, amount: float = 1) -> None:
        """`amount` more units are done."""

    def note(self, text: str) -> None:
        """A short figure to show beside the bar, such as the current loss."""


class _SilentTask:
    def advance(self, amount: float = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class _BarTask:
    def __init__(self, progress: "object", task_id: int) -> None:
        self._progress, self._task_id = progress, task_id

    def advance(self, amount: float = 1) -> None:
        self._progress.advance(self._task_id, amount)  # type: ignore[attr-defined]

    def note(self, text: str) -> None:
        self._progress.update(self._task_id, note=text)  # type: ignore[attr-defined]


def say(message: str) -> None:
    """One line about the work, on standard error: results own standard output."""
    if is_main():
        print(message, file=sys.stderr, flush=True)


@contextmanager
def track(description: str, total: float, unit: str) -> Iterator[Task]:
    """Shows `description` with speed in `unit` a second and the time that remains."""
    if not sys.stderr.isatty() or not is_main():
        yield _SilentTask()
        return
    # Imported here: rich costs start-up time that a pipe need not pay.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Task as RichTask
    from rich.text import Text

    class Speed(TextColumn):
        def render(self, task: RichTask) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.3g} {unit}/s" if speed else "")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        TextColumn("{task.percentage:>3.0f} %"),
        Speed(""),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield _BarTask(progress, progress.add_task(description, total=total, note=""))
