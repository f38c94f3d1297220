"""The fast attention against the plain one: outputs and gradients, with and without dropout."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flowpatch.model.attention import attend
from flowpatch.model.dropout import KeepMask

sizes = st.integers(1, 6)


def tokens(*shape: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    made = [torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(3)]
    return [x.to(dtype).requires_grad_() for x in made]


def plain(query: Tensor, key: Tensor, value: Tensor, across: bool, kept: Tensor | None) -> Tensor:
    """Softmax of all products, one sequence at a time; `kept` keeps each weight, or drops it."""
    if across:
        query, key, value = (x.transpose(-3, -2) for x in (query, key, value))
    shape = query.shape
    query, key, value = (x.reshape(-1, *shape[-2:]) for x in (query, key, value))
    mixed = []
    for number in range(len(query)):
        weights = (query[number] @ key[number].T).softmax(dim=-1)
        if kept is not None:
            weights = weights * kept[number]
        mixed.append(weights @ value[number])
    whole = torch.stack(mixed).reshape(shape)
    return whole.transpose(-3, -2) if across else whole


def check(fast: Tensor, slow: Tensor, inputs: list[Tensor], tolerance: float) -> None:
    torch.testing.assert_close(fast, slow, rtol=tolerance, atol=tolerance)
    direction = torch.randn(fast.shape, generator=torch.Generator().manual_seed(9)).to(fast.dtype)
    for found, expected in zip(
        torch.autograd.grad(fast, inputs, direction),
        torch.autograd.grad(slow, inputs, direction),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@given(batch=sizes, patches=sizes, slots=sizes, dims=sizes, across=st.booleans())
def test_it_is_softmax_attention_along_either_dimension(
    batch: int, patches: int, slots: int, dims: int, across: bool
) -> None:
    inputs = tokens(batch, patches, slots, dims, dtype=torch.float32)
    check(attend(*inputs, across, 0.0), plain(*inputs, across, None), inputs, 1e-4)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_a_dropped_weight_takes_no_part_forwards_or_backwards(
    across: bool, dtype: torch.dtype, tolerance: float
) -> None:
    inputs = tokens(2, 4, 5, 8, dtype=dtype)
    torch.manual_seed(7)
    fast = attend(*inputs, across, 0.4)
    torch.manual_seed(7)
    shape = torch.Size([2 * 5, 4, 4] if across else [2 * 4, 5, 5])
    mask = KeepMask.draw(shape, 0.4)
    kept = mask.words.to(dtype)
    assert 0 < (kept == 0).sum() < kept.numel()
    check(fast, plain(*inputs, across, kept), inputs, tolerance)


@pytest.mark.parametrize("across", [False, True])
def test_a_gradient_in_any_memory_order_is_right(across: bool) -> None:
    inputs = tokens(2, 3, 4, 5, dtype=torch.float32)
    results = []
    for attention in (lambda: attend(*inputs, across, 0.0), lambda: plain(*inputs, across, None)):
        # What comes back through a transposition and an expansion is not contiguous.
        sums = attention().transpose(1, 2).sum(dim=0, keepdim=True).square().sum()
        results.append(torch.autograd.grad(sums, inputs))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_large_scores_do_not_overflow() -> None:
    query, key, value = tokens(1, 2, 3, 4, dtype=torch.bfloat16)
    out = attend(query * 1000, key * 1000, value, False, 0.0)
    assert out.isfinite().all()
