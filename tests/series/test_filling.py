"""Missing cells filled by bits, against numpy's `where`."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flowpatch.series.filling import filled


@given(
    values=hnp.arrays(np.float32, (3, 7), elements=st.floats(width=32)),
    value=st.floats(width=32),
    seed=st.integers(0, 2**32 - 1),
)
def test_it_is_where_to_the_bit(values: np.ndarray, value: float, seed: int) -> None:
    missing = np.random.default_rng(seed).random(values.shape) < 0.5
    expected = np.where(missing, np.float32(value), values)
    assert filled(values, missing, value).tobytes() == expected.tobytes()
    assert filled(values.T, missing.T, value).tobytes() == expected.T.tobytes()
