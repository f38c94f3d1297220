"""Ctrl-C (or a scheduler's SIGTERM) noted during long work, and acted on where nothing is lost.

Python's own way, an exception anywhere, can strike inside an import or a library's worker thread
and leave a lock held for ever: a build was seen to hang so.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopAskedError(Exception):
    """Someone asked the work to stop."""


class Interruption:
    """Whether someone asked the work to stop; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self._asked = False

    @property
    def is_asked(self) -> bool:
        """Whether a signal has come."""
        return self._asked

    def raise_if_asked(self) -> None:
        """Raises StopAskedError once a signal has come."""
        if self._asked:
            raise StopAskedError

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            signal.default_int_handler(number, frame)
        self._asked = True


_current: list[Interruption] = []


def raise_if_stop_asked() -> None:
    """Raises StopAskedError once a signal has come that a `noting_interruption` is to note."""
    if _current:
        _current[-1].raise_if_asked()


@contextmanager
def noting_interruption() -> Iterator[Interruption]:
    """Signals are noted inside this block; outside the main thread they are left alone."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, interruption._note) for number in numbers]
    _current.append(interruption)
    try:
        yield interruption
    finally:
        _current.pop()
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
