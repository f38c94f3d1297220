"""The published padding as it is published: all similarities at once, N x N."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def similarity(profiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, N) exp of the z-score of the cosine similarity of (steps_a_day, N) daily profiles."""
    units = profiles / np.linalg.norm(profiles, axis=0)
    cosine = units.T @ units
    scaled: NDArray[np.float64] = np.exp((cosine - cosine.mean()) / cosine.std())
    return scaled


def pad_leaves(
    leaves: Sequence[NDArray[np.int64]], leaf_size: int, profiles: NDArray[np.float64]
) -> list[NDArray[np.int64]]:
    """Each leaf filled to `leaf_size` nodes with the nodes elsewhere most similar to its own.

    All entries of the rows of its own nodes are sorted from high to low; each node that turns up
    for the first time is taken, until the leaf is full.
    """
    all_similar = similarity(profiles)
    nodes = len(all_similar)
    padded = []
    for leaf in leaves:
        chosen = list(leaf)
        if len(chosen) == leaf_size:
            padded.append(leaf)
            continue
        rows = all_similar[leaf]
        rows[:, leaf] = 0
        for position in np.argsort(-rows, axis=None, kind="stable"):
            if len(chosen) == leaf_size:
                break
            if position % nodes not in chosen:
                chosen.append(position % nodes)
        padded.append(np.array(chosen))
    return padded
