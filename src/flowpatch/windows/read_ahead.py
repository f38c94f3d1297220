"""Blocks of a series, read into a bounded number of slots before they are asked for.

Whoever asks tells in advance which blocks it will need, in their order. A thread then reads what is
needed soonest into the slot of what is needed latest, as long as that is later: no order can be
served with fewer reads, and none takes more memory than the slots.

    needed:   7 2 7 5 2 0 ...        slots: [7] [2] [5]   0 comes next, in place of 7
                    ^ position
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

NONE = -1
"""In place of a block: nothing is needed."""


class ReadAhead:
    """Blocks 0 .. `blocks` in `slots` slots; one thread asks for them, another reads them.

    Args:
        blocks: how many there are.
        slots: how many are held at a time.
        read: puts a block into a slot.
    """

    def __init__(self, blocks: int, slots: int, read: Callable[[int, int], None]) -> None:
        self._blocks, self._read = np.arange(blocks), read
        self._slot_of: dict[int, int] = {}
        self._free = list(range(slots))
        self._changed = threading.Condition()
        self._is_reading = False
        self._error: Exception | None = None
        # Asked for, and waited for; and asked for, and looked at right now.
        self._wanted = self._held = NONE
        self.expect(np.empty((0, 1), dtype=np.int64))

    def expect(self, needed: NDArray[np.int64]) -> None:
        """Takes the (P, K) blocks that each of the positions 0 .. P will need, or `NONE`."""
        span = len(needed) + 1
        # Sorted by block, then position: the next use of all blocks is one search.
        uses = needed * span
        uses += np.arange(len(needed))[:, None]
        uses = uses.ravel() if (needed != NONE).all() else uses[needed != NONE]
        uses.sort()
        with self._changed:
            self._uses, self._span, self._position = uses, span, 0
        self.go_on(0)

    def go_on(self, position: int) -> None:
        """All positions before this one are done with; what is needed next is read."""
        with self._changed:
            self._position = position
            self._start_reading()

    @contextmanager
    def held(self, block: int, position: int) -> Iterator[int]:
        """The slot of a block, which stays what it is inside this context.

        Raises:
            Exception: what reading it, or another one, has raised.
        """
        with self._changed:
            self._position = max(self._position, position)
            while block not in self._slot_of and self._error is None:
                self._wanted = block
                self._start_reading()
                self._changed.wait()
            if self._error is not None:
                raise self._error
            self._wanted, self._held = NONE, block
            slot = self._slot_of[block]
        try:
            yield slot
        finally:
            self._held = NONE

    def _start_reading(self) -> None:
        if not self._is_reading and self._error is None:
            # It ends by itself when there is nothing to do, and holds up no process that ends.
            thread = threading.Thread(target=self._read_on, name="read-ahead", daemon=True)
            self._is_reading = True
            try:
                thread.start()
            except RuntimeError:
                # No memory for a thread: whoever waited for it would wait for ever.
                self._is_reading = False
                raise

    def _read_on(self) -> None:
        try:
            while (chosen := self._choose()) is not None:
                block, slot = chosen
                self._read(block, slot)
                with self._changed:
                    self._slot_of[block] = slot
                    self._changed.notify_all()
        except Exception as error:
            # Whoever waits for a block is told.
            with self._changed:
                self._error, self._is_reading = error, False
                self._changed.notify_all()

    def _choose(self) -> tuple[int, int] | None:
        """The block to read next and the slot for it; None, and reading ends, if there is none."""
        with self._changed:
            next_use = self._next_use()
            block = self._most_needed(next_use)
            slot = NONE if block == NONE else self._slot_for(block, next_use)
            if slot == NONE:
                self._is_reading = False
                return None
            return block, slot

    def _next_use(self) -> NDArray[np.int64]:
        """Of each block, the position that needs it next; the span if none does."""
        base = self._blocks * self._span
        found = np.searchsorted(self._uses, base + self._position)
        # Behind the last use there is none, which is later than any.
        uses = self._uses.take(found, mode="clip") if len(self._uses) else base + self._span
        return np.where(found < len(self._uses), np.minimum(uses - base, self._span), self._span)

    def _most_needed(self, next_use: NDArray[np.int64]) -> int:
        if self._wanted != NONE and self._wanted not in self._slot_of:
            return self._wanted
        outside = next_use.copy()
        outside[list(self._slot_of)] = self._span
        block = int(outside.argmin()) if len(outside) else NONE
        return block if block != NONE and outside[block] < self._span else NONE

    def _slot_for(self, block: int, next_use: NDArray[np.int64]) -> int:
        """A free slot, or that of the block that is needed latest, if that is late enough."""
        if self._free:
            return self._free.pop()
        # What is looked at stays, and so does what was waited for and is there by now.
        others = [one for one in self._slot_of if one not in (self._held, self._wanted)]
        latest = max(others, key=lambda one: int(next_use[one]), default=NONE)
        is_late = latest != NONE and next_use[latest] > next_use[block]
        if not is_late and (block != self._wanted or latest == NONE):
            return NONE
        return self._slot_of.pop(latest)
