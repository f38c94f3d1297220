"""A KD-tree over node coordinates, cut by latitude and longitude in turn, latitude first.

Two ways to stop: `split_leaves` halves a given number of times, as published; `split_equal` cuts
any number of parts whose sizes differ by at most one. Nodes of one coordinate are told apart by
their index, that is by their key, so a tree never depends on the order of a file.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Nodes = NDArray[np.int64]


def split_leaves(coordinates: NDArray[np.float64], depth: int) -> list[Nodes]:
    """The 2**depth leaves of the published tree, each in ascending node index.

    A part of n nodes is sorted by its axis and cut at floor(n / 2), lower half first.

    Args:
        coordinates: (N, 2) latitude and longitude.
        depth: how often to halve.
    """
    parts = [np.arange(len(coordinates))]
    for level in range(depth):
        axis = level % 2
        parts = [
            np.sort(half)
            for part in parts
            for half in _halves(part, coordinates[:, axis], len(part) // 2)
        ]
    return parts


def split_equal(coordinates: NDArray[np.float64], parts: int) -> list[Nodes]:
    """`parts` parts whose sizes differ by at most one, neighbours next to each other.

    A part is cut on, down to single nodes, to order its nodes: near nodes stand at near places,
    so the same place in two parts means about the same place in space.

    Args:
        coordinates: (N, 2) latitude and longitude, N >= parts.
        parts: how many parts, 1 or more; not only powers of two.
    """
    return [
        np.concatenate(list(_cut(part, coordinates, len(part), axis)))
        for part, axis in _cut_with_axis(np.arange(len(coordinates)), coordinates, parts, 0)
    ]


def _cut(nodes: Nodes, coordinates: NDArray[np.float64], parts: int, axis: int) -> Iterator[Nodes]:
    return (part for part, _ in _cut_with_axis(nodes, coordinates, parts, axis))


def _cut_with_axis(
    nodes: Nodes, coordinates: NDArray[np.float64], parts: int, axis: int
) -> Iterator[tuple[Nodes, int]]:
    """Yields each part with the axis along which it would be cut next."""
    if parts == 1:
        yield nodes, axis
        return
    lower_parts = parts // 2
    size, extra = divmod(len(nodes), parts)
    # The first `extra` parts are one larger; the lower side takes its share of them.
    lower_size = lower_parts * size + min(extra, lower_parts)
    lower, upper = _halves(nodes, coordinates[:, axis], lower_size)
    yield from _cut_with_axis(lower, coordinates, lower_parts, 1 - axis)
    yield from _cut_with_axis(upper, coordinates, parts - lower_parts, 1 - axis)


def _halves(nodes: Nodes, along: NDArray[np.float64], lower_size: int) -> tuple[Nodes, Nodes]:
    # Nodes come in any order here; sorting by index first breaks ties by it.
    nodes = np.sort(nodes)
    order = nodes[np.argsort(along[nodes], kind="stable")]
    return order[:lower_size], order[lower_size:]
