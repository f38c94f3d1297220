"""Missing cells filled, both ways, against numpy's `where`: the same bits."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flowpatch.series import filling, filling_loops
from flowpatch.series.filling import count_observed, shifted

WAYS = pytest.mark.parametrize("loops", [None, filling_loops], ids=["numpy", "compiled"])
values_of = hnp.arrays(np.float32, (3, 7), elements=st.floats(width=32))
shift_of = hnp.arrays(np.float32, 3, elements=st.floats(-100, 100, width=32))


@WAYS
@given(values=values_of, shift=shift_of, fill=st.sampled_from([0, np.nan, -1.5]))
def test_it_is_where_to_the_bit(loops, values: np.ndarray, shift: np.ndarray, fill: float) -> None:
    with np.errstate(all="ignore"):
        expected = np.where(np.isnan(values), np.float32(fill), values + shift[:, None])
        with mock.patch.object(filling, "_loops", return_value=loops):
            found = shifted(values, shift, fill)
            turned = shifted(np.asfortranarray(values), shift, fill)
    assert found.tobytes() == expected.tobytes()
    assert turned.tobytes() == expected.tobytes()


@WAYS
@given(values=values_of)
def test_observed_values_are_counted_row_by_row(loops, values: np.ndarray) -> None:
    with mock.patch.object(filling, "_loops", return_value=loops):
        found = count_observed(values)
    assert found.dtype == np.int64
    assert found.tolist() == (~np.isnan(values)).sum(axis=1).tolist()


@WAYS
def test_there_may_be_no_rows_and_no_columns(loops) -> None:
    with mock.patch.object(filling, "_loops", return_value=loops):
        for shape in ((0, 5), (4, 0)):
            values = np.empty(shape, dtype=np.float32)
            assert shifted(values, np.zeros(shape[0], dtype=np.float32), 0).shape == shape
            assert count_observed(values).tolist() == [0] * shape[0]
