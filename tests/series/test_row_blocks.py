"""Flags counted by their bits against numpy's own counting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flowpatch.series.row_blocks import flags_of_columns, flags_of_rows


@given(hnp.arrays(np.bool_, st.tuples(st.integers(0, 20), st.integers(1, 20))))
def test_flags_are_counted_by_row_and_by_column(flags: np.ndarray) -> None:
    assert flags_of_rows(flags).tolist() == np.count_nonzero(flags, axis=1).tolist()
    assert flags_of_columns(flags).tolist() == np.count_nonzero(flags, axis=0).tolist()


@pytest.mark.parametrize("shape", [(255, 3), (256, 3), (2**16, 2), (3, 300), (2, 2**17)])
def test_no_count_is_too_large(shape: tuple[int, int]) -> None:
    flags = np.ones(shape, np.bool_)
    assert set(flags_of_rows(flags)) == {shape[1]}
    assert set(flags_of_columns(flags)) == {shape[0]}
