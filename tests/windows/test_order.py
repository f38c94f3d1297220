"""The order of an epoch: every window once, mixed well, over no more blocks than said."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kinds import fewest_reads

from flowpatch.training.shares import origins_shared
from flowpatch.windows.order import BlockOrder, epoch_order

ORDERS = st.one_of(st.none(), st.builds(BlockOrder, st.integers(1, 40), st.integers(1, 12)))


@given(order=ORDERS, first=st.integers(0, 50), count=st.integers(0, 300), seed=st.integers(0, 99))
def test_an_epoch_visits_every_origin_once(
    order: BlockOrder | None, first: int, count: int, seed: int
) -> None:
    origins = np.arange(first, first + count)
    assert sorted(epoch_order(origins, seed, 0, order)) == origins.tolist()


@pytest.mark.parametrize("order", [None, BlockOrder(20, 4)])
def test_the_order_is_a_function_of_seed_and_epoch(order: BlockOrder | None) -> None:
    origins = np.arange(100, 500)
    first = epoch_order(origins, seed=1, epoch=0, order=order)
    assert np.array_equal(first, epoch_order(origins, seed=1, epoch=0, order=order))
    assert not np.array_equal(first, epoch_order(origins, seed=1, epoch=1, order=order))
    assert not np.array_equal(first, epoch_order(origins, seed=2, epoch=0, order=order))


@given(
    block_steps=st.integers(1, 30),
    mixed=st.integers(1, 6),
    count=st.integers(1, 400),
    seed=st.integers(0, 99),
)
def test_slots_for_the_mixed_blocks_and_one_more_read_each_block_once(
    block_steps: int, mixed: int, count: int, seed: int
) -> None:
    origins = np.arange(7, 7 + count)
    visited = epoch_order(origins, seed, 0, BlockOrder(block_steps, mixed)) // block_steps
    blocks = len(set(visited.tolist()))
    # The last blocks begin the epoch as well as end it.
    assert fewest_reads(visited.tolist(), mixed + 1) <= blocks + mixed


def near_pairs(visited: np.ndarray, batch: int, steps: int) -> float:
    """How many pairs of a batch's windows are less than so many steps apart, on average."""
    batches = visited[: len(visited) // batch * batch].reshape(-1, batch)
    apart = np.abs(batches[:, :, None] - batches[:, None, :])
    return float(((apart < steps).sum(axis=(1, 2)) - batch).mean() / 2)


def test_a_batch_has_no_more_windows_alike_than_one_from_all_of_the_series() -> None:
    origins = np.arange(12, 12 + 250 * 100)
    bounded = near_pairs(epoch_order(origins, 1, 0, BlockOrder(100, 30)), 32, 100)
    assert bounded < 1.2 * near_pairs(epoch_order(origins, 1, 0), 32, 100)


def test_every_batch_comes_from_all_blocks_that_are_mixed() -> None:
    origins = np.arange(12, 12 + 200 * 100)
    batches = np.array_split(epoch_order(origins, 1, 0, BlockOrder(100, 24)), len(origins) // 32)
    assert min(len(np.unique(batch // 100)) for batch in batches) >= 22


@given(
    block_steps=st.integers(1, 30),
    mixed=st.integers(1, 6),
    batch_size=st.integers(1, 20),
    count=st.integers(1, 400),
    seed=st.integers(0, 99),
)
def test_arranged_for_processes_each_batch_holds_the_same_windows(
    block_steps: int, mixed: int, batch_size: int, count: int, seed: int
) -> None:
    origins, order = np.arange(7, 7 + count), BlockOrder(block_steps, mixed)
    plain = epoch_order(origins, seed, 0, order)
    arranged = epoch_order(origins, seed, 0, order, batch_size)
    for first in range(0, count, batch_size):
        batch = slice(first, first + batch_size)
        assert sorted(plain[batch]) == sorted(arranged[batch])


@pytest.mark.parametrize("block_steps", [45, 211])
@pytest.mark.parametrize(("processes", "most"), [(2, 1.2), (4, 1.5), (8, 2.0)])
def test_processes_that_share_batches_share_few_blocks(
    block_steps: int, processes: int, most: float
) -> None:
    origins, mixed = np.arange(12, 12 + 12_000), 24
    order = epoch_order(origins, 1, 0, BlockOrder(block_steps, mixed), 32)

    def reads(of: int) -> int:
        shares = [origins_shared(order, 32, rank, of) // block_steps for rank in range(of)]
        return sum(fewest_reads(share.tolist(), mixed + 2) for share in shares)

    # Arranged in no way, each process would read all blocks.
    assert reads(processes) <= most * reads(1)


def test_blocks_that_all_fit_are_mixed_as_a_series_in_memory_is() -> None:
    origins = np.arange(50, 250)
    assert np.array_equal(
        epoch_order(origins, 3, 2, BlockOrder(25, 10)), epoch_order(origins, 3, 2)
    )


def test_an_order_comes_back_from_json() -> None:
    order = BlockOrder(20, 4)
    assert BlockOrder.from_json(order.to_json()) == order
    with pytest.raises(ValueError, match="no order"):
        BlockOrder(0, 4)
