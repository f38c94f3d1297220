"""The KD-tree against plain recursion, with ties, and independent of the order of a file."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray

from flowpatch.patches.kdtree import split_equal, split_leaves
from flowpatch.series.nodes import NodeTable, locate
from flowpatch.sources.contract import NodeRecords

Coordinates = NDArray[np.float64]

# A grid of few values: ties along one axis and nodes at one place are the rule.
TIED = st.sampled_from([-1.0, -0.0, 0.0, 0.5, 2.0])


def coordinates(
    at_least: int = 1, at_most: int = 40, values: st.SearchStrategy[float] = TIED
) -> st.SearchStrategy[Coordinates]:
    shapes = st.integers(at_least, at_most).map(lambda nodes: (nodes, 2))
    return shapes.flatmap(lambda shape: st_numpy.arrays(np.float64, shape, elements=values))


def sorted_along(points: Coordinates, nodes: list[int], axis: int) -> list[int]:
    return sorted(nodes, key=lambda node: (points[node][axis], node))


def plain_leaves(
    points: Coordinates, nodes: list[int], depth: int, axis: int = 0
) -> list[list[int]]:
    if depth == 0:
        return [sorted(nodes)]
    order = sorted_along(points, nodes, axis)
    half = len(order) // 2
    return [
        leaf
        for side in (order[:half], order[half:])
        for leaf in plain_leaves(points, side, depth - 1, 1 - axis)
    ]


def plain_parts(
    points: Coordinates, nodes: list[int], sizes: list[int], axis: int
) -> Iterator[tuple[list[int], int]]:
    """Cuts nodes into parts of the given sizes, the first half of the sizes on the lower side."""
    if len(sizes) == 1:
        yield nodes, axis
        return
    order = sorted_along(points, nodes, axis)
    middle = len(sizes) // 2
    border = sum(sizes[:middle])
    yield from plain_parts(points, order[:border], sizes[:middle], 1 - axis)
    yield from plain_parts(points, order[border:], sizes[middle:], 1 - axis)


def plain_equal(points: Coordinates, parts: int) -> list[list[int]]:
    size, larger = divmod(len(points), parts)
    sizes = [size + 1] * larger + [size] * (parts - larger)
    return [
        [single for (single,), _ in plain_parts(points, part, [1] * len(part), axis)]
        for part, axis in plain_parts(points, list(range(len(points))), sizes, 0)
    ]


def as_lists(parts: list[NDArray[np.int64]]) -> list[list[int]]:
    return [part.tolist() for part in parts]


# The published tree


@settings(deadline=None)
@given(points=coordinates(), depth=st.integers(0, 6))
def test_leaves_are_those_of_plain_recursion(points: Coordinates, depth: int) -> None:
    expected = plain_leaves(points, list(range(len(points))), depth)
    assert as_lists(split_leaves(points, depth)) == expected


def test_a_tree_of_four_leaves() -> None:
    # Latitude halves first: 3, 0, 4 below, 2, 5, 1 above; then each side by longitude.
    points = np.array([[1.0, 9.0], [6.0, 1.0], [4.0, 5.0], [0.0, 8.0], [2.0, 7.0], [5.0, 6.0]])
    assert as_lists(split_leaves(points, 2)) == [[4], [0, 3], [1], [2, 5]]


def test_nodes_at_one_place_are_told_apart_by_index() -> None:
    points = np.zeros((5, 2))
    assert as_lists(split_leaves(points, 1)) == [[0, 1], [2, 3, 4]]
    assert as_lists(split_equal(points, 2)) == [[0, 1, 2], [3, 4]]


def test_no_depth_is_one_leaf() -> None:
    assert as_lists(split_leaves(np.array([[2.0, 0.0], [1.0, 0.0]]), 0)) == [[0, 1]]


@pytest.mark.parametrize("name", ["sd", "gba", "gla"])
def test_real_sensors_split_as_plain_recursion_does(shared: Path, name: str) -> None:
    points = np.loadtxt(
        shared / "reference" / "sensors" / f"{name}_meta.csv",
        delimiter=",",
        skiprows=1,
        usecols=(1, 2),
    )
    expected = plain_leaves(points, list(range(len(points))), 6)
    assert as_lists(split_leaves(points, 6)) == expected


# Equal parts


@settings(deadline=None)
@given(points=coordinates(at_most=60), data=st.data())
def test_equal_parts_are_those_of_plain_recursion(points: Coordinates, data: st.DataObject) -> None:
    parts = data.draw(st.integers(1, len(points)))
    assert as_lists(split_equal(points, parts)) == plain_equal(points, parts)


@settings(deadline=None)
@given(points=coordinates(at_most=200, values=st.floats(-180, 180)), data=st.data())
def test_equal_parts_hold_each_node_once_and_differ_by_at_most_one(
    points: Coordinates, data: st.DataObject
) -> None:
    parts = split_equal(points, data.draw(st.integers(1, len(points))))
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(points)))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


def test_parts_and_places_follow_the_map() -> None:
    # A grid of 4 x 4: node 4 * row + column at latitude row, longitude column. Parts are its
    # quadrants, and the same place in each is the same corner.
    points = np.array([[row, column] for row in range(4) for column in range(4)], dtype=float)
    assert as_lists(split_equal(points, 4)) == [
        [0, 1, 4, 5],
        [2, 3, 6, 7],
        [8, 9, 12, 13],
        [10, 11, 14, 15],
    ]


def test_on_a_meridian_cuts_by_longitude_keep_to_the_index() -> None:
    points = np.array([[3.0, 0], [1.0, 0], [2.0, 0], [0.0, 0]])
    # Halved by latitude; the next cut, by longitude, finds only ties.
    assert as_lists(split_equal(points, 2)) == [[1, 3], [0, 2]]


# The order of a file


def trees_by_key(nodes: NodeTable, depth: int, parts: int) -> list[list[str]]:
    labels = nodes.labels.astype(str)
    trees = split_leaves(nodes.coordinates, depth) + split_equal(nodes.coordinates, parts)
    return [labels[part].tolist() for part in trees]


@settings(deadline=None)
@given(points=coordinates(at_least=2, at_most=20), data=st.data())
def test_the_order_of_the_node_table_changes_nothing(
    points: Coordinates, data: st.DataObject
) -> None:
    nodes = len(points)
    keys = np.array(data.draw(st.permutations(range(100, 100 + nodes))))
    order = np.array(data.draw(st.permutations(range(nodes))))
    depth, parts = data.draw(st.integers(0, 4)), data.draw(st.integers(1, nodes))

    def table(rows: NDArray[np.int64]) -> NodeTable:
        latitude, longitude = points[rows].T.copy()
        return locate(NodeRecords(("sensor_id",), (keys[rows],), latitude, longitude)).table

    assert trees_by_key(table(order), depth, parts) == trees_by_key(
        table(np.arange(nodes)), depth, parts
    )


def test_links_of_both_directions_at_one_midpoint_stay_put_when_the_file_is_shuffled(
    shared: Path,
) -> None:
    with (shared / "data" / "aarhus" / "nodes.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    keys = np.array([int(row["sensor_id"]) for row in rows])
    points = np.array([[float(row["lat"]), float(row["lng"])] for row in rows])
    assert len(np.unique(points, axis=0)) < len(points)

    def trees(order: NDArray[np.int64]) -> list[list[str]]:
        latitude, longitude = points[order].T.copy()
        records = NodeRecords(("sensor_id",), (keys[order],), latitude, longitude)
        return trees_by_key(locate(records).table, depth=7, parts=21)

    shuffled = np.random.default_rng(3).permutation(len(keys))
    assert trees(shuffled) == trees(np.arange(len(keys)))
