"""Which nodes of other leaves behave most like the nodes of a leaf: the paper's padding.

Two nodes are similar as far as their mean daily profiles point the same way (cosine). The paper
pads by exp(z-score of the cosine); as that grows with the cosine, the order is the same and only
`scaled_similarity` spells it out. Nothing here is N x N: leaves are compared in blocks.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from flowpatch.errors import LayoutError
from flowpatch.patches.kdtree import Nodes

BLOCK_BYTES = 32 * 2**20
"""Similarities held at a time."""


def daily_profiles(
    days: Iterator[NDArray[np.float32]], steps_a_day: int, nodes: int
) -> NDArray[np.float64]:
    """(steps_a_day, N) mean over days of each node at each step of the day, missing left out.

    Where a node was never observed at some step of the day, its own mean stands in.

    Args:
        days: blocks (steps_a_day, N), NaN where nothing was observed; a shorter one is left out,
            as the paper counts whole days.
        steps_a_day: steps of a whole day.
        nodes: N.
    """
    total = np.zeros((steps_a_day, nodes))
    count = np.zeros((steps_a_day, nodes), dtype=np.int64)
    for values in days:
        if len(values) == steps_a_day:
            observed = ~np.isnan(values)
            total += np.where(observed, values, 0)
            count += observed
    node_mean = total.sum(axis=0) / np.maximum(count.sum(axis=0), 1)
    return np.where(count > 0, total / np.maximum(count, 1), node_mean)


def unit_profiles(profiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, steps_a_day) profiles of length 1; a profile of zeros stays zero, similar to none."""
    length = np.linalg.norm(profiles, axis=0)
    return np.ascontiguousarray((profiles / np.where(length > 0, length, 1)).T)


def scaled_similarity(profiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, N) exp of the z-score of the cosine similarity, as published. For small N only."""
    units = unit_profiles(profiles)
    cosine = units @ units.T
    return np.exp((cosine - cosine.mean()) / cosine.std())  # type: ignore[no-any-return]


def pad_leaves(
    leaves: Sequence[Nodes], leaf_size: int, profiles: NDArray[np.float64]
) -> list[Nodes]:
    """Fills every leaf to `leaf_size` with the most similar nodes of other leaves.

    The published rule walks all pairs (own node, other node) from the most to the least similar
    and takes each other node once; that is the order of each other node's largest similarity to
    any own node. Equal similarities are taken in ascending node index.

    Args:
        leaves: node indices of each leaf, at most `leaf_size`.
        leaf_size: nodes a leaf after padding.
        profiles: (steps_a_day, N) mean daily profiles.

    Raises:
        LayoutError: there are fewer nodes than a leaf holds.
    """
    units = unit_profiles(profiles)
    if len(units) < leaf_size:
        raise LayoutError(f"{len(units)} nodes cannot fill a leaf of {leaf_size}.")
    padded = list(leaves)
    for block in _blocks_of_leaves(leaves, leaf_size, len(units)):
        members = np.stack([leaves[i] for i in block])
        nearest = units[members[:, 0]] @ units.T
        for own in members.T[1:]:
            np.maximum(nearest, units[own] @ units.T, out=nearest)
        np.put_along_axis(nearest, members, -np.inf, axis=1)
        for row, i in enumerate(block):
            padding = _largest(nearest[row], leaf_size - len(leaves[i]))
            padded[i] = np.concatenate([leaves[i], padding])
    return padded


def _blocks_of_leaves(leaves: Sequence[Nodes], leaf_size: int, nodes: int) -> Iterator[list[int]]:
    """Groups of equal leaves that lack nodes, as many at a time as the memory allows."""
    lacking: dict[int, list[int]] = {}
    for i, leaf in enumerate(leaves):
        if len(leaf) < leaf_size:
            lacking.setdefault(len(leaf), []).append(i)
    # Two blocks are held: the maximum so far, and what is compared with it.
    at_once = max(1, BLOCK_BYTES // (2 * 8 * nodes))
    for equal in lacking.values():
        for first in range(0, len(equal), at_once):
            yield equal[first : first + at_once]


def _largest(values: NDArray[np.float64], count: int) -> Nodes:
    """Indices of the `count` largest values, from the largest; ties in ascending index."""
    if count == 1:
        # The published settings leave a leaf one short at most, and this is much faster.
        return np.array([values.argmax()])
    threshold = np.partition(values, len(values) - count)[len(values) - count]
    candidates = np.flatnonzero(values >= threshold)
    return candidates[np.argsort(-values[candidates], kind="stable")][:count]
