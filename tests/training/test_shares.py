"""Nothing is done twice and nothing left out, whatever the numbers are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowpatch.errors import SettingsError
from flowpatch.training.shares import (
    check_batch,
    check_windows,
    origins_dealt,
    origins_shared,
    rounds,
    share_of_batch,
)

SIZES = st.integers(1, 9)


@given(windows=st.integers(0, 60), size=SIZES)
def test_the_shares_of_a_batch_are_the_batch(windows: int, size: int) -> None:
    shares = [range(windows)[share_of_batch(windows, rank, size)] for rank in range(size)]
    assert [window for share in shares for window in share] == list(range(windows))
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1


@given(windows=st.integers(0, 200), batch_size=st.integers(1, 40), size=SIZES)
def test_the_shares_of_all_batches_come_batch_after_batch(
    windows: int, batch_size: int, size: int
) -> None:
    origins = np.random.default_rng(windows).permutation(windows)
    batches = [origins[at : at + batch_size] for at in range(0, windows, batch_size)]
    for rank in range(size):
        expected = [
            one for batch in batches for one in batch[share_of_batch(len(batch), rank, size)]
        ]
        assert origins_shared(origins, batch_size, rank, size).tolist() == expected


@given(windows=st.integers(1, 200), batch_size=st.integers(1, 40), size=SIZES)
def test_batches_that_go_round_are_the_batches_of_one(
    windows: int, batch_size: int, size: int
) -> None:
    origins = np.random.default_rng(windows).permutation(windows)

    def cut(some: np.ndarray) -> list[list[int]]:
        return [some[at : at + batch_size].tolist() for at in range(0, len(some), batch_size)]

    dealt = [cut(origins_dealt(origins, batch_size, rank, size)) for rank in range(size)]
    taken = []
    for place, lengths in enumerate(rounds(windows, batch_size, size)):
        assert 1 <= len(lengths) <= size
        taken += [dealt[rank][place] for rank in range(len(lengths))]
        assert [len(batch) for batch in taken[-len(lengths) :]] == lengths
    assert taken == cut(origins)
    assert sum(map(len, dealt)) == len(taken)


@pytest.mark.parametrize("size", [1, 3])
def test_as_many_processes_as_windows_are_enough_windows(size: int) -> None:
    check_batch(size, batch_size=size)
    check_windows(size, windows=size, split="train")
    with pytest.raises(SettingsError, match=f"{size + 1} processes .* batch of {size} windows"):
        check_batch(size + 1, batch_size=size)
    with pytest.raises(SettingsError, match=f"{size + 1} processes .* {size} windows .*'train'"):
        check_windows(size + 1, windows=size, split="train")
