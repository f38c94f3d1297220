"""Dropout by bits: the right chance, the right scale, one mask forwards and backwards."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowpatch.model.dropout import KeepMask, drop, masks_of_share, scale_of_kept

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    probability=st.floats(0.001, 0.999),
    seed=st.integers(0, 2**31),
)
def test_a_value_is_dropped_or_kept_and_its_gradient_likewise(
    dtype: torch.dtype, shape: list[int], probability: float, seed: int
) -> None:
    torch.manual_seed(seed)
    x = torch.randn(shape).to(dtype).requires_grad_()
    # A copy, as it is used up.
    out = drop(x + 0, probability)
    torch.manual_seed(seed)
    torch.randn(shape)
    mask = KeepMask.draw(x.shape, probability)
    assert set(mask.words.unique().tolist()) <= {0, 1}
    # The plain version: a choice.
    expected = torch.where(mask.words.bool(), x, torch.zeros_like(x))
    torch.testing.assert_close(out, expected, rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(out, x, torch.ones_like(out))
    (expected_gradient,) = torch.autograd.grad(expected, x, torch.ones_like(out))
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=0)


@pytest.mark.parametrize("probability", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_chance_is_as_asked_and_the_mean_stays(probability: float, dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    count = 400_000
    out = drop(torch.ones(count, dtype=dtype), probability).float()
    deviation = (probability * (1 - probability) / count) ** 0.5
    assert (out == 0).float().mean().item() == pytest.approx(probability, abs=5 * deviation)
    mean = out.mean().item() * scale_of_kept(probability, torch.device("cpu"))
    assert mean == pytest.approx(1, abs=5 * deviation / (1 - probability))


def test_what_a_gpu_keeps_is_scaled_there() -> None:
    assert scale_of_kept(0.3, torch.device("cuda")) == 1
    assert scale_of_kept(0.0, torch.device("cpu")) == 1


def test_neighbours_and_draws_do_not_depend_on_each_other() -> None:
    torch.manual_seed(4)
    first, second = (KeepMask.draw(torch.Size([300_000]), 0.5).words.float() for _ in range(2))
    for one, other in ((first[1:], first[:-1]), (first[4:], first[:-4]), (first, second)):
        assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1].item()) < 0.01


def test_the_seed_of_torch_decides() -> None:
    x = torch.randn(1000)
    torch.manual_seed(5)
    once = drop(x.clone(), 0.3)
    state = torch.get_rng_state()
    then = drop(x.clone(), 0.3)
    torch.manual_seed(5)
    assert torch.equal(drop(x.clone(), 0.3), once)
    torch.set_rng_state(state)
    assert torch.equal(drop(x.clone(), 0.3), then)
    assert not torch.equal(once, then)


def test_nothing_is_done_without_a_chance() -> None:
    x = torch.randn(10)
    assert drop(x, 0.0) is x


def test_what_another_still_needs_is_not_used_up_quietly() -> None:
    x = torch.randn(10, requires_grad=True).exp()
    drop(x, 0.5)
    # What exp gives is what its gradient is made of.
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        x.sum().backward()


def test_a_gradient_of_others_is_left_as_it_is() -> None:
    x = torch.randn(1000, requires_grad=True)
    gradient = torch.ones(1000)
    dropped, kept = torch.autograd.grad(drop(x + 0, 0.5) + 2 * x, (x,), gradient)[0], gradient
    assert set((dropped - 2).unique().tolist()) == {0, 1}
    assert kept.eq(1).all()


def test_values_in_any_memory_order_are_masked_by_their_place() -> None:
    x = torch.randn(6, 4).T
    mask = KeepMask.draw(x.shape, 0.5)
    torch.testing.assert_close(mask.apply(x), x * mask.words)


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 0, 1)])
def test_in_place_any_memory_order_will_do(order: tuple[int, ...]) -> None:
    x = torch.randn(5, 6, 7).permute(order).requires_grad_()
    out = drop(x * 1, 0.5)
    assert out.stride() == x.stride()
    is_kept = out != 0
    assert 0.3 < is_kept.float().mean() < 0.7
    torch.testing.assert_close(out, x * is_kept)
    (gradient,) = torch.autograd.grad(out, x, torch.ones(out.shape))
    torch.testing.assert_close(gradient, is_kept.float())


@given(
    windows=st.integers(1, 9),
    shape=st.lists(st.integers(1, 5), min_size=0, max_size=3),
    size=st.integers(1, 5),
    seed=st.integers(0, 2**31),
)
def test_shares_of_a_batch_are_masked_as_the_whole_batch(
    windows: int, shape: list[int], size: int, seed: int
) -> None:
    torch.manual_seed(seed)
    whole = KeepMask.draw(torch.Size([windows, *shape]), 0.4).words
    parts = []
    for part in torch.arange(windows).tensor_split(size):
        torch.manual_seed(seed)
        if len(part):
            with masks_of_share(int(part[0]), len(part)):
                parts.append(KeepMask.draw(torch.Size([len(part), *shape]), 0.4).words)
    assert torch.equal(torch.cat(parts), whole)


def test_a_share_ends_with_its_block() -> None:
    torch.manual_seed(6)
    whole = KeepMask.draw(torch.Size([50]), 0.5).words
    with pytest.raises(ZeroDivisionError), masks_of_share(3, 5):
        raise ZeroDivisionError
    torch.manual_seed(6)
    assert torch.equal(KeepMask.draw(torch.Size([50]), 0.5).words, whole)
