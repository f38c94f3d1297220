"""The rows chosen hold every step that any row holds, and are few."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowpatch.tables.covering import cover


def held(origins: np.ndarray, input_len: int, output_len: int) -> set[int]:
    return {step for origin in origins for step in range(origin - input_len, origin + output_len)}


@given(
    origins=st.sets(st.integers(0, 300), min_size=1, max_size=80),
    input_len=st.integers(1, 20),
    output_len=st.integers(1, 20),
)
def test_no_step_is_left_out(origins: set[int], input_len: int, output_len: int) -> None:
    given_origins = np.array(sorted(origins))
    chosen = given_origins[cover(given_origins, input_len, output_len)]
    assert held(chosen, input_len, output_len) == held(given_origins, input_len, output_len)
    assert (np.diff(chosen) > 0).all()


@pytest.mark.parametrize(
    ("input_len", "output_len", "one_in"), [(12, 12, 12), (12, 3, 12), (3, 12, 12), (24, 6, 24)]
)
def test_at_stride_1_one_row_in_the_longer_side_is_read(
    input_len: int, output_len: int, one_in: int
) -> None:
    origins = np.arange(12, 2017)
    chosen = cover(origins, input_len, output_len)
    assert len(chosen) <= len(origins) / one_in + 2


def test_windows_that_do_not_overlap_are_all_read() -> None:
    origins = np.arange(12, 500, 24)
    np.testing.assert_array_equal(cover(origins, 12, 12), np.arange(len(origins)))


def test_of_no_windows_none_is_chosen() -> None:
    assert len(cover(np.empty(0, dtype=np.int64), 12, 12)) == 0
