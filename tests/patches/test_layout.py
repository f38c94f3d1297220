"""Layouts: every node has one slot, gather then scatter is the identity, and padding is bounded."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowpatch.errors import LayoutError
from flowpatch.patches.kdtree import split_equal, split_leaves
from flowpatch.patches.layout import (
    PatchLayout,
    balanced_layout,
    default_depth,
    default_patches,
    paper_layout,
)
from flowpatch.patches.similarity import pad_leaves

Coordinates = NDArray[np.float64]
STEPS_A_DAY = 6
SENSORS = ("sd", "gba", "gla", "ca")
PUBLISHED = {  # depth, leaf size, factors, padding in per cent
    "sd": (9, 2, 32, 43),
    "gba": (11, 2, 128, 74),
    "gla": (11, 2, 32, 7),
    "ca": (12, 3, 8, 43),
}


def places(nodes: int, seed: int = 0, *, tied: bool = False) -> Coordinates:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 3, (nodes, 2)) * 1.0 if tied else generator.random((nodes, 2))


def profiles_of(nodes: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal((STEPS_A_DAY, nodes))


def no_profiles() -> NDArray[np.float64]:
    raise AssertionError("nothing needs padding, so nothing should read the series")


def paper(points: Coordinates, **settings: Any) -> PatchLayout:
    return paper_layout(points, lambda: profiles_of(len(points)), **settings)


def sensors(shared: Path, name: str) -> Coordinates:
    path = shared / "reference" / "sensors" / f"{name}_meta.csv"
    return np.loadtxt(path, delimiter=",", skiprows=1, usecols=(1, 2))


def check_gather_then_scatter(layout: PatchLayout, nodes: int) -> None:
    values = np.random.default_rng(0).random((2, nodes))
    gathered = values[:, layout.slots.ravel()].reshape(2, layout.patches, layout.patch_size)
    np.testing.assert_array_equal(gathered.reshape(2, -1)[:, layout.slot_of_node], values)
    assert len(set(layout.slot_of_node.tolist())) == nodes
    assert layout.padding_share == pytest.approx(layout.slots.size / nodes - 1)


def padding_of(layout: PatchLayout) -> list[list[int]]:
    """For each patch, the nodes shown in slots where no node stands."""
    is_padding = np.ones(layout.slots.size, dtype=bool)
    is_padding[layout.slot_of_node] = False
    rows = is_padding.reshape(layout.slots.shape)
    return [row[pads].tolist() for row, pads in zip(layout.slots, rows, strict=True)]


# Balanced


@settings(deadline=None)
@given(nodes=st.integers(1, 30), tied=st.booleans(), seed=st.integers(0, 99), data=st.data())
def test_balanced_patches_hold_every_node_once_and_at_most_one_padding(
    nodes: int, tied: bool, seed: int, data: st.DataObject
) -> None:
    points = places(nodes, seed, tied=tied)
    patches = data.draw(st.none() | st.integers(1, nodes))
    layout = balanced_layout(points, patches)
    check_gather_then_scatter(layout, nodes)
    assert layout.kind == "balanced"
    assert layout.patches == (patches or default_patches(nodes))
    assert all(len(padding) <= 1 for padding in padding_of(layout))


@settings(deadline=None)
@given(nodes=st.integers(2, 30), tied=st.booleans(), seed=st.integers(0, 99), data=st.data())
def test_balanced_padding_is_the_nearest_node_outside_the_patch(
    nodes: int, tied: bool, seed: int, data: st.DataObject
) -> None:
    points = places(nodes, seed, tied=tied)
    layout = balanced_layout(points, data.draw(st.integers(1, nodes)))
    parts = split_equal(points, layout.patches)
    for part, row, padding in zip(parts, layout.slots, padding_of(layout), strict=True):
        assert row[: len(part)].tolist() == part.tolist()
        centre = points[part].mean(axis=0)
        outside = [node for node in range(nodes) if node not in part]
        nearest = sorted(outside, key=lambda node: ((points[node] - centre) ** 2).sum())[:1]
        assert padding == (nearest if len(part) < layout.patch_size else [])


@pytest.mark.parametrize("name", SENSORS)
def test_balanced_default_wastes_under_two_per_cent_on_real_sensors(
    shared: Path, name: str
) -> None:
    points = sensors(shared, name)
    layout = balanced_layout(points)
    check_gather_then_scatter(layout, len(points))
    assert 0 <= layout.padding_share < 0.02
    root = len(points) ** 0.5
    assert root / 1.6 < layout.patches < root * 1.6


def test_balanced_default_wastes_under_four_per_cent_of_any_hundred_nodes_or_more() -> None:
    def share(nodes: int) -> float:
        patches = default_patches(nodes)
        return -(-nodes // patches) * patches / nodes - 1

    assert max(share(nodes) for nodes in range(100, 3000)) < 0.04


@pytest.mark.parametrize("patches", [-1, 0, 13])
def test_balanced_names_the_numbers_of_patches_that_fit(patches: int) -> None:
    with pytest.raises(LayoutError, match=rf"12 nodes .* {patches} patches.* 1\.\.12"):
        balanced_layout(places(12), patches)


# Paper


@st.composite
def paper_settings(draw: st.DrawFn) -> tuple[int, dict[str, int]]:
    nodes = draw(st.integers(1, 30))
    depth = draw(st.integers(0, nodes.bit_length() - 1))
    leaf_size = draw(st.integers(-(-nodes // 2**depth), nodes))
    factors = 2 ** draw(st.integers(0, depth))
    return nodes, {"depth": depth, "leaf_size": leaf_size, "factors": factors}


@settings(deadline=None)
@given(drawn=paper_settings(), seed=st.integers(0, 99), tied=st.booleans())
def test_paper_slots_are_the_leaves_in_order_each_with_its_padding(
    drawn: tuple[int, dict[str, int]], seed: int, tied: bool
) -> None:
    nodes, settings = drawn
    points, profiles = places(nodes, seed, tied=tied), profiles_of(nodes, seed)
    layout = paper_layout(points, lambda: profiles, **settings)
    leaves = split_leaves(points, settings["depth"])
    padded = pad_leaves(leaves, settings["leaf_size"], profiles)
    assert layout.kind == "paper"
    assert layout.slots.ravel().tolist() == np.concatenate(padded).tolist()
    assert layout.patches == 2 ** settings["depth"] // settings["factors"]
    assert layout.patch_size == settings["leaf_size"] * settings["factors"]
    check_gather_then_scatter(layout, nodes)
    for row, leaf in enumerate(leaves):
        first = row * settings["leaf_size"]
        assert layout.slot_of_node[leaf].tolist() == list(range(first, first + len(leaf)))


@pytest.mark.parametrize("nodes", range(1, 31))
def test_defaults_fit_any_number_of_nodes(nodes: int) -> None:
    points = places(nodes, tied=True)
    for layout in (paper(points), balanced_layout(points)):
        check_gather_then_scatter(layout, nodes)
    assert paper(points).padding_share < 0.5
    leaves = split_leaves(points, default_depth(nodes))
    assert min(map(len, leaves)) >= min(nodes, 2)
    deeper = split_leaves(points, default_depth(nodes) + 1)
    assert min(map(len, deeper)) < 2


@pytest.mark.parametrize("name", SENSORS)
def test_published_settings_waste_what_was_published(shared: Path, name: str) -> None:
    points = sensors(shared, name)
    depth, leaf_size, factors, per_cent = PUBLISHED[name]
    layout = paper(points, depth=depth, leaf_size=leaf_size, factors=factors)
    check_gather_then_scatter(layout, len(points))
    assert round(100 * layout.padding_share) == per_cent
    assert layout.slots.shape == (2**depth // factors, leaf_size * factors)
    leaves = layout.slots.reshape(-1, leaf_size)
    assert all(len(set(leaf)) == leaf_size for leaf in leaves.tolist())


def test_paper_reads_no_profile_where_every_leaf_is_full() -> None:
    layout = paper_layout(places(16), no_profiles, depth=2, leaf_size=4, factors=2)
    assert layout.padding_share == 0


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"depth": 4}, r"--depth 4 does not fit 12 nodes.*Set --depth to 0\.\.3; 2 keeps"),
        ({"depth": -1}, r"--depth -1 does not fit 12 nodes.*Set --depth to 0\.\.3; 2 keeps"),
        ({"depth": 10**6}, r"--depth 1000000 does not fit 12 nodes.*Set --depth to 0\.\.3"),
        ({"depth": 2, "factors": 3}, "--factors 3 does not divide the 4 leaves.*: 1, 2, 4"),
        ({"depth": 2, "factors": 8}, "--factors 8 does not divide the 4 leaves.*: 1, 2, 4"),
        ({"depth": 2, "factors": 0}, "--factors 0 does not divide the 4 leaves.*: 1, 2, 4"),
        (
            {"depth": 1, "leaf_size": 3},
            r"up to 6 a leaf, more than --leaf-size 3. Set .*to 6\.\.12, or --depth to 2\.\.3\.",
        ),
        ({"depth": 2, "leaf_size": 1}, r"--leaf-size 1. Set --leaf-size to 3\.\.12\.$"),
        ({"depth": 2, "leaf_size": 13}, r"--leaf-size 13 is more than the 12.* to 3\.\.12; 3"),
    ],
)
def test_paper_names_what_would_fit(settings: dict[str, int], advice: str) -> None:
    with pytest.raises(LayoutError, match=advice):
        paper(places(12), **settings)


@settings(deadline=None)
@given(nodes=st.integers(2, 30), data=st.data())
def test_a_leaf_size_that_is_too_small_is_told_every_depth_that_fits(
    nodes: int, data: st.DataObject
) -> None:
    points = places(nodes)
    leaf_size = data.draw(st.integers(1, nodes - 1))
    with pytest.raises(LayoutError) as caught:
        paper(points, depth=0, leaf_size=leaf_size, factors=1)
    named = re.search(r"--depth to (\d+)\.\.(\d+)\.", str(caught.value))
    fitting = range(int(named[1]), int(named[2]) + 1) if named else range(0)
    for depth in range(nodes.bit_length()):
        if depth in fitting:
            layout = paper(points, depth=depth, leaf_size=leaf_size, factors=1)
            check_gather_then_scatter(layout, nodes)
        else:
            with pytest.raises(LayoutError):
                paper(points, depth=depth, leaf_size=leaf_size, factors=1)


def test_layouts_do_not_change_from_call_to_call() -> None:
    points = places(29, tied=True)
    for make in (balanced_layout, paper):
        first, second = make(points), make(points)
        np.testing.assert_array_equal(first.slots, second.slots)
        np.testing.assert_array_equal(first.slot_of_node, second.slot_of_node)


# What a layout refuses


@pytest.mark.parametrize(
    ("slots", "slot_of_node"),
    [
        ([[0, 1], [2, 0]], [0, 1]),  # shows node 2 of 2
        ([[0, 1], [2, -1]], [0, 1, 2]),  # shows node -1
        ([[0, 1], [2, 0]], [0, 1, 4]),  # stands outside
        ([[0, 1], [2, 0]], [0, 1, -2]),  # stands before the first slot, where 2 is shown
        ([[0, 1], [2, 0]], [0, 1, 1]),  # two nodes in one slot
        ([[0, 1], [2, 0]], [1, 0, 2]),  # stands where another is shown
        ([0, 1, 2], [0, 1, 2]),  # slots without patches
        ([[[0, 1, 2]]], [0, 1, 2]),  # one dimension too many
        ([[0, 1, 2]], [[0, 1, 2]]),  # positions not flat
        ([[]], []),  # no node
    ],
)
def test_a_layout_that_contradicts_itself_is_refused(slots: Any, slot_of_node: Any) -> None:
    with pytest.raises(LayoutError, match="does not give each node a slot of its own"):
        PatchLayout(
            "balanced", np.array(slots, dtype=np.int64), np.array(slot_of_node, dtype=np.int64)
        )


def test_a_node_may_stand_at_any_slot_that_shows_it() -> None:
    layout = PatchLayout("balanced", np.array([[0, 1], [2, 0]]), np.array([3, 1, 2]))
    assert (layout.patches, layout.patch_size) == (2, 2)
    assert layout.padding_share == pytest.approx(1 / 3)
