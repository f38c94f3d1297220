"""Windows written out one by one as comma-separated text, as sample tables are filled elsewhere.

A line is a window: its origin, the input, the labels, and for each step of both the time of day
and the day of the week.
"""

from collections.abc import Iterable
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from flowpatch.time_axis import TimeAxis


def write_windows(
    out: TextIO,
    values: NDArray[np.float32],
    axis: TimeAxis,
    origins: Iterable[int],
    input_len: int,
    output_len: int,
) -> None:
    """Writes the windows at the origins, one a line, its four arrays set apart by tabs.

    Args:
        out: where to.
        values: (T, N) series.
        axis: its time axis.
        origins: the first steps of the labels.
        input_len: steps before the origin.
        output_len: steps from the origin.
    """
    time_of_day, day_of_week = axis.time_of_day_index(), axis.day_of_week_index()
    for origin in origins:
        cells = [str(axis.instant_of(int(origin)))]
        for steps in (slice(origin - input_len, origin), slice(origin, origin + output_len)):
            cells.append(",".join(map(str, values[steps].ravel().tolist())))
            times = np.stack([time_of_day[steps], day_of_week[steps]], axis=-1)
            cells.append(",".join(map(str, times.ravel().tolist())))
        out.write("\t".join(cells) + "\n")
