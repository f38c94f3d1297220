"""The nodes of a store beside the node table as it is now."""

from dataclasses import dataclass

import numpy as np

from flowpatch.errors import NodeTableError
from flowpatch.preprocessing.settings import NodePolicy
from flowpatch.series.nodes import LocatedNodes, NodeTable
from flowpatch.sources.contract import NODE_WITHOUT_COORDINATES, KeyColumn, NodeIndex

Key = tuple[int | str, ...]


@dataclass(frozen=True)
class NodeChanges:
    """The nodes that a new version has, and what is different about the node table.

    `located` are the nodes, and the index that records of every key get. `come`, `gone` and `moved`
    count the nodes that only the table has, only the store has, and whose coordinates differ.
    """

    located: LocatedNodes
    come: int
    gone: int
    moved: int


def compare_nodes(store: NodeTable, table: LocatedNodes, policy: NodePolicy) -> NodeChanges:
    """Nodes that are kept as the store has them, or extended by those that only the table has.

    A node of the store that the table no longer has stays in either case.

    Raises:
        NodeTableError: the keys are of another kind.
    """
    _check_kinds(store, table.table)
    ours, theirs = _rows(store), _rows(table.table)
    come = sorted(theirs.keys() - ours.keys())
    shared = ours.keys() & theirs.keys()
    moved = sum(_place(store, ours[key]) != _place(table.table, theirs[key]) for key in shared)
    nodes = store if policy == "keep" else _extended(store, table.table)
    return NodeChanges(
        LocatedNodes(nodes, _index(nodes, table.index), table.without_coordinates),
        come=len(come),
        gone=len(ours) - len(shared),
        moved=moved,
    )


def _check_kinds(store: NodeTable, table: NodeTable) -> None:
    kinds = [[column.dtype == np.int64 for column in one.keys] for one in (store, table)]
    if store.key_columns != table.key_columns or kinds[0] != kinds[1]:
        raise NodeTableError(
            "The keys of the node table are of another kind than those of the store: one has whole "
            "numbers where the other has text. Mend the table, or build the store anew."
        )


def _rows(nodes: NodeTable) -> dict[Key, int]:
    return {key: row for row, key in enumerate(zip(*map(_plain, nodes.keys), strict=True))}


def _plain(column: KeyColumn) -> list[int | str]:
    return list(column.tolist())


def _place(nodes: NodeTable, row: int) -> tuple[float, float]:
    return float(nodes.latitude[row]), float(nodes.longitude[row])


def _extended(store: NodeTable, table: NodeTable) -> NodeTable:
    """All nodes of both, in the order of every node table; where both have one, the table's."""
    found = {key: (store, row) for key, row in _rows(store).items()}
    found |= {key: (table, row) for key, row in _rows(table).items()}
    ordered = sorted(found)
    places = np.array([_place(*found[key]) for key in ordered])
    return NodeTable(
        store.key_columns,
        tuple(
            np.array(column, dtype=np.int64 if old.dtype == np.int64 else object)
            for column, old in zip(zip(*ordered, strict=True), store.keys, strict=True)
        ),
        places[:, 0],
        places[:, 1],
    )


def _index(nodes: NodeTable, table: NodeIndex) -> NodeIndex:
    """Keys of the nodes, and those that the table knows without coordinates."""
    known = _rows(nodes)
    placeless = [
        key
        for key, node in zip(
            zip(*map(_plain, table.keys), strict=True), table.index.tolist(), strict=True
        )
        if node == NODE_WITHOUT_COORDINATES and key not in known
    ]
    keys = [*known, *placeless]
    index = [*known.values(), *[NODE_WITHOUT_COORDINATES] * len(placeless)]
    columns = tuple(
        np.array(column, dtype=np.int64 if old.dtype == np.int64 else object)
        for column, old in zip(zip(*keys, strict=True), nodes.keys, strict=True)
    )
    return NodeIndex(nodes.key_columns, columns, np.array(index, dtype=np.int32))
