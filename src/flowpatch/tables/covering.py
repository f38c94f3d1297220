"""Which rows of a sample table are needed to rebuild the series.

Windows overlap: at stride 1, input_len + output_len of them hold each cell. Those chosen here
follow each other so closely that no step is left out, and overlap just enough that most cells are
seen twice, once as input and once as label: a check that costs no row more.
"""

import numpy as np
from numpy.typing import NDArray


def cover(origins: NDArray[np.int64], input_len: int, output_len: int) -> NDArray[np.int64]:
    """Positions of the chosen among sorted, unique origins: they hold every step that any holds.

    With origins at every step, one in max(input_len, output_len) is chosen.

    Args:
        origins: (K,) steps, ascending, no step twice.
        input_len: steps of a window before its origin.
        output_len: steps from it.
    """
    if not len(origins):
        return np.empty(0, dtype=np.int64)
    chosen: list[int] = []
    ends = origins + output_len
    # A window's own end overlaps the next window's input.
    reach = max(input_len - output_len, 0)
    held = int(origins[0]) - input_len
    while held < ends[-1]:
        following = _last_within(origins, held + reach)
        if following is None or ends[following] <= held:
            # No window overlaps by that much: one that leaves no gap will do.
            following = _last_within(origins, held + input_len)
        if following is None or ends[following] <= held:
            # There is a hole between windows: go on behind it.
            following = int(np.searchsorted(ends, held, side="right"))
        chosen.append(following)
        held = int(ends[following])
    return np.array(chosen, dtype=np.int64)


def _last_within(origins: NDArray[np.int64], limit: int) -> int | None:
    position = int(np.searchsorted(origins, limit, side="right")) - 1
    return position if position >= 0 else None
