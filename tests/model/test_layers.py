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


def all_plain(layer: Attention, x: Tensor, across: bool) -> Tensor:
    """`plain_attention` of every sequence of (A, P, S, D)."""
    x = x.transpose(1, 2) if across else x
    whole = torch.stack([torch.stack([plain_attention(layer, one) for one in part]) for part in x])
    return whole.transpose(1, 2) if across else whole


@pytest.mark.parametrize("across", [False, True])
def test_joined_maps_give_what_the_published_four_maps_give(across: bool) -> None:
    layer, x = Attention(DIMS, 0.0), normal(2, 3, 4, DIMS)
    torch.testing.assert_close(layer(x, across), all_plain(layer, x, across))


def test_joined_maps_learn_what_the_published_four_maps_learn() -> None:
    layer, x = Attention(DIMS, 0.0), normal(2, 3, 4, DIMS)
    direction = normal(2, 3, 4, DIMS)
    parameters = dict(layer.named_parameters())
    found, expected = (
        torch.autograd.grad(out, list(parameters.values()), direction)
        for out in (layer(x, across=False), all_plain(layer, x, across=False))
    )
    for name, one, other in zip(parameters, found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("layer", [Attention, MLP, Block])
def test_layers_compute_in_the_precision_of_their_input(layer: type[nn.Module]) -> None:
    module, x = seeded(layer), normal(1, 3, 4, DIMS)
    flags = {"across": True} if layer is Attention else {}
    exact, rounded = module(x, **flags), module(x.bfloat16(), **flags)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=0.05, atol=0.05)
    rounded.float().sum().backward()
    assert {p.grad.dtype for p in module.parameters() if p.grad is not None} == {torch.float32}


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


def inside(layer: nn.Module) -> dict[str, bool]:
    return {"across": False} if isinstance(layer, Attention) else {}


@pytest.mark.parametrize("layer", [Attention, MLP, Block])
def test_dropout_acts_in_training_only(layer: type[nn.Module]) -> None:
    x = normal(1, 3, 4, DIMS)
    with_dropout, without = seeded(layer, 0.5), seeded(layer, 0.0)
    flags = inside(without)
    torch.testing.assert_close(
        with_dropout.eval()(x, **flags), without.eval()(x, **flags), rtol=0, atol=0
    )
    torch.testing.assert_close(without.train()(x, **flags), without.eval()(x, **flags))
    with_dropout.train()
    assert not torch.equal(with_dropout(x, **flags), with_dropout(x, **flags))


@pytest.mark.parametrize("probability", [0.2, 0.5])
@pytest.mark.parametrize("layer", [Attention, MLP])
def test_what_dropout_keeps_is_scaled_by_the_maps_around_it(
    layer: type[nn.Module], probability: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, x = seeded(layer, probability), normal(1, 3, 4, DIMS)
    flags = inside(module)
    expected = plain_dropout_everywhere(module, x, 1 / (1 - probability))
    # Everything is kept, and scaled all the same.
    monkeypatch.setattr("flowpatch.model.layers.drop", lambda x, _: x)
    monkeypatch.setattr("flowpatch.model.attention.KeepMask.apply", lambda _, x: x)
    torch.testing.assert_close(module(x, **flags), expected, rtol=1e-4, atol=1e-4)


def plain_dropout_everywhere(module: nn.Module, x: Tensor, scale: float) -> Tensor:
    """The layer where every dropout keeps and scales everything."""
    if isinstance(module, MLP):
        hidden = nn.functional.gelu(module.fc1(x)) * scale
        return module.fc2(hidden) * scale
    query, key, value = module.qkv(x).chunk(3, dim=-1)
    weights = (query @ key.mT / math.sqrt(DIMS)).softmax(dim=-1) * scale
    return module.proj(weights @ value) * scale


def test_dropout_is_after_attention_weights_and_projection_and_both_mlp_maps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = normal(1, 1, 64, DIMS)
    # Nearly everything dropped: what is left of an output is 0, or scaled up by 1 / (1 - p).
    for layer in (seeded(Attention, 0.9), seeded(MLP, 0.9)):
        assert (layer(x, **inside(layer)) == 0).float().mean() > 0.8
    mlp, seen = seeded(MLP, 0.9), []
    monkeypatch.setattr("flowpatch.model.layers.drop", lambda x, p: seen.append(x) or x)
    mlp(x)
    hidden, out = seen
    torch.testing.assert_close(hidden, nn.functional.gelu(mlp.fc1(x)))
    torch.testing.assert_close(out, mlp.fc2(10 * hidden) * 10, rtol=1e-3, atol=1e-3)
    attention = seeded(Attention, 0.9)
    monkeypatch.setattr("flowpatch.model.layers.drop", lambda x, *_: x)
    dropped, whole = attention(x, across=False), attention.eval()(x, across=False)
    assert not torch.allclose(dropped, whole)


def test_a_norm_with_any_weight_and_bias_is_part_of_the_maps_behind_it() -> None:
    block, x_PSD = Block(DIMS, 0.0), normal(3, 4, DIMS)
    for norm in (block.snorm1, block.snorm2, block.nnorm1, block.nnorm2):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    inside_PSD = x_PSD + all_plain(block.sattn, block.snorm1(x_PSD)[None], across=False)[0]
    inside_PSD = inside_PSD + plain_mlp(block.smlp, block.snorm2(inside_PSD))
    expected = inside_PSD + all_plain(block.nattn, block.nnorm1(inside_PSD)[None], across=True)[0]
    expected = expected + plain_mlp(block.nmlp, block.nnorm2(expected))
    direction = normal(3, 4, DIMS)
    parameters = dict(block.named_parameters())
    torch.testing.assert_close(block(x_PSD), expected, rtol=1e-4, atol=1e-5)
    found, wanted = (
        torch.autograd.grad(out, list(parameters.values()), direction)
        for out in (block(x_PSD), expected)
    )
    for name, one, other in zip(parameters, found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4, msg=name)
