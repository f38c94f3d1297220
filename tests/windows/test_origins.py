"""Origins against brute force: no label crosses a border, and no window is lost."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowpatch.errors import PeriodError
from flowpatch.series.splits import SPLIT_NAMES, SplitName, Splits, split_by_ratio
from flowpatch.windows.origins import origins_of

SPLITS = st.lists(st.integers(0, 40), min_size=4, max_size=4).map(
    lambda borders: Splits(*sorted(borders))
)
LENGTHS = st.tuples(st.integers(1, 12), st.integers(1, 12))


def split_of_step(splits: Splits, step: int) -> SplitName | None:
    for name in SPLIT_NAMES:
        first, stop = splits.bounds(name)
        if first <= step < stop:
            return name
    return None


def whole_windows(
    splits: Splits, input_len: int, output_len: int
) -> Iterator[tuple[int, set[SplitName | None]]]:
    """Each origin whose window lies inside the stretch, with the splits that its labels touch."""
    for origin in range(-50, 100):
        steps = range(origin - input_len, origin + output_len)
        if all(splits.first <= step < splits.stop for step in steps):
            yield origin, {split_of_step(splits, step) for step in steps[input_len:]}


def found_origins(splits: Splits, split: SplitName, lengths: tuple[int, int]) -> list[int]:
    try:
        return origins_of(splits, split, *lengths).tolist()
    except PeriodError:
        return []


@settings(deadline=None)
@given(splits=SPLITS, lengths=LENGTHS)
@example(splits=Splits(0, 10, 20, 30), lengths=(4, 10))
@example(splits=Splits(5, 5, 5, 30), lengths=(25, 1))
def test_a_split_has_just_the_windows_that_hold_all_labels_in_it(
    splits: Splits, lengths: tuple[int, int]
) -> None:
    windows = list(whole_windows(splits, *lengths))
    for split in SPLIT_NAMES:
        expected = [origin for origin, touched in windows if touched == {split}]
        assert found_origins(splits, split, lengths) == expected


@settings(deadline=None)
@given(splits=SPLITS, lengths=LENGTHS)
def test_every_window_is_in_one_split_or_its_labels_cross_a_border(
    splits: Splits, lengths: tuple[int, int]
) -> None:
    found = [one for split in SPLIT_NAMES for one in found_origins(splits, split, lengths)]
    crossing = [one for one, touched in whole_windows(splits, *lengths) if len(touched) > 1]
    whole = [one for one, _ in whole_windows(splits, *lengths)]
    assert sorted(found + crossing) == whole


@settings(deadline=None)
@given(splits=SPLITS, lengths=LENGTHS)
def test_splits_pass_their_check_just_where_each_has_a_window(
    splits: Splits, lengths: tuple[int, int]
) -> None:
    # What `preprocess` lets through, `train` must find windows in.
    every_split_has_one = all(found_origins(splits, split, lengths) for split in SPLIT_NAMES)
    try:
        splits.check_windows(*lengths)
    except PeriodError:
        assert not every_split_has_one
    else:
        assert every_split_has_one


def test_input_reaches_back_over_the_border_but_not_before_the_first_step() -> None:
    splits = Splits(first=3, val_start=10, test_start=14, stop=18)
    assert origins_of(splits, "train", 2, 2).tolist() == [5, 6, 7, 8]
    assert origins_of(splits, "val", 2, 2).tolist() == [10, 11, 12]
    assert origins_of(splits, "test", 2, 2).tolist() == [14, 15, 16]


def test_origins_are_whole_numbers_that_index_a_series() -> None:
    origins = origins_of(split_by_ratio(0, 100, (0.6, 0.2, 0.2)), "train", 12, 12)
    assert origins.dtype == np.int64
    assert (origins[0], origins[-1]) == (12, 48)


def test_a_split_without_a_window_says_what_to_change() -> None:
    with pytest.raises(PeriodError, match=r"'val' of 4 steps holds no window of 2 \+ 5") as caught:
        origins_of(Splits(0, 10, 14, 30), "val", 2, 5)
    assert "--output-len" in str(caught.value)
