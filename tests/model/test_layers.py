"""Attention, MLP and block against plain formulas, and dropout in training only."""

import math

import pytest
import torch
from torch import Tensor, nn

from flowpatch.model.layers import MLP, Attention, Block

DIMS = 6


def seeded(layer: type[nn.Module], dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return layer(DIMS, dropout)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def plain_attention(layer: Attention, x_LD: Tensor) -> Tensor:
    """Token by token: softmax of the scaled products with every token, then their values mixed."""
    qkv = x_LD @ layer.qkv.weight.T + layer.qkv.bias
    q, k, v = qkv[:, :DIMS], qkv[:, DIMS : 2 * DIMS], qkv[:, 2 * DIMS :]
    mixed = []
    for query in q:
        weight = torch.stack([torch.dot(query, key) for key in k]).div(math.sqrt(DIMS)).exp()
        mixed.append((weight[:, None] * v).sum(dim=0) / weight.sum())
    return torch.stack(mixed) @ layer.proj.weight.T + layer.proj.bias


def plain_mlp(layer: MLP, x_LD: Tensor) -> Tensor:
    hidden = x_LD @ layer.fc1.weight.T + layer.fc1.bias
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return gelu @ layer.fc2.weight.T + layer.fc2.bias


def test_attention_is_softmax_of_scaled_products() -> None:
    layer, x_LD = Attention(DIMS, 0.0), normal(5, DIMS)
    torch.testing.assert_close(layer(x_LD), plain_attention(layer, x_LD))


def test_attention_mixes_only_the_second_dimension_from_the_end() -> None:
    layer, x = Attention(DIMS, 0.0), normal(2, 3, 4, DIMS)
    expected = torch.stack(
        [torch.stack([plain_attention(layer, tokens) for tokens in one]) for one in x]
    )
    torch.testing.assert_close(layer(x), expected)


def test_mlp_is_two_maps_with_an_exact_gelu_between() -> None:
    layer, x_LD = MLP(DIMS, 0.0), 3 * normal(5, DIMS)
    torch.testing.assert_close(layer(x_LD), plain_mlp(layer, x_LD))
    # The tanh approximation is off by more than rounding.
    approximate = layer.fc2(nn.functional.gelu(layer.fc1(x_LD), approximate="tanh"))
    assert (layer(x_LD) - approximate).abs().max() > 1e-6


def test_block_attends_inside_each_patch_then_across_patches_slot_by_slot() -> None:
    block, x_PSD = Block(DIMS, 0.0), normal(3, 4, DIMS)
    patches = []
    for tokens in x_PSD:
        tokens = tokens + plain_attention(block.sattn, block.snorm1(tokens))
        patches.append(tokens + plain_mlp(block.smlp, block.snorm2(tokens)))
    inside_PSD = torch.stack(patches)
    slots = []
    for tokens in inside_PSD.unbind(dim=1):
        tokens = tokens + plain_attention(block.nattn, block.nnorm1(tokens))
        slots.append(tokens + plain_mlp(block.nmlp, block.nnorm2(tokens)))
    torch.testing.assert_close(block(x_PSD), torch.stack(slots, dim=1))


def test_block_treats_windows_and_temporal_patches_apart() -> None:
    block, x_BKPSD = Block(DIMS, 0.0), normal(2, 3, 4, 5, DIMS)
    expected = torch.stack([torch.stack([block(one) for one in window]) for window in x_BKPSD])
    torch.testing.assert_close(block(x_BKPSD), expected)


@pytest.mark.parametrize(
    ("layer", "shape"), [(Attention, (5, DIMS)), (MLP, (5, DIMS)), (Block, (3, 4, DIMS))]
)
def test_dropout_acts_in_training_only(layer: type[nn.Module], shape: tuple[int, ...]) -> None:
    x = normal(*shape)
    with_dropout, without = seeded(layer, 0.5), seeded(layer, 0.0)
    torch.testing.assert_close(with_dropout.eval()(x), without.eval()(x), rtol=0, atol=0)
    torch.testing.assert_close(without.train()(x), without.eval()(x))
    with_dropout.train()
    assert not torch.equal(with_dropout(x), with_dropout(x))


def test_dropout_is_after_attention_weights_and_projection_and_both_mlp_maps() -> None:
    x_LD = normal(64, DIMS)
    # Nearly everything dropped: what is left of an output is 0, or scaled up by 1 / (1 - p).
    for layer in (seeded(Attention, 0.9), seeded(MLP, 0.9)):
        assert (layer(x_LD) == 0).float().mean() > 0.8
    mlp = seeded(MLP, 0.9)
    hidden_seen: list[Tensor] = []
    mlp.fc2.register_forward_hook(lambda _, inputs, __: hidden_seen.append(inputs[0]))
    mlp(x_LD)
    assert (hidden_seen[0] == 0).float().mean() > 0.8
    attention = seeded(Attention, 0.9)
    mixed_seen: list[Tensor] = []
    attention.proj.register_forward_hook(lambda _, inputs, __: mixed_seen.append(inputs[0]))
    attention(x_LD)
    attention.eval()(x_LD)
    dropped, whole = mixed_seen
    assert not torch.allclose(dropped, whole)
