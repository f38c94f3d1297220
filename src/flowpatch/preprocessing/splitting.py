"""Where a series is cut into train, val and test: by ratio, or at borders that stay."""

from datetime import date

import numpy as np

from flowpatch.errors import PeriodError
from flowpatch.preprocessing.settings import BuildSettings
from flowpatch.series.quality import Quality
from flowpatch.series.splits import Splits, split_by_ratio
from flowpatch.store.sample_store import SampleStore
from flowpatch.time_axis import TimeAxis


def split_series(
    settings: BuildSettings, axis: TimeAxis, quality: Quality, before: SampleStore | None = None
) -> Splits:
    """The splits of a series, whose borders may be those of the version `before`.

    Raises:
        PeriodError: the borders do not lie in the period.
    """
    first, stop = quality.first_step, quality.stop_step
    if settings.val_start is not None and settings.test_start is not None:
        val_start, test_start = (
            _step(axis, day) for day in (settings.val_start, settings.test_start)
        )
    elif settings.split_policy == "fixed" and before is not None:
        moved = axis.step_of(before.axis.start)
        val_start, test_start = before.splits.val_start + moved, before.splits.test_start + moved
    else:
        return split_by_ratio(first, stop, settings.ratios)
    if not first < val_start <= test_start < stop:
        raise PeriodError(
            f"The borders of validation and test, {axis.instant_of(val_start)} and "
            f"{axis.instant_of(test_start)}, leave no training or no test: values lie from "
            f"{axis.instant_of(first)} to {axis.instant_of(stop)}. Set --val-start and "
            "--test-start within that, or --split-policy ratio."
        )
    return Splits(first, val_start, test_start, stop)


def _step(axis: TimeAxis, day: date) -> int:
    return axis.step_of(np.datetime64(day, "m"))
