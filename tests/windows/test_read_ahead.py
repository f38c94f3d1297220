"""Blocks are there when they are asked for, never more than the slots, and read no oftener than
need be."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds import fewest_reads
from numpy.typing import NDArray

from flowpatch.windows.read_ahead import NONE, ReadAhead

BLOCKS = 8


class Shelf:
    """Slots that say which block was put into them last, and how often any was."""

    def __init__(self, slots: int, pauses: list[int] | None = None) -> None:
        self.content = np.full(slots, NONE)
        self.reads: list[int] = []
        self._pauses = pauses or [0]

    def read(self, block: int, slot: int) -> None:
        # What is half read is no block.
        self.content[slot] = NONE
        time.sleep(self._pauses[len(self.reads) % len(self._pauses)] / 10_000)
        self.reads.append(block)
        self.content[slot] = block


ORDERS = st.lists(st.integers(0, BLOCKS - 1), max_size=40)


@settings(max_examples=60)
@given(order=ORDERS, slots=st.integers(1, 5), pauses=st.lists(st.integers(0, 9), min_size=1))
def test_every_block_is_there_when_it_is_asked_for(
    order: list[int], slots: int, pauses: list[int]
) -> None:
    shelf = Shelf(slots, pauses)
    ahead = ReadAhead(BLOCKS, slots, shelf.read)
    ahead.expect(np.array(order, dtype=np.int64)[:, None])
    for position, block in enumerate(order):
        with ahead.held(block, position) as slot:
            assert shelf.content[slot] == block
            # Nothing takes its place while it is looked at.
            time.sleep(pauses[position % len(pauses)] / 20_000)
            assert shelf.content[slot] == block
        ahead.go_on(position + 1)
    # Reading ahead may be one block in front of what an oracle does in its place.
    assert len(shelf.reads) <= fewest_reads(order, max(1, slots - 1)) + slots


@settings(max_examples=30)
@given(told=ORDERS, asked=ORDERS, slots=st.integers(1, 4))
def test_what_was_not_told_is_read_when_it_is_asked_for(
    told: list[int], asked: list[int], slots: int
) -> None:
    shelf = Shelf(slots)
    ahead = ReadAhead(BLOCKS, slots, shelf.read)
    ahead.expect(np.array(told, dtype=np.int64)[:, None])
    for block in asked:
        with ahead.held(block, 0) as slot:
            assert shelf.content[slot] == block


def wait_for(shelf: Shelf, reads: list[int]) -> None:
    until = time.monotonic() + 20
    while sorted(shelf.reads) != reads and time.monotonic() < until:
        time.sleep(0.001)
    assert sorted(shelf.reads) == reads


def needed(*rows: tuple[int, ...]) -> NDArray[np.int64]:
    return np.array(rows, dtype=np.int64)


def test_blocks_are_read_before_they_are_asked_for_but_no_more_than_fit() -> None:
    shelf = Shelf(slots=3)
    ahead = ReadAhead(BLOCKS, 3, shelf.read)
    ahead.expect(needed((4,), (2,), (4,), (7,), (0,), (1,)))
    wait_for(shelf, [2, 4, 7])
    ahead.go_on(2)
    # Block 2 is done with, so 0 comes in its place; 4 is still to come.
    wait_for(shelf, [0, 2, 4, 7])


def test_a_position_may_need_several_blocks_or_fewer() -> None:
    shelf = Shelf(slots=6)
    ahead = ReadAhead(BLOCKS, 6, shelf.read)
    ahead.expect(needed((4, NONE), (4, 0), (5, 1)))
    wait_for(shelf, [0, 1, 4, 5])


def test_what_cannot_be_read_is_told_to_whoever_waits() -> None:
    def read(block: int, slot: int) -> None:
        raise OSError("the disk is gone")

    ahead = ReadAhead(BLOCKS, 2, read)
    ahead.expect(needed((4,), (2,)))
    for _ in range(2):
        with pytest.raises(OSError, match="the disk is gone"), ahead.held(4, 0):
            pass
