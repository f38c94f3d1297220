"""Quality findings against plain loops, in one block and in many."""

from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flowpatch.series import stuck
from flowpatch.series.quality import BlockFindings, Quality, QualityScan
from flowpatch.series.stuck import STUCK_MINUTES, ends_of_runs
from flowpatch.time_axis import TimeAxis

cells = st.sampled_from([np.nan, 0, 0, 1, 1, 1, 2, -3])


def series_of(axis: TimeAxis, nodes: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float32, (axis.length, nodes), elements=cells, fill=st.just(np.float32(1)))


def scan(axis: TimeAxis, values: np.ndarray, blocks: list[int]) -> Quality:
    found = QualityScan(axis, values.shape[1])
    borders = [0, *blocks, len(values)]
    for first, stop in pairwise(borders):
        if stop > first:
            found.add(BlockFindings.of(axis, first, values[first:stop]))
    return found.quality()


def plain_ends(values: np.ndarray, length: int) -> np.ndarray:
    ends = np.zeros(values.shape, bool)
    for node in range(values.shape[1]):
        run = 0
        for step, value in enumerate(values[:, node]):
            same = step and value == values[step - 1, node] and value != 0
            run = run + 1 if same else 1
            ends[step, node] = run >= length
    return ends


@given(
    values=hnp.arrays(np.float32, st.tuples(st.integers(0, 30), st.just(2)), elements=cells),
    length=st.integers(2, 12),
)
def test_ends_of_runs_are_those_of_a_plain_loop(values: np.ndarray, length: int) -> None:
    np.testing.assert_array_equal(ends_of_runs(values, length), plain_ends(values, length))


@pytest.mark.parametrize("length", range(2, 40))
def test_a_run_ends_from_its_length_on(length: int) -> None:
    """Doubling passes every length by another sum of shifts."""
    values = np.full((50, 1), 7, np.float32)
    assert np.flatnonzero(ends_of_runs(values, length)).tolist() == list(range(length - 1, 50))


AXIS = TimeAxis.of_days(np.datetime64("2025-03-03"), 3, 90)
"""16 steps a day, stuck from 4 equal values on."""


@given(values=series_of(AXIS, 3), blocks=st.lists(st.integers(0, AXIS.length), max_size=5))
def test_findings_are_those_of_plain_counting_whatever_the_blocks(values, blocks) -> None:
    found = scan(AXIS, values, sorted(blocks))
    seen = ~np.isnan(values)
    rows = np.flatnonzero(seen.any(axis=1))
    if not len(rows):
        assert (found.observed, found.first_step, found.stop_step) == (0, 0, 0)
        assert (found.lowest_day, found.coverage) == ("", 0.0)
        return
    first, stop = int(rows[0]), int(rows[-1]) + 1
    inside = values[first:stop]
    assert (found.first_step, found.stop_step) == (first, stop)
    assert found.observed == seen.sum()
    assert found.coverage == pytest.approx(seen.sum() / inside.size)
    assert (found.minimum, found.maximum) == (np.nanmin(values), np.nanmax(values))
    assert found.zeros == (values == 0).sum()
    assert found.negatives == (values < 0).sum()
    assert found.silent_nodes == (~seen).all(axis=0).sum()
    stuck = plain_ends(values, STUCK_MINUTES // 90)
    assert found.stuck == stuck.sum()
    assert found.stuck_nodes == stuck.any(axis=0).sum()
    silent = [len(list(run)) for dark, run in groupby(np.isnan(inside).all(axis=1)) if dark]
    assert found.network_gaps == len(silent)
    assert found.longest_network_gap_steps == max(silent, default=0)
    days = {}
    for step in range(first, stop):
        day = str(AXIS.instant_of(step))[:10]
        days.setdefault(day, []).append(seen[step].mean())
    coverage = {day: float(np.mean(parts)) for day, parts in days.items()}
    assert found.lowest_day_coverage == pytest.approx(min(coverage.values()))
    assert coverage[found.lowest_day] == pytest.approx(min(coverage.values()))


def test_a_run_across_two_blocks_is_one_run() -> None:
    axis = TimeAxis.of_days(np.datetime64("2025-03-03"), 2, 60)
    values = np.full((48, 2), np.nan, np.float32)
    values[20:28, 0] = 5
    whole, halves = scan(axis, values, []), scan(axis, values, [24])
    assert whole == halves == scan(axis, values, list(range(1, 48)))
    assert (whole.stuck, whole.stuck_nodes) == (3, 1)


def test_nodes_that_stand_still_are_looked_at_a_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(1).integers(1, 3, (48, 9)).astype(np.float32)
    values[:, [0, 3, 4, 8]] = 5
    at_once = scan(AXIS, values, [20])
    assert at_once.stuck_nodes >= 4
    monkeypatch.setattr(stuck, "SUSPECTS", 2)
    assert scan(AXIS, values, [20]) == at_once


def test_zeros_that_stand_still_are_a_quiet_road_and_not_a_stuck_sensor() -> None:
    assert scan(AXIS, np.zeros((48, 1), np.float32), []).stuck == 0


def test_the_lowest_day_counts_only_the_observed_part_of_a_day() -> None:
    """A period that begins in the evening must not show its first day as nearly empty."""
    values = np.ones((48, 2), np.float32)
    values[:15] = np.nan
    values[20, 0] = np.nan
    found = scan(AXIS, values, [])
    assert (found.lowest_day, found.lowest_day_coverage) == ("2025-03-04", 31 / 32)


def test_findings_are_plain_json_values() -> None:
    found = scan(AXIS, np.ones((48, 2), np.float32), []).to_json()
    assert {type(value) for value in found.values()} <= {int, float, str}
    assert Quality(**found).to_json() == found
