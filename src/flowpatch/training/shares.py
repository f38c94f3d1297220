"""Which process does what: shares of a training batch, whole batches of what is scored.

A batch is that of all processes together, and the order of windows is the same for all of them.

    training: each batch is cut into shares     scoring: whole batches go round

    batch   | 0 0 0 | 1 1 | 2 2 |               | batch 0 | batch 1 | batch 2 | batch 3 |
              process                             process 0         1         2         0
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from flowpatch.errors import SettingsError


def share_of_batch(windows: int, rank: int, size: int) -> slice:
    """The windows of a batch that a process takes; shares differ by one window at most.

    A batch of fewer windows than processes leaves some processes without any.
    """
    each, over = divmod(windows, size)
    first = rank * each + min(rank, over)
    return slice(first, first + each + (rank < over))


def origins_shared(
    origins: NDArray[np.int64], batch_size: int, rank: int, size: int
) -> NDArray[np.int64]:
    """The origins of a process's share of each batch, batch after batch."""
    whole = len(origins) // batch_size * batch_size
    batches = origins[:whole].reshape(-1, batch_size)
    last = origins[whole:]
    return np.concatenate(
        [
            batches[:, share_of_batch(batch_size, rank, size)].ravel(),
            last[share_of_batch(len(last), rank, size)],
        ]
    )


def origins_dealt(
    origins: NDArray[np.int64], batch_size: int, rank: int, size: int
) -> NDArray[np.int64]:
    """The origins of every `size`-th batch, whole: cut into batches again, they are the same."""
    batch = np.arange(len(origins)) // batch_size
    mine: NDArray[np.int64] = origins[batch % size == rank]
    return mine


def rounds(windows: int, batch_size: int, size: int) -> Iterator[list[int]]:
    """Round by round, the windows of each batch in it: one batch a process, fewer in the last."""
    step = batch_size * size
    for first in range(0, windows, step):
        stop = min(windows, first + step)
        yield [min(batch_size, stop - begin) for begin in range(first, stop, batch_size)]


def check_batch(size: int, batch_size: int) -> None:
    """Makes sure that every process gets a window of a whole batch.

    Raises:
        SettingsError: it does not.
    """
    if size > batch_size:
        raise SettingsError(
            f"{size} processes cannot share a batch of {batch_size} windows. Start at most "
            f"{batch_size}, or give a --batch-size of {size} or more: it counts the windows of "
            "all processes together."
        )


def check_windows(size: int, windows: int, split: str) -> None:
    """Makes sure that there are as many windows as processes.

    Raises:
        SettingsError: there are fewer.
    """
    if size > windows:
        raise SettingsError(
            f"{size} processes cannot share the {windows} windows of the split '{split}'. Start "
            f"at most {windows}."
        )
