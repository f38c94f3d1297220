"""Daily profiles, and the paper's padding against the published rule over all pairs."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray

from flowpatch.errors import LayoutError
from flowpatch.patches import similarity
from flowpatch.patches.similarity import (
    daily_profiles,
    pad_leaves,
    scaled_similarity,
    unit_profiles,
)

Profiles = NDArray[np.float64]
Leaves = list[NDArray[np.int64]]

VALUES = st.one_of(st.just(math.nan), st.floats(-1e3, 1e3, width=32))


# Profiles


def plain_profiles(
    days: list[NDArray[np.float32]], steps_a_day: int, nodes: int
) -> list[list[float]]:
    seen: list[list[list[float]]] = [[[] for _ in range(nodes)] for _ in range(steps_a_day)]
    for day in days:
        if len(day) == steps_a_day:
            for step in range(steps_a_day):
                for node in range(nodes):
                    if not math.isnan(day[step, node]):
                        seen[step][node].append(float(day[step, node]))
    profile = [[0.0] * nodes for _ in range(steps_a_day)]
    for node in range(nodes):
        everything = [value for step in range(steps_a_day) for value in seen[step][node]]
        own_mean = math.fsum(everything) / len(everything) if everything else 0.0
        for step in range(steps_a_day):
            values = seen[step][node]
            profile[step][node] = math.fsum(values) / len(values) if values else own_mean
    return profile


@settings(deadline=None)
@given(
    days=st.lists(
        st.sampled_from([2, 3, 4]).flatmap(
            lambda steps: st_numpy.arrays(np.float32, (steps, 3), elements=VALUES)
        ),
        max_size=5,
    )
)
def test_profiles_are_those_of_a_plain_loop(days: list[NDArray[np.float32]]) -> None:
    found = daily_profiles(iter(days), 4, 3)
    np.testing.assert_allclose(found, plain_profiles(days, 4, 3), rtol=1e-9, atol=1e-9)


def test_a_day_cut_short_counts_for_nothing() -> None:
    day = np.array([[1.0], [3.0]], dtype=np.float32)
    short = np.array([[100.0]], dtype=np.float32)
    assert daily_profiles(iter([day, short]), 2, 1).tolist() == [[1.0], [3.0]]


def test_what_was_never_observed_takes_the_mean_of_its_node() -> None:
    nan = math.nan
    day = np.array([[2.0, nan], [nan, nan], [4.0, nan]], dtype=np.float32)
    assert daily_profiles(iter([day]), 3, 2).tolist() == [[2.0, 0.0], [3.0, 0.0], [4.0, 0.0]]


def test_unit_profiles_have_length_one_and_zeros_stay_zero() -> None:
    units = unit_profiles(np.array([[3.0, 0.0, 1e-100], [4.0, 0.0, 0.0]]))
    assert units.shape == (3, 2)
    np.testing.assert_allclose(units, [[0.6, 0.8], [0.0, 0.0], [1.0, 0.0]], rtol=1e-15)


def test_scaled_similarity_is_exp_of_the_z_score_of_the_cosine() -> None:
    profiles = np.random.default_rng(0).standard_normal((6, 5))
    cosine = [
        [
            sum(profiles[:, a] * profiles[:, b])
            / math.sqrt(sum(profiles[:, a] ** 2) * sum(profiles[:, b] ** 2))
            for b in range(5)
        ]
        for a in range(5)
    ]
    flat = [value for row in cosine for value in row]
    mean = sum(flat) / 25
    deviation = math.sqrt(sum((value - mean) ** 2 for value in flat) / 25)
    expected = [[math.exp((value - mean) / deviation) for value in row] for row in cosine]
    np.testing.assert_allclose(scaled_similarity(profiles), expected, rtol=1e-12)


# Padding


def published_padding(leaves: Leaves, leaf_size: int, profiles: Profiles) -> list[list[int]]:
    """All pairs of a leaf from the most to the least similar; each new column is kept."""
    dense = scaled_similarity(profiles)
    padded = []
    for leaf in leaves:
        rows = dense[leaf].copy()
        rows[:, leaf] = 0
        kept = leaf.tolist()
        for position in np.argsort(-rows, axis=None, kind="stable"):
            column = int(position) % rows.shape[1]
            if len(kept) < leaf_size and column not in kept:
                kept.append(column)
        padded.append(kept)
    return padded


@st.composite
def leaves_to_pad(draw: st.DrawFn) -> tuple[Leaves, int, int]:
    """Leaves of 1 or more nodes in any order, a leaf size that holds them, the number of nodes."""
    nodes = draw(st.integers(2, 24))
    borders = sorted(draw(st.sets(st.integers(1, nodes - 1), max_size=6)))
    order = np.array(draw(st.permutations(range(nodes))))
    leaves = [np.sort(part) for part in np.split(order, borders)]
    leaf_size = draw(st.integers(max(map(len, leaves)), nodes))
    return leaves, leaf_size, nodes


@settings(deadline=None)
@given(
    drawn=leaves_to_pad(),
    seed=st.integers(0, 2**32 - 1),
    block_bytes=st.sampled_from([1, 1000, 128 * 2**20]),
)
def test_padding_is_the_published_rule_over_all_pairs(
    drawn: tuple[Leaves, int, int], seed: int, block_bytes: int
) -> None:
    leaves, leaf_size, nodes = drawn
    profiles = np.random.default_rng(seed).standard_normal((7, nodes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "BLOCK_BYTES", block_bytes)
        padded = pad_leaves(leaves, leaf_size, profiles)
    assert [leaf.tolist() for leaf in padded] == published_padding(leaves, leaf_size, profiles)


def test_the_two_most_similar_nodes_come_in_order_of_similarity() -> None:
    angles = np.array([0.0, 0.5, 0.1, 0.3, -0.2])
    profiles = np.stack([np.cos(angles), np.sin(angles)])
    leaves = [np.array([0]), np.array([1, 2, 3, 4])]
    assert pad_leaves(leaves, 4, profiles)[0].tolist() == [0, 2, 4, 3]


def test_a_full_leaf_stays_as_it_is_and_input_is_not_changed() -> None:
    leaves = [np.array([3, 4]), np.array([0]), np.array([1, 2])]
    before = [leaf.copy() for leaf in leaves]
    padded = pad_leaves(leaves, 2, np.random.default_rng(1).random((4, 5)))
    assert padded[0].tolist() == [3, 4]
    assert padded[2].tolist() == [1, 2]
    assert all(np.array_equal(a, b) for a, b in zip(leaves, before, strict=True))


@settings(deadline=None)
@given(drawn=leaves_to_pad(), block_bytes=st.sampled_from([1, 128 * 2**20]))
def test_nodes_that_are_alike_are_taken_in_order_of_index(
    drawn: tuple[Leaves, int, int], block_bytes: int
) -> None:
    leaves, leaf_size, nodes = drawn
    # Irrational entries, and as many as make a matrix product add up in more than one order.
    one = np.random.default_rng(5).standard_normal(288)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "BLOCK_BYTES", block_bytes)
        padded = pad_leaves(leaves, leaf_size, np.repeat(one[:, None], nodes, axis=1))
    for leaf, full in zip(leaves, padded, strict=True):
        others = np.setdiff1d(np.arange(nodes), leaf)
        assert full.tolist() == [*leaf, *others[: leaf_size - len(leaf)]]


def test_a_profile_of_zeros_is_similar_to_none() -> None:
    profiles = np.array([[1.0, 0.0, -1.0, 1.0], [1.0, 0.0, -1.0, 0.0]])
    leaves = [np.array([0]), np.array([1]), np.array([2]), np.array([3])]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        padded = pad_leaves(leaves, 3, profiles)
    # Similar first, then the one similar to none, then the opposite; zeros take who comes first.
    assert [leaf.tolist() for leaf in padded] == [[0, 3, 1], [1, 0, 2], [2, 1, 3], [3, 0, 1]]


def test_a_leaf_larger_than_all_nodes_is_refused() -> None:
    with pytest.raises(LayoutError, match="2 nodes cannot fill a leaf of 3"):
        pad_leaves([np.array([0]), np.array([1])], 3, np.ones((4, 2)))
