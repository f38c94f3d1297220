"""Buckets against the plain scatter: the same bits, whatever the pool and the order."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowpatch.errors import RecordError
from flowpatch.series import buckets
from flowpatch.series.buckets import Buckets
from flowpatch.series.dense import RecordCounts, Scatter
from flowpatch.sources.aggregation import Aggregate
from flowpatch.sources.contract import NODE_WITHOUT_COORDINATES, UNKNOWN_NODE, RecordBlock

STEPS, NODES = 60, 2500
RULES: tuple[Aggregate, ...] = ("mean", "sum", "max")


def records(seed: int, count: int, spread: int) -> RecordBlock:
    """Records of `spread` nodes at both ends of the series: several buckets, many repeats."""
    generator = np.random.default_rng(seed)
    known = np.concatenate([np.arange(spread), NODES - 1 - np.arange(spread)])
    marks = [UNKNOWN_NODE, NODE_WITHOUT_COORDINATES]
    return RecordBlock(
        generator.choice([0, 1, STEPS - 1], count),
        generator.choice(np.concatenate([known, marks]), count).astype(np.int32),
        generator.choice([0, 1, -2.5, 1 / 3, 1e6, np.nan], count).astype(np.float32),
    )


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 30_000),
    spread=st.integers(1, 40),
    cuts=st.lists(st.integers(0, 30_000), max_size=3),
    null_value=st.sampled_from([None, 0.0]),
    rule=st.sampled_from(RULES),
    pool_words=st.sampled_from([1, 12_000, 1_000_000]),
    day_steps=st.sampled_from([1, 7, STEPS]),
)
def test_they_give_what_the_plain_scatter_gives(
    seed: int,
    count: int,
    spread: int,
    cuts: list[int],
    null_value: float | None,
    rule: Aggregate,
    pool_words: int,
    day_steps: int,
) -> None:
    block = records(seed, count, spread)
    plain = Scatter(STEPS, NODES, rule, null_value, day_steps=day_steps)
    plain.add(block)
    expected, counts = plain.finish()

    null = np.float32(np.nan if null_value is None else null_value)
    many = Scatter(STEPS, NODES, rule, null_value, day_steps=day_steps, many=True)
    many._buckets = Buckets((STEPS, NODES), day_steps, rule, null, pool_words=pool_words)
    for first, stop in pairwise([0, *sorted(min(cut, count) for cut in cuts), count]):
        many.add(
            RecordBlock(block.step[first:stop], block.node[first:stop], block.value[first:stop])
        )
    found, found_counts = many.finish()
    # Bit by bit: another NaN would be other bytes in the store.
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))
    np.testing.assert_array_equal(found_counts, counts)
    assert len(counts) == -(-STEPS // day_steps)


def test_a_stretch_leaves_nothing_to_the_next_and_the_last_may_be_shorter() -> None:
    scatter = Scatter(STEPS, NODES, "sum", many=True)
    scatter.add(records(1, 1000, 5))
    scatter.finish()
    scatter.add(RecordBlock(np.array([1]), np.array([2], np.int32), np.array([7], np.float32)))
    values, counts = scatter.finish(2)
    assert values.shape == (2, NODES)
    assert values[1, 2] == 7
    assert np.isnan(values).sum() == values.size - 1
    assert RecordCounts.of_days(counts, observed=1) == RecordCounts(read=1, used=1)


def test_a_sum_beyond_float32_is_an_error() -> None:
    scatter = Scatter(1, 1, "sum", many=True)
    large = np.full(2, 3e38, np.float32)
    scatter.add(RecordBlock(np.zeros(2, np.int64), np.zeros(2, np.int32), large))
    with pytest.raises(RecordError, match=r"6e\+38 is too large for a float32"):
        scatter.finish()


def test_pages_do_not_meet_in_the_same_lines_of_a_cache() -> None:
    assert buckets.WORDS & (buckets.WORDS - 1)
