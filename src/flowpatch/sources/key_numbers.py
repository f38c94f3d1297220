"""Nodes found column by column: each column of a key has a number, and they lead to the node.

A dictionary of one column's keys is numbered once, for all records that have a code of it. Of keys
in two columns, those with the same first one are a row of a table with a column for every second
one. Almost all of it is empty, so the rows are laid over one another, each shifted to where it
meets no other (Tarjan and Yao, 1979):

    row 4, shifted by 1:   . n . n          table: owner 4 6 4 6 6, node n m n m m
    row 6, shifted by 0:   m . . m m
                         0 1 2 3 4

The shift is the number of the first key, the column that of the second, and the owner of an
entry tells whether it is of that row.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowpatch.sources.compiled import compiled, frozen
from flowpatch.sources.contract import UNKNOWN_NODE, KeyColumn, NodeIndex
from flowpatch.sources.numbering import NodeNumbers

UNKNOWN_KEY = UNKNOWN_NODE
"""The number of a key that no node has."""

_NO_OWNER = -2
_ROOMS = (2, 4, 8)
"""Places in the table for each key, tried one after another."""
_TRIES = 4
"""How often each place may be tried, all rows together, before a larger table is."""

Numbers = NDArray[np.int32]


class KeyNumbers:
    """The numbers of keys, one column or two of int64, and the nodes that numbers lead to."""

    def __init__(self, nodes: NodeIndex) -> None:
        if len(nodes.keys) == 1:
            self._columns: tuple[NodeNumbers, ...] = (NodeNumbers(nodes),)
            self._table: NDArray[np.int64] | None = None
            return
        (ones, one), (twos, two) = (np.unique(keys, return_inverse=True) for keys in nodes.keys)
        order = np.argsort(one, kind="stable")
        first = np.searchsorted(one[order], np.arange(len(ones) + 1))
        laid = _lay_rows(first, two[order], nodes.index[order], len(twos))
        shift = np.arange(len(ones), dtype=np.int32) if laid is None else laid[0]
        self._columns = (_numbering(ones, shift), _numbering(twos, np.arange(len(twos))))
        self._table = None if laid is None else laid[1]
        if laid is None:
            self._pairs = NodeNumbers(NodeIndex(nodes.key_columns, (one, two), nodes.index))

    def number(self, column: int, keys: NDArray[Any]) -> Numbers:
        """(K,) the numbers of (K,) keys of one column, UNKNOWN_KEY of those that no node has."""
        return self._columns[column].nodes([keys.astype(np.int64, copy=False)])

    def nodes(self, numbers: Sequence[Numbers]) -> NDArray[np.int32]:
        """(K,) the nodes of keys, whose (K,) numbers are given column by column."""
        if len(self._columns) == 1:
            return numbers[0]
        if self._table is None:
            return self._pairs.nodes([column.astype(np.int64) for column in numbers])
        node = np.empty(len(numbers[0]), dtype=np.int32)
        _look_up(numbers[0], numbers[1], self._table, node)
        return node


def _numbering(keys: KeyColumn, numbers: NDArray[np.integer]) -> NodeNumbers:
    return NodeNumbers(NodeIndex(("",), (keys,), numbers.astype(np.int32)))


def _lay_rows(
    first: NDArray[np.int64], column: NDArray[np.int64], node: NDArray[np.int32], columns: int
) -> tuple[Numbers, NDArray[np.int64]] | None:
    """The shift of each row, and the table; None where rows meet wherever they are laid.

    Args:
        first: (R + 1,) where each row begins among the keys.
        column: (K,) the columns of keys, row by row.
        node: (K,) their nodes.
        columns: how many there are.
    """
    longest_first = np.argsort(-np.diff(first), kind="stable")
    for room in _ROOMS:
        shift = np.empty(len(first) - 1, dtype=np.int32)
        # Ahead of it a place for an unknown key of both columns, behind it whole rows.
        table = np.full(2 + room * len(node) + columns, np.int64(_NO_OWNER) << 32)
        if _lay(longest_first, first, column, node, room * len(node), shift, table):
            return shift, frozen(table)
    return None


@compiled
def _lay(
    rows: NDArray[np.int64],
    first: NDArray[np.int64],
    column: NDArray[np.int64],
    node: NDArray[np.int32],
    places: int,
    shift: Numbers,
    table: NDArray[np.int64],
) -> bool:
    tries = _TRIES * places
    is_taken = np.zeros(places, dtype=np.bool_)
    at = 0
    for row in rows:
        own = slice(first[row], first[row + 1])
        while is_taken[at] or not _is_free(table[2 + at :], column[own]):
            at = at + 1 if at + 1 < places else 0
            tries -= 1
            if tries == 0:
                return False
        is_taken[at] = True
        shift[row] = at
        for key in range(first[row], first[row + 1]):
            table[2 + at + column[key]] = (at << 32) | (np.int64(node[key]) & 0xFFFFFFFF)
    return True


@compiled
def _is_free(table: NDArray[np.int64], columns: NDArray[np.int64]) -> bool:
    # A loop of its own: the compiler knows no `all` of a generator.
    for column in columns:  # noqa: SIM110
        if table[column] >> 32 != _NO_OWNER:
            return False
    return True


@compiled
def _look_up(ones: Numbers, twos: Numbers, table: NDArray[np.int64], node: Numbers) -> None:
    for i in range(len(ones)):
        # Unsigned: an index that may be negative is tested for that. An unknown key is -1.
        entry = table[np.uint64(np.int64(ones[i]) + np.int64(twos[i]) + 2)]
        node[i] = np.int32(entry) if entry >> 32 == ones[i] else UNKNOWN_NODE
