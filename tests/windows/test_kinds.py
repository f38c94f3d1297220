"""One suite for every kind of windows: in memory, streamed, behind another device."""

import dataclasses
from typing import ClassVar, get_args

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kinds import Kind, windows_of_kind
from numpy.typing import NDArray

from flowpatch.series.statistics import Statistics
from flowpatch.time_axis import TimeAxis
from flowpatch.windows.batches import Batch, Windows
from flowpatch.windows.missing import Missing
from flowpatch.windows.residence import BlockPlan

STATISTICS = Statistics(mean=3.0, deviation=2.5, observed=1)
A_DAY = 6
MISSING: tuple[Missing, ...] = get_args(Missing)


@dataclasses.dataclass(frozen=True)
class Case:
    """A series, how windows are cut from it, and how it is streamed."""

    values: NDArray[np.float32]
    input_len: int
    output_len: int
    missing: Missing
    plan: BlockPlan

    def windows(self, kind: Kind) -> Windows:
        axis = TimeAxis.of_days(np.datetime64("2025-03-05"), len(self.values) // A_DAY, 240)
        return windows_of_kind(
            kind, self.values, axis, STATISTICS, self.input_len, self.output_len, self.missing,
            self.plan,
        )  # fmt: skip

    def origins(self) -> NDArray[np.int64]:
        return np.arange(self.input_len, len(self.values) - self.output_len + 1)

    def plain_inputs(self, origin: int) -> torch.Tensor:
        """Scaled and filled input of one window, step by step."""
        window_TN = torch.from_numpy(self.values[origin - self.input_len : origin].copy())
        if self.missing == "last":
            for step in range(1, self.input_len):
                gaps = window_TN[step].isnan()
                window_TN[step][gaps] = window_TN[step - 1][gaps]
        if self.missing == "zero":
            window_TN.nan_to_num_(nan=0.0)
        return STATISTICS.scale(window_TN).nan_to_num(nan=0.0)

    def assert_same(self, batch: Batch, origins: list[int]) -> None:
        """Each window of the batch is what slicing gives, to the bit."""
        assert batch.origins_B.tolist() == origins
        assert batch.x_BTN.shape == (len(origins), self.input_len, self.values.shape[1])
        for x_TN, y_HN, origin in zip(batch.x_BTN, batch.y_BHN, origins, strict=True):
            torch.testing.assert_close(x_TN, self.plain_inputs(origin), rtol=0, atol=0)
            np.testing.assert_array_equal(y_HN, self.values[origin : origin + self.output_len])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    generator = np.random.default_rng(draw(st.integers(0, 999)))
    values = generator.gamma(2, 3, (draw(st.integers(3, 7)) * A_DAY, draw(st.integers(1, 4))))
    # Gaps shorter and longer than a window, across the borders of blocks.
    run, share = draw(st.integers(1, 9)), draw(st.sampled_from([0.0, 0.1, 0.6, 1.0]))
    gaps = generator.random((-(-len(values) // run), values.shape[1])) < share
    values[np.repeat(gaps, run, axis=0)[: len(values)]] = np.nan
    lengths = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    plan = BlockPlan(draw(st.integers(1, 12)), draw(st.integers(1, 6)))
    return Case(values.astype(np.float32), *lengths, draw(st.sampled_from(MISSING)), plan)


INHERITED = settings(max_examples=40, suppress_health_check=[HealthCheck.differing_executors])


class WindowsTests:
    """What all kinds of windows do alike."""

    kind: ClassVar[Kind]

    @INHERITED
    @given(case=cases(), data=st.data())
    def test_any_origins_give_what_slicing_gives(self, case: Case, data: st.DataObject) -> None:
        windows = case.windows(self.kind)
        assert windows.nodes == case.values.shape[1]
        # Any order, repeats allowed, none allowed, nothing told before.
        some = st.lists(st.sampled_from(case.origins().tolist()), max_size=6)
        for origins in data.draw(st.lists(some, max_size=3)):
            case.assert_same(windows.batch(np.array(origins, dtype=np.int64)), origins)

    @INHERITED
    @given(
        case=cases(),
        epoch=st.integers(0, 9),
        batch_size=st.integers(1, 9),
        done=st.integers(0, 20),
        share=st.integers(1, 3),
    )
    def test_an_epoch_gives_its_order_whole_resumed_or_in_shares(
        self, case: Case, epoch: int, batch_size: int, done: int, share: int
    ) -> None:
        windows = case.windows(self.kind)
        order = windows.epoch_order(case.origins(), 1, epoch)[done:]
        windows.expect(order)
        for first in range(0, len(order), batch_size):
            # One process of several takes every so manieth window of a batch.
            mine = order[first : first + batch_size][::share]
            case.assert_same(windows.batch(mine), mine.tolist())

    @INHERITED
    @given(case=cases(), batch_size=st.integers(1, 9), periods=st.lists(st.integers(1, 30)))
    def test_values_are_those_of_the_steps_asked_for(
        self, case: Case, batch_size: int, periods: list[int]
    ) -> None:
        windows = case.windows(self.kind)
        windows.expect(case.origins(), periods)
        looks = [(-case.input_len, 0), (0, case.output_len)]
        looks += [(-period, min(case.output_len, period) - period) for period in periods]
        padded = np.pad(case.values, ((40, 0), (0, 0)), constant_values=np.nan)
        for batch in windows.batches(case.origins(), batch_size):
            case.assert_same(batch, batch.origins_B.tolist())
            for first, stop in looks:
                found = windows.values(batch.origins_B, first, stop)
                expected = [padded[40 + o + first : 40 + o + stop] for o in batch.origins_B]
                np.testing.assert_array_equal(found, np.stack(expected))

    @INHERITED
    @given(case=cases(), data=st.data())
    def test_days_are_those_of_the_series(self, case: Case, data: st.DataObject) -> None:
        steps = st.integers(0, len(case.values))
        first, stop = sorted(data.draw(st.tuples(steps, steps)))
        days = list(case.windows(self.kind).days(first, stop))
        assert [begin for begin, _ in days] == list(range(first, stop, A_DAY))
        assert all(len(values) <= A_DAY for _, values in days)
        found = [values.numpy() for _, values in days]
        np.testing.assert_array_equal(
            np.concatenate([case.values[:0], *found]), case.values[first:stop]
        )

    @INHERITED
    @given(case=cases(), batch_size=st.integers(1, 30))
    def test_batches_cover_the_origins_in_order(self, case: Case, batch_size: int) -> None:
        origins = case.origins()[::-1]
        batches = list(case.windows(self.kind).batches(origins, batch_size))
        assert [one for batch in batches for one in batch.origins_B.tolist()] == origins.tolist()
        assert {len(batch) for batch in batches[:-1]} <= {batch_size}

    @INHERITED
    @given(case=cases(), how_far=st.sampled_from([1, 20, 2**40]))
    def test_origins_outside_the_series_are_refused(self, case: Case, how_far: int) -> None:
        windows, (lowest, highest) = case.windows(self.kind), case.origins()[[0, -1]]
        for origin in (lowest - how_far, highest + how_far):
            with pytest.raises(IndexError, match=rf"allowed {lowest}\.\.{highest}"):
                windows.batch(np.array([lowest, origin]))

    def test_times_are_those_of_the_calendar(self) -> None:
        # 2025-03-05 was a Wednesday.
        case = Case(np.zeros((30, 1), dtype=np.float32), 6, 6, "last", BlockPlan(4, 2))
        batch = case.windows(self.kind).batch(np.array([6, 9]))
        assert batch.day_of_week_BT.tolist() == [[2] * 6, [2] * 3 + [3] * 3]
        assert batch.day_of_week_BH.tolist() == [[3] * 6, [3] * 3 + [4] * 3]
        assert batch.time_of_day_BT.tolist() == [[0, 1, 2, 3, 4, 5], [3, 4, 5, 0, 1, 2]]


class TestInMemory(WindowsTests):
    kind = "in memory"


class TestStreamed(WindowsTests):
    kind = "streamed"


class TestTransferred(WindowsTests):
    kind = "transferred"
