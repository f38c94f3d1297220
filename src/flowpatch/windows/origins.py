"""The origins of a split: no label crosses a border, and no window is lost.

       input_len          output_len
    |-------------| o |--------------|
                    ^ origin: the first step of Y

A window belongs to the split that holds all of its labels; its input may reach back over the
border, but not before the first observed step.
"""

import numpy as np
from numpy.typing import NDArray

from flowpatch.errors import PeriodError
from flowpatch.series.splits import SplitName, Splits


def origins_of(
    splits: Splits, split: SplitName, input_len: int, output_len: int
) -> NDArray[np.int64]:
    """Origins of all windows of a split, in order of time.

    Raises:
        PeriodError: there is none.
    """
    first, stop = splits.bounds(split)
    origins = np.arange(max(first, splits.first + input_len), stop - output_len + 1)
    if not len(origins):
        raise PeriodError(
            f"The split '{split}' of {stop - first} steps holds no window of {input_len} + "
            f"{output_len}. Use a smaller --input-len or --output-len, or a store of a longer "
            "period."
        )
    return origins
