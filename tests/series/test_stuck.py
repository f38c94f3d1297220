"""Runs of equal values: joined from blocks in any order, against one plain scan of all values."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flowpatch.series.quality import BlockFindings, QualityScan
from flowpatch.series.stuck import JoinedRuns, StuckRuns, ends_of_runs
from flowpatch.time_axis import TimeAxis

cells = st.sampled_from([np.nan, 0, 1, 1, 1, 1, 2])
series = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 40), st.just(2)),
    elements=cells,
    fill=st.just(np.float32(1)),
)
longs = st.integers(2, 40)
"""Up to lengths at which `StuckRuns` looks at some of the steps first."""


def cut(draw: st.DrawFn, steps: int) -> list[tuple[int, int]]:
    borders = sorted({0, steps, *draw(st.lists(st.integers(0, steps), max_size=6))})
    return list(pairwise(borders))


def check_equal(found: StuckRuns, wanted: StuckRuns) -> None:
    assert (found.steps, found.long) == (wanted.steps, wanted.long)
    for name in ("ends", "first", "last", "leading", "trailing"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


@given(values=series, long=longs)
def test_the_runs_of_a_block_are_those_of_plain_loops(values: np.ndarray, long: int) -> None:
    found = StuckRuns.of(values, long)
    np.testing.assert_array_equal(found.ends, ends_of_runs(values, long).sum(axis=0))
    for node, column in enumerate(values.T):
        for ordered, run in ((column, found.leading), (column[::-1], found.trailing)):
            wanted = 0
            for value in ordered:
                if value != ordered[0] or not value > 0:
                    break
                wanted += 1
            assert run[node] == min(wanted, long - 1)


@given(values=series, long=longs, at=st.integers(0, 40))
def test_two_blocks_joined_are_one(values: np.ndarray, long: int, at: int) -> None:
    before, behind = StuckRuns.of(values[:at], long), StuckRuns.of(values[at:], long)
    check_equal(before.join(behind), StuckRuns.of(values, long))


@given(values=series, long=longs, data=st.data())
def test_blocks_in_any_order_give_the_same_cells(values, long, data) -> None:
    joined, found = JoinedRuns(), np.zeros(2, dtype=np.int64)
    blocks = data.draw(st.composite(cut)(len(values)))
    for first, stop in data.draw(st.permutations(blocks)):
        found += joined.add(first, StuckRuns.of(values[first:stop], long))
    np.testing.assert_array_equal(found, ends_of_runs(values, long).sum(axis=0))


AXIS = TimeAxis.of_days(np.datetime64("2025-03-03"), 6, 90)
"""16 steps a day, stuck from 4 equal values on."""


@given(
    values=hnp.arrays(np.float32, (96, 3), elements=cells, fill=st.just(np.float32(1))),
    order=st.permutations(range(6)),
)
def test_days_in_any_order_give_the_findings_of_one_scan(values, order) -> None:
    whole, days = QualityScan(AXIS, 3), QualityScan(AXIS, 3)
    whole.add(BlockFindings.of(AXIS, 0, values))
    for day in order:
        days.add(BlockFindings.of(AXIS, day * 16, values[day * 16 : (day + 1) * 16]))
    for name, wanted in vars(whole.findings).items():
        np.testing.assert_array_equal(getattr(days.findings, name), wanted)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_blocks_shorter_than_a_run_pass_it_on(steps: int) -> None:
    joined, found = JoinedRuns(), 0
    for first in range(0, 12, steps):
        runs = StuckRuns.of(np.full((steps, 1), 5, np.float32), 6)
        found += int(joined.add(first, runs)[0])
    assert found == 7
