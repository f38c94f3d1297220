"""What a version has and another has not, by day and node, without reading a value.

Days are known by the hash of their values. It is over all nodes, so where nodes came or went it
says nothing of the others; `comparison.py` reads the values then.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowpatch.series.nodes import NodeTable
from flowpatch.store.manifest import Manifest
from flowpatch.store.sample_store import SampleStore

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Changes:
    """From one version to another.

    Days are dates, nodes their labels; `nodes_moved` have other coordinates. `days_rewritten` is
    None where hashes cannot tell: nodes or steps are others.
    """

    days_added: tuple[str, ...]
    days_dropped: tuple[str, ...]
    days_rewritten: tuple[str, ...] | None
    nodes_added: tuple[str, ...]
    nodes_gone: tuple[str, ...]
    nodes_moved: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {name: value and list(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Shared:
    """The nodes that two versions share: (S,) positions in each, in the order of the first."""

    before: Positions
    now: Positions


def changes(before: SampleStore, now: SampleStore) -> Changes:
    """What differs in days and nodes."""
    old, new = days_of(before.manifest), days_of(now.manifest)
    both = shared_nodes(before.nodes, now.nodes)
    added, gone, moved = differing_nodes(before.nodes, now.nodes, both)
    rewritten = None
    if hashes_tell(before, now):
        rewritten = tuple(day for day in old if day in new and old[day] != new[day])
    return Changes(
        tuple(day for day in new if day not in old),
        tuple(day for day in old if day not in new),
        rewritten,
        added,
        gone,
        moved,
    )


def days_of(manifest: Manifest) -> dict[str, str]:
    """The hash of each day, by date, in order."""
    first = manifest.axis.start.astype("datetime64[D]")
    return {
        str(first + np.timedelta64(day, "D")): known
        for day, known in enumerate(manifest.day_hashes)
    }


def hashes_tell(before: SampleStore, now: SampleStore) -> bool:
    """Whether equal hashes of a day mean equal values of it, node by node."""
    steps_are_same = before.axis.step_minutes == now.axis.step_minutes
    return steps_are_same and _keys(before.nodes) == _keys(now.nodes)


def shared_nodes(before: NodeTable, now: NodeTable) -> Shared:
    """The nodes that both have, by key."""
    if before.key_columns != now.key_columns:
        return Shared(_positions([]), _positions([]))
    places = {key: position for position, key in enumerate(_keys(now))}
    pairs = [(i, places[key]) for i, key in enumerate(_keys(before)) if key in places]
    return Shared(_positions([i for i, _ in pairs]), _positions([j for _, j in pairs]))


def differing_nodes(
    before: NodeTable, now: NodeTable, both: Shared
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The labels of nodes that came, went and have other coordinates."""
    is_new, is_gone = np.ones(len(now), dtype=bool), np.ones(len(before), dtype=bool)
    is_new[both.now] = is_gone[both.before] = False
    elsewhere = before.coordinates[both.before] != now.coordinates[both.now]
    moved = both.now[elsewhere.any(axis=1)]
    return (
        _labels(now, np.flatnonzero(is_new)),
        _labels(before, np.flatnonzero(is_gone)),
        _labels(now, moved),
    )


def _labels(nodes: NodeTable, positions: Positions) -> tuple[str, ...]:
    return tuple(str(label) for label in nodes.labels[positions])


def _keys(nodes: NodeTable) -> list[tuple[Any, ...]]:
    return list(zip(*(column.tolist() for column in nodes.keys), strict=True))


def _positions(found: Sequence[int]) -> Positions:
    return np.array(found, dtype=np.int64)
