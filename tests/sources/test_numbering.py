"""Compiled numbering against a dictionary and whole division."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flowpatch.sources.contract import NODE_WITHOUT_COORDINATES, UNKNOWN_NODE, NodeIndex
from flowpatch.sources.numbering import NodeNumbers

INT64 = np.iinfo(np.int64)
keys = st.integers(-3, 3) | st.integers(INT64.min, INT64.max)
MINUTE = 60_000_000


@settings(deadline=None)
@given(
    known=st.lists(st.tuples(keys, keys), min_size=1, max_size=60, unique=True),
    others=st.lists(st.tuples(keys, keys), max_size=20),
    columns=st.sampled_from([1, 2]),
    data=st.data(),
)
def test_nodes_are_those_of_a_dictionary(known, others, columns: int, data) -> None:
    rows = list({row[:columns]: None for row in known})
    index = np.arange(len(rows), dtype=np.int32)
    index[-1] = NODE_WITHOUT_COORDINATES
    table = NodeIndex(
        ("a", "b")[:columns],
        tuple(np.array([row[i] for row in rows], np.int64) for i in range(columns)),
        index,
    )
    asked = data.draw(st.permutations([*rows, *(row[:columns] for row in others)]))
    expected = dict(zip(rows, index.tolist(), strict=True))
    block = NodeNumbers(table).block(
        [np.array([row[i] for row in asked], np.int64) for i in range(columns)],
        np.zeros(len(asked), np.int64),
        np.zeros(len(asked), np.float32),
        0,
        MINUTE,
    )
    assert block.node.tolist() == [expected.get(row, UNKNOWN_NODE) for row in asked]


@settings(deadline=None)
@given(
    first_us=st.integers(-(2**53), 2**53),
    step_minutes=st.sampled_from([1, 5, 7 * 12, 60, 1440]),
    passed=st.lists(st.integers(0, 3660 * 1440), min_size=1),
    beside=st.sampled_from([-1, 0, 1, 999_999]),
)
def test_steps_are_those_of_whole_division(
    first_us: int, step_minutes: int, passed: list[int], beside: int
) -> None:
    """Instants on, just before and just behind the borders of steps."""
    instants = [first_us + max(0, minutes * MINUTE + beside) for minutes in passed]
    table = NodeIndex(("a",), (np.array([1]),), np.array([0], np.int32))
    block = NodeNumbers(table).block(
        [np.ones(len(instants), np.int64)],
        np.array(instants),
        np.zeros(len(instants), np.float32),
        first_us,
        step_minutes * MINUTE,
    )
    assert block.step.tolist() == [(at - first_us) // (step_minutes * MINUTE) for at in instants]
