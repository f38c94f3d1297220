"""Keys and instants of records -> nodes and steps, in one compiled loop.

For keys of one or two columns of whole numbers; DuckDB joins any other.

    key -> slot: 4 bytes, the row of a key -> the key itself, side by side; its node

At most an eighth of the slots are taken, so a second look is rare, and all of it is still smaller
than a core's cache: 0.8 MB for 16,000 nodes, where keys in the slots took 2.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flowpatch.sources.compiled import compiled, frozen
from flowpatch.sources.contract import UNKNOWN_NODE, KeyColumn, NodeIndex, RecordBlock

_SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio: multiplying by it spreads near keys (Knuth, volume 3, 6.4)."""

Keys = Sequence[NDArray[np.int64]]
MOST_COLUMNS = 2
"""Columns of a key that are numbered here."""
OUTSIDE = -1
"""The step of an instant of another stretch."""


class NodeNumbers:
    """The node of each key, for keys of one or two int64 columns."""

    def __init__(self, nodes: NodeIndex) -> None:
        known = len(nodes.index)
        bits = max(4, (8 * known).bit_length())
        self._shift = 64 - bits
        # A slot that is not taken names the row behind all keys, whose node is the unknown one.
        self._slots = np.full(2**bits, known, dtype=np.uint32)
        self._keys = np.zeros((known + 1, 2), dtype=np.int64)
        self._keys[:known] = np.column_stack(_two(nodes.keys))
        self._nodes = np.append(nodes.index, np.int32(UNKNOWN_NODE))
        _fill(self._keys, self._slots, self._shift)

    def block(
        self,
        keys: Keys,
        instant: NDArray[np.int64],
        value: NDArray[np.float32],
        first: int,
        step_ticks: int,
    ) -> RecordBlock:
        """K records as a block.

        Args:
            keys: (K,) each column of the keys.
            instant: (K,) instants in ticks of any length, none before `first`.
            value: (K,) values.
            first: the instant from which steps are counted.
            step_ticks: the length of a step.
        """
        step = np.empty(len(value), dtype=np.int64)
        _count_steps(frozen(instant), first, step_ticks, step)
        return RecordBlock(step, self.nodes(keys), value)

    def nodes(self, keys: Keys) -> NDArray[np.int32]:
        """(K,) the nodes of keys, each column of them (K,)."""
        node = np.empty(len(keys[0]), dtype=np.int32)
        _find(*_two(keys), self._slots, self._keys, self._nodes, self._shift, node)
        return node


def unused_key(keys: KeyColumn) -> int:
    """A whole number that is no key: what a record without one gets."""
    known = set(keys.tolist())
    return next(number for number in range(len(known) + 1) if number not in known)


def _two(keys: Keys) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One column stands for two that are equal."""
    return frozen(keys[0]), frozen(keys[-1])


@compiled
def whole_steps(passed: np.int64, steps_a_tick: float, step_ticks: int) -> np.int64:
    """How many whole steps have passed: multiplied by the inverse of their length, which is five
    times faster than dividing, and at most one step off.
    """
    found = np.int64(passed * steps_a_tick)
    rest = passed - found * step_ticks
    return found + (rest >= step_ticks) - (rest < 0)


@compiled
def _slot(one: np.int64, two: np.int64, shift: int) -> np.uint64:
    # Unsigned, here and below: an index that may be negative is tested for that.
    mixed = (np.uint64(one) * _SPREAD) ^ np.uint64(two)
    return (mixed * _SPREAD) >> np.uint64(shift)


@compiled
def _fill(keys: NDArray[np.int64], slots: NDArray[np.uint32], shift: int) -> None:
    last, none = np.uint64(len(slots) - 1), len(keys) - 1
    for row in range(none):
        at = _slot(keys[row, 0], keys[row, 1], shift)
        while slots[at] != none:
            at = (at + np.uint64(1)) & last
        slots[at] = row


@compiled
def _count_steps(
    instant: NDArray[np.int64], first: int, step_ticks: int, step: NDArray[np.int64]
) -> None:
    steps_a_tick = 1.0 / step_ticks
    for i in range(len(instant)):
        step[i] = whole_steps(instant[i] - first, steps_a_tick, step_ticks)


def steps_within(
    instant: NDArray[np.int64], first: int, stop: int, step_ticks: int
) -> NDArray[np.int32]:
    """(K,) the steps of (K,) instants from `first` on and before `stop`, OUTSIDE of any other."""
    step = np.empty(len(instant), dtype=np.int32)
    _count_steps_within(frozen(instant), first, stop, step_ticks, step)
    return step


@compiled
def _count_steps_within(
    instant: NDArray[np.int64], first: int, stop: int, step_ticks: int, step: NDArray[np.int32]
) -> None:
    steps_a_tick = 1.0 / step_ticks
    for i in range(len(instant)):
        if first <= instant[i] < stop:
            step[i] = whole_steps(instant[i] - first, steps_a_tick, step_ticks)
        else:
            step[i] = OUTSIDE


@compiled
def _find(
    ones: NDArray[np.int64],
    twos: NDArray[np.int64],
    slots: NDArray[np.uint32],
    keys: NDArray[np.int64],
    nodes: NDArray[np.int32],
    shift: int,
    node: NDArray[np.int32],
) -> None:
    last, none = np.uint64(len(slots) - 1), np.uint32(len(keys) - 1)
    for i in range(len(ones)):
        one, two = ones[i], twos[i]
        at = _slot(one, two, shift)
        row = slots[at]
        # Both columns in one comparison: the rare second look is the only branch.
        while ((keys[row, 0] ^ one) | (keys[row, 1] ^ two)) != 0 and row != none:
            at = (at + np.uint64(1)) & last
            row = slots[at]
        node[i] = nodes[row]
