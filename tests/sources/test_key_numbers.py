"""Nodes found by the numbers of their keys against a dictionary."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowpatch.sources import key_numbers
from flowpatch.sources.contract import NODE_WITHOUT_COORDINATES, UNKNOWN_NODE, NodeIndex
from flowpatch.sources.key_numbers import KeyNumbers

INT64 = np.iinfo(np.int64)
keys = st.integers(-3, 3) | st.integers(INT64.min, INT64.max)


def node_index(rows: list[tuple[int, ...]]) -> NodeIndex:
    index = np.arange(len(rows), dtype=np.int32)
    index[-1] = NODE_WITHOUT_COORDINATES
    columns = tuple(np.array(column, np.int64) for column in zip(*rows, strict=True))
    return NodeIndex(("a", "b")[: len(columns)], columns, index)


def nodes_of(numbers: KeyNumbers, rows: list[tuple[int, ...]]) -> list[int]:
    columns = [np.array(column, np.int64) for column in zip(*rows, strict=True)]
    return numbers.nodes([numbers.number(i, keys) for i, keys in enumerate(columns)]).tolist()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    known=st.lists(st.tuples(keys, keys), min_size=1, max_size=60, unique=True),
    others=st.lists(st.tuples(keys, keys), max_size=20),
    columns=st.sampled_from([1, 2]),
    rooms=st.sampled_from([(), key_numbers._ROOMS]),
)
def test_nodes_are_those_of_a_dictionary(
    known: list[tuple[int, int]],
    others: list[tuple[int, int]],
    columns: int,
    rooms: tuple[int, ...],
) -> None:
    rows = list({row[:columns]: None for row in known})
    # Keys of the node table, in other pairs.
    mixed = [(one[0], two[-1])[:columns] for one, two in zip(known, reversed(known), strict=True)]
    asked = [*rows, *mixed, *(row[:columns] for row in others)]
    nodes = node_index(rows)
    expected = dict(zip(rows, nodes.index.tolist(), strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key_numbers, "_ROOMS", rooms)
        found = nodes_of(KeyNumbers(nodes), asked)
    assert found == [expected.get(row, UNKNOWN_NODE) for row in asked]


@pytest.mark.parametrize(
    ("rows", "columns", "share", "is_laid"),
    [(60, 60, 1.0, True), (1, 5000, 1.0, True), (5000, 1, 1.0, True), (300, 8000, 0.05, False)],
)
def test_rows_that_meet_wherever_they_are_laid_are_looked_up_in_pairs(
    rows: int, columns: int, share: float, is_laid: bool
) -> None:
    generator = np.random.default_rng(1)
    there = np.argwhere(generator.random((rows, columns)) < share)
    pairs = [(int(one) * 7, int(two) * 13) for one, two in there]
    numbers = KeyNumbers(node_index(pairs))
    assert (numbers._table is not None) == is_laid
    expected = node_index(pairs).index.tolist()
    assert nodes_of(numbers, pairs) == expected
    assert set(nodes_of(numbers, [(one + 1, two) for one, two in pairs])) == {UNKNOWN_NODE}
