"""Mean and deviation of any stretch, from the moments of its steps, against numpy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flowpatch.errors import PeriodError
from flowpatch.series.statistics import Statistics, StepMoments

series = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.integers(1, 6)),
    elements=st.floats(-1000, 1000, width=32) | st.just(np.float32(np.nan)),
)


def moments_of(values: np.ndarray, block: int) -> StepMoments:
    moments = StepMoments.empty(len(values))
    for first in range(0, len(values), block):
        moments.set(first, values[first : first + block])
    return moments


@given(values=series, offset=st.sampled_from([0, 100, 1e6, -3e7]), data=st.data())
def test_the_moments_of_a_stretch_are_numpys(values, offset: float, data) -> None:
    """With a large offset, sum of squares less square of sum would cancel to nonsense."""
    values = (values + np.float32(offset)).astype(np.float32)
    first = data.draw(st.integers(0, len(values) - 1))
    stop = data.draw(st.integers(first + 1, len(values)))
    moments = moments_of(values, data.draw(st.integers(1, len(values))))
    part = values[first:stop].astype(np.float64)
    if np.isnan(part).all():
        with pytest.raises(PeriodError, match=r"No value was observed in the training period.*--"):
            moments.statistics(first, stop)
        return
    found = moments.statistics(first, stop)
    assert found.observed == (~np.isnan(part)).sum()
    assert found.mean == pytest.approx(np.nanmean(part), rel=1e-12, abs=1e-9)
    deviation = np.nanstd(part)
    assert found.deviation == pytest.approx(deviation, rel=1e-5, abs=1e-6) or (
        deviation < 1e-6 and found.deviation == 1
    )


def test_moments_of_many_values_with_a_large_offset() -> None:
    values = np.random.default_rng(1).normal(1e6, 3, (50, 2000)).astype(np.float32)
    found = moments_of(values, 7).statistics(0, 50)
    assert found.mean == pytest.approx(values.astype(np.float64).mean(), rel=1e-12)
    assert found.deviation == pytest.approx(values.astype(np.float64).std(), rel=1e-9)


@given(values=series, block=st.integers(1, 12))
def test_the_size_of_blocks_changes_no_bit(values, block: int) -> None:
    whole, parts = moments_of(values, len(values)), moments_of(values, block)
    for name in ("count", "mean", "m2"):
        assert getattr(whole, name).tobytes() == getattr(parts, name).tobytes()


@pytest.mark.parametrize("value", [0.0, 0.1, 7.0, 123456.7])
def test_a_constant_series_scales_to_zero_and_back(value: float) -> None:
    values = np.full((30, 11), value, np.float32)
    found = moments_of(values, 8).statistics(0, 30)
    assert found == Statistics(float(np.float32(value)), 1.0, 330)
    assert not found.scale(values).any()
    assert (found.unscale(found.scale(values)) == values).all()


@given(
    mean=st.floats(-1e6, 1e6),
    deviation=st.floats(1e-3, 1e6),
    values=hnp.arrays(np.float64, 5, elements=st.floats(-1e6, 1e6)),
)
def test_unscale_undoes_scale(mean: float, deviation: float, values) -> None:
    statistics = Statistics(mean, deviation, 1)
    np.testing.assert_allclose(statistics.unscale(statistics.scale(values)), values, atol=1e-8)
    scaled = statistics.scale(values)
    np.testing.assert_allclose(
        statistics.scale(statistics.unscale(scaled)), scaled, rtol=1e-9, atol=2e-6
    )


def test_scaling_gives_mean_0_and_deviation_1() -> None:
    values = np.random.default_rng(2).gamma(2, 9, (40, 30)).astype(np.float32)
    scaled = moments_of(values, 40).statistics(0, 40).scale(values.astype(np.float64))
    assert scaled.mean() == pytest.approx(0, abs=1e-9)
    assert scaled.std() == pytest.approx(1, abs=1e-9)


def test_a_tensor_keeps_its_type_and_its_gaps() -> None:
    torch = pytest.importorskip("torch")
    values = torch.tensor([1.0, float("nan"), 3.0])
    scaled = Statistics(2.0, 0.5, 2).scale(values)
    assert scaled.dtype == torch.float32
    assert scaled.tolist()[::2] == [-2, 2]
    assert scaled.isnan().tolist() == [False, True, False]


def test_statistics_survive_json() -> None:
    statistics = Statistics(1 / 3, 0.1, 7)
    assert Statistics(**statistics.to_json()) == statistics
