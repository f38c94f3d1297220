"""The borders of train, val and test: in order, by the ratios, nothing lost between them."""

import math
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from flowpatch.errors import PeriodError, SettingsError
from flowpatch.series.splits import SPLIT_NAMES, Splits, check_ratios, split_by_ratio

shares = st.tuples(*[st.integers(1, 100)] * 3).map(lambda parts: [p / sum(parts) for p in parts])


@given(first=st.integers(0, 10**6), steps=st.integers(0, 10**6), ratios=shares)
def test_the_splits_follow_each_other_and_lose_no_step(first, steps, ratios) -> None:
    splits = split_by_ratio(first, first + steps, tuple(ratios))
    borders = [splits.bounds(name) for name in SPLIT_NAMES]
    assert borders[0][0] == first
    assert borders[-1][1] == first + steps
    assert all(left[1] == right[0] for left, right in pairwise(borders))
    for (start, stop), ratio in zip(borders, ratios, strict=True):
        assert stop >= start
        assert abs((stop - start) - ratio * steps) <= 1 + 1e-3


@given(first=st.integers(0, 50), steps=st.integers(0, 10**5).map(lambda n: 10 * n))
def test_whole_tenths_are_cut_exactly(first: int, steps: int) -> None:
    """0.6 + 0.2 is less than 0.8 in floating point: truncating alone would lose a step."""
    splits = split_by_ratio(first, first + steps, (0.6, 0.2, 0.2))
    assert splits.val_start - first == steps * 6 // 10
    assert splits.test_start - first == steps * 8 // 10
    splits = split_by_ratio(first, first + steps, (0.7, 0.1, 0.2))
    assert splits.test_start - first == steps * 8 // 10


@given(
    first=st.integers(0, 20), steps=st.integers(0, 120), ratios=shares,
    input_len=st.integers(1, 20), output_len=st.integers(1, 20),
)  # fmt: skip
def test_windows_are_missed_exactly_where_a_plain_search_finds_none(
    first, steps, ratios, input_len, output_len
) -> None:
    stop = first + steps
    splits = split_by_ratio(first, stop, tuple(ratios))

    def windows(low: int, high: int) -> int:
        origins = range(first + input_len, stop - output_len + 1)
        return sum(low <= origin and origin + output_len <= high for origin in origins)

    without = [name for name in SPLIT_NAMES if not windows(*splits.bounds(name))]
    if not without:
        splits.check_windows(input_len, output_len)
        return
    with pytest.raises(PeriodError) as caught:
        splits.check_windows(input_len, output_len)
    if steps < input_len + output_len:
        assert f"The period has {steps} steps" in str(caught.value)
        assert f"{input_len} + {output_len}" in str(caught.value)
    else:
        assert f"The split '{without[0]}'" in str(caught.value)
        assert f"--{without[0]}-ratio" in str(caught.value)


@given(st.lists(st.integers(0, 9), min_size=4, max_size=4))
def test_borders_out_of_order_are_refused(borders: list[int]) -> None:
    assume(borders != sorted(borders))
    with pytest.raises(PeriodError, match="out of order"):
        Splits(*borders)


def test_borders_before_the_axis_are_refused() -> None:
    with pytest.raises(PeriodError, match="out of order"):
        Splits(-1, 2, 3, 4)


def test_splits_survive_json() -> None:
    splits = Splits(3, 60, 80, 100)
    assert Splits.from_json(splits.to_json()) == splits


@pytest.mark.parametrize(
    "ratios",
    [(0.6, 0.2, 0.3), (0.6, 0.4, 0.0), (1.2, -0.1, -0.1), (0.6, 0.2, 0.19999), (60, 20, 20)],
)
def test_ratios_that_are_no_shares_of_one_whole_are_refused(ratios) -> None:
    with pytest.raises(SettingsError) as caught:
        check_ratios(ratios)
    message = str(caught.value)
    assert f"{ratios[0]:g} + {ratios[1]:g} + {ratios[2]:g}" in message
    assert "above 0 and add to 1" in message
    assert "--train-ratio" in message


@given(shares)
def test_shares_of_a_whole_are_taken_as_they_are(ratios: list[float]) -> None:
    assert check_ratios(tuple(ratios)) == tuple(ratios)
    assert math.isclose(sum(ratios), 1)


def test_an_unknown_split_is_named_with_what_is_allowed() -> None:
    with pytest.raises(SettingsError, match=r"'foo'\. Allowed: train, val, test"):
        Splits(0, 6, 8, 10).bounds("foo")  # type: ignore[arg-type]
