"""The node table: one order whatever the file's, no key twice, no node without a place."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowpatch.errors import NodeTableError
from flowpatch.series.nodes import NodeTable, locate
from flowpatch.sources.contract import NODE_WITHOUT_COORDINATES, KeyColumn, NodeRecords


def column(values: list[int] | list[str]) -> KeyColumn:
    numbers = all(isinstance(value, int) for value in values)
    return np.array(values, dtype=np.int64 if numbers else object)


def records(*keys: list[int] | list[str], latitude: list[float] | None = None) -> NodeRecords:
    count = len(keys[0])
    return NodeRecords(
        tuple(f"key{i}" for i in range(len(keys))),
        tuple(column(values) for values in keys),
        np.array(latitude if latitude is not None else np.arange(count), dtype=np.float64),
        np.ones(count),
    )


def test_numbers_sort_by_value_and_text_by_code_point() -> None:
    assert locate(records([10, 9, -1])).table.keys[0].tolist() == [-1, 9, 10]
    sorted_text = locate(records(["b", "10", "9", "B", "é", "中"])).table.keys[0].tolist()
    assert sorted_text == ["10", "9", "B", "b", "é", "中"]


def test_the_first_key_column_sorts_first() -> None:
    table = locate(records([2, 1, 1], ["a", "b", "a"])).table
    assert table.labels.tolist() == ["1->a", "1->b", "2->a"]
    assert table.latitude.tolist() == [2, 1, 0]


@given(
    st.lists(
        st.tuples(st.integers(-9, 9), st.text("ab0", max_size=2), st.booleans()),
        min_size=1, max_size=20, unique_by=lambda node: node[:2],
    ).filter(lambda nodes: any(node[2] for node in nodes)),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_the_order_of_rows_changes_nothing_and_every_node_keeps_its_place(nodes, random) -> None:
    def located(rows):
        latitude = [float(a) if placed else float("nan") for a, _, placed in rows]
        return locate(records([a for a, _, _ in rows], [b for _, b, _ in rows], latitude=latitude))

    shuffled = random.sample(nodes, len(nodes))
    first, second = located(nodes), located(shuffled)
    assert second.table.fingerprint() == first.table.fingerprint()
    assert second.index.index.tolist() == first.index.index.tolist()

    placed = sorted((a, b) for a, b, found in nodes if found)
    assert list(zip(*(key.tolist() for key in first.table.keys), strict=True)) == placed
    assert first.table.latitude.tolist() == [a for a, _ in placed]
    assert first.without_coordinates == len(nodes) - len(placed)
    for (a, b), index in zip(
        zip(*first.index.keys, strict=True), first.index.index.tolist(), strict=True
    ):
        expected = placed.index((a, b)) if (a, b) in placed else NODE_WITHOUT_COORDINATES
        assert index == expected


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_node_with_half_a_coordinate_has_none(bad: float) -> None:
    located = locate(records([1, 2], latitude=[bad, 5.0]))
    assert located.without_coordinates == 1
    assert located.table.keys[0].tolist() == [2]


def test_repeated_keys_are_counted_and_named() -> None:
    with pytest.raises(NodeTableError, match=r"repeats 2 keys, such as key0=7; key0=7.*--node-col"):
        locate(records([7, 8, 7, 7]))


def test_a_key_repeats_only_where_all_its_columns_do() -> None:
    assert len(locate(records([1, 1, 2], ["a", "b", "a"])).table) == 3
    with pytest.raises(NodeTableError, match=r"repeats 1 keys, such as key0=1, key1=b"):
        locate(records([1, 1, 1], ["a", "b", "b"]))


def test_a_repeat_counts_even_if_only_one_of_the_two_has_a_place() -> None:
    with pytest.raises(NodeTableError, match="repeats 1 keys"):
        locate(records([1, 1], latitude=[float("nan"), 5.0]))


def test_an_empty_table_and_one_without_any_place_are_refused() -> None:
    with pytest.raises(NodeTableError, match=r"no rows.*--nodes and --adcode"):
        locate(NodeRecords(("a",), (np.empty(0, np.int64),), np.empty(0), np.empty(0)))
    with pytest.raises(NodeTableError, match=r"No node has coordinates.*--lat-column"):
        locate(records([1, 2], latitude=[float("nan")] * 2))


@pytest.mark.parametrize("keys", [[[3, 1]], [["007", "7"]], [[3, 1], ["a", "中->"]]])
def test_a_table_survives_json(keys) -> None:
    table = locate(records(*keys)).table
    back = NodeTable.from_json(json.loads(json.dumps(table.to_json())))
    assert back.fingerprint() == table.fingerprint()
    assert [key.dtype for key in back.keys] == [key.dtype for key in table.keys]
    assert back.labels.tolist() == table.labels.tolist()


def test_the_fingerprint_tells_names_keys_types_and_places_apart() -> None:
    tables = [
        locate(records([1, 2])).table,
        locate(records(["1", "2"])).table,
        locate(records([1, 3])).table,
        locate(records([1, 2], latitude=[0.0, 1.0000001])).table,
        locate(NodeRecords(("x",), (column([1, 2]),), np.arange(2.0), np.arange(2.0))).table,
    ]
    assert len({table.fingerprint() for table in tables}) == len(tables)


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        NodeRecords(("a",), (column([1, 2]),), np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="differ in length or number"):
        NodeRecords(("a", "b"), (column([1, 2]),), np.zeros(2), np.zeros(2))
