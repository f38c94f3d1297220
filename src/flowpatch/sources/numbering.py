"""Keys and instants of records -> nodes and steps, in one compiled loop.

For keys of one or two columns of whole numbers; DuckDB joins any other. A slot of the hash table
holds a key and its node side by side, half a line of the cache, and at most a quarter of the slots
are taken: a second look is rare.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flowpatch.sources.compiled import compiled, frozen
from flowpatch.sources.contract import UNKNOWN_NODE, KeyColumn, NodeIndex, RecordBlock

_ONE, _TWO, _NODE, _IS_TAKEN = range(4)
"""What a slot holds: a key of two columns, its node, and whether it holds any."""
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio: multiplying by it spreads near keys (Knuth, volume 3, 6.4)."""

Keys = Sequence[NDArray[np.int64]]
MOST_COLUMNS = 2
"""Columns of a key that are numbered here."""


class NodeNumbers:
    """The node of each key, for keys of one or two int64 columns."""

    def __init__(self, nodes: NodeIndex) -> None:
        bits = max(4, (4 * len(nodes.index)).bit_length())
        self._shift = 64 - bits
        self._slots = np.zeros((2**bits, 4), dtype=np.int64)
        self._slots[:, _NODE] = UNKNOWN_NODE
        _fill(*_two(nodes.keys), frozen(nodes.index), self._slots, self._shift)

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
        node = np.empty(len(value), dtype=np.int32)
        _number(
            *_two(keys),
            frozen(instant),
            first,
            step_ticks,
            self._slots,
            self._shift,
            step,
            node,
        )
        return RecordBlock(step, node, value)


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
def _slot(one: np.int64, two: np.int64, shift: int) -> np.int64:
    mixed = (np.uint64(one) * _SPREAD) ^ np.uint64(two)
    return np.int64((mixed * _SPREAD) >> np.uint64(shift))


@compiled
def _fill(
    ones: NDArray[np.int64],
    twos: NDArray[np.int64],
    nodes: NDArray[np.int32],
    slots: NDArray[np.int64],
    shift: int,
) -> None:
    last = len(slots) - 1
    for i in range(len(ones)):
        at = _slot(ones[i], twos[i], shift)
        while slots[at, _IS_TAKEN]:
            at = (at + 1) & last
        slots[at, _ONE] = ones[i]
        slots[at, _TWO] = twos[i]
        slots[at, _NODE] = nodes[i]
        slots[at, _IS_TAKEN] = 1


@compiled
def _number(
    ones: NDArray[np.int64],
    twos: NDArray[np.int64],
    instant: NDArray[np.int64],
    first: int,
    step_ticks: int,
    slots: NDArray[np.int64],
    shift: int,
    step: NDArray[np.int64],
    node: NDArray[np.int32],
) -> None:
    steps_a_tick = 1.0 / step_ticks
    for i in range(len(instant)):
        step[i] = whole_steps(instant[i] - first, steps_a_tick, step_ticks)
    last = len(slots) - 1
    for i in range(len(ones)):
        at = _slot(ones[i], twos[i], shift)
        while slots[at, _ONE] != ones[i] or slots[at, _TWO] != twos[i]:
            # The node of a slot that is not taken is the unknown one.
            if not slots[at, _IS_TAKEN]:
                break
            at = (at + 1) & last
        node[i] = slots[at, _NODE]
