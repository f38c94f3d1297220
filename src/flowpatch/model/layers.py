"""The encoder's parts: attention, MLP, and the block of depth and breadth attention.

A layer holds float32 parameters under their published names, so that published weights load as
they are. What computes is the layer made ready for a precision by `ready`: its weights cast, and
joined where that saves work. A forecast makes each layer ready once, however many groups of
windows go through it.

Shape suffixes: P spatial patches, S slots of a patch, D width; L any sequence of tokens, ... any
leading dimensions.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowpatch.model.attention import attend
from flowpatch.model.dropout import dropout


class LinearMap(NamedTuple):
    """x W^T + b, from (..., D) to (..., outputs)."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x_D: Tensor) -> Tensor:
        """(..., D) -> (..., outputs)."""
        return F.linear(x_D, self.weight, self.bias)


class Norm(NamedTuple):
    """Layer normalisation over the last dimension."""

    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x_D: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return F.layer_norm(x_D, self.weight.shape, self.weight, self.bias, self.eps)


class Attention(nn.Module):
    """Self-attention with one head of full width, inside patches or across them.

    With one head, the published four linear maps of a token are two. Of the scores

        (x Wq + bq) (x Wk + bk)^T = (x Wq Wk^T + bq Wk^T) x^T + what is equal for all keys

    softmax ignores the last term, so x itself is the key; and as mixing is linear, the projection
    behind it can come before it: w (x Wv + bv) Wp = w (x Wv Wp + bv Wp). The products of weights
    are small. What is learned, and what comes out, is the same.
    """

    def __init__(self, dims: int, dropout: float) -> None:
        super().__init__()
        self.qkv = nn.Linear(dims, 3 * dims)
        self.proj = nn.Linear(dims, dims)
        self.dropout = dropout

    def forward(self, x_PSD: Tensor, across: bool) -> Tensor:
        """(..., P, S, D) -> (..., P, S, D), along S, or `across` P."""
        return self.ready(x_PSD.dtype)(x_PSD, across)

    def ready(self, dtype: torch.dtype) -> "ReadyAttention":
        """The attention in a precision."""
        return ready_attentions([self], dtype)[0]


class ReadyAttention(NamedTuple):
    """An attention's joined maps in one precision."""

    to_query: LinearMap
    to_value: LinearMap
    bias: Tensor
    dropout: float

    def __call__(self, x_PSD: Tensor, across: bool) -> Tensor:
        """(..., P, S, D) -> (..., P, S, D), along S, or `across` P."""
        query_PSD, value_PSD = self.to_query(x_PSD), self.to_value(x_PSD)
        mixed_PSD = attend(query_PSD, x_PSD, value_PSD, across, self.dropout)
        return dropout(mixed_PSD + self.bias, self.dropout)


class MLP(nn.Module):
    """Two linear maps of equal width with an exact GELU between them."""

    def __init__(self, dims: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dims, dims)
        self.fc2 = nn.Linear(dims, dims)
        self.dropout = dropout

    def forward(self, x_LD: Tensor) -> Tensor:
        """(..., L, D) -> (..., L, D)."""
        return self.ready(x_LD.dtype)(x_LD)

    def ready(self, dtype: torch.dtype) -> "ReadyMLP":
        """The MLP in a precision."""
        return ready_mlps([self], dtype)[0]


class ReadyMLP(NamedTuple):
    """An MLP's maps in one precision."""

    fc1: LinearMap
    fc2: LinearMap
    dropout: float

    def __call__(self, x_LD: Tensor) -> Tensor:
        """(..., L, D) -> (..., L, D)."""
        hidden_LD = dropout(F.gelu(self.fc1(x_LD)), self.dropout)
        return dropout(self.fc2(hidden_LD), self.dropout)


class Block(nn.Module):
    """Depth attention inside each patch, then breadth attention across patches slot by slot.

    Names begin with s (spatial: inside a patch) and n (node: one slot over all patches), as
    published.
    """

    def __init__(self, dims: int, dropout: float) -> None:
        super().__init__()
        self.snorm1 = nn.LayerNorm(dims)
        self.sattn = Attention(dims, dropout)
        self.snorm2 = nn.LayerNorm(dims)
        self.smlp = MLP(dims, dropout)
        self.nnorm1 = nn.LayerNorm(dims)
        self.nattn = Attention(dims, dropout)
        self.nnorm2 = nn.LayerNorm(dims)
        self.nmlp = MLP(dims, dropout)

    def forward(self, x_PSD: Tensor) -> Tensor:
        """(..., P, S, D) -> (..., P, S, D)."""
        return self.ready(x_PSD.dtype)(x_PSD)

    def ready(self, dtype: torch.dtype) -> "ReadyBlock":
        """The block in a precision."""
        return ready_blocks([self], dtype)[0]


class ReadyHalf(NamedTuple):
    """Attention along S, or `across` P, and an MLP, each behind a norm and beside a residual."""

    attention_norm: Norm
    attention: ReadyAttention
    mlp_norm: Norm
    mlp: ReadyMLP
    across: bool

    def __call__(self, x_PSD: Tensor) -> Tensor:
        """(..., P, S, D) -> (..., P, S, D)."""
        x_PSD = x_PSD + self.attention(self.attention_norm(x_PSD), self.across)
        return x_PSD + self.mlp(self.mlp_norm(x_PSD))


class ReadyBlock(NamedTuple):
    """Both halves of a block in one precision."""

    depth: ReadyHalf
    breadth: ReadyHalf

    def __call__(self, x_PSD: Tensor) -> Tensor:
        """(..., P, S, D) -> (..., P, S, D)."""
        return self.breadth(self.depth(x_PSD))


def ready_blocks(blocks: Sequence[Block], dtype: torch.dtype) -> list[ReadyBlock]:
    """All blocks in a precision, the same parts of all of them made ready at once.

    A GPU takes as long to start on one small matrix as on a stack of them.
    """
    norms = ready_norms(
        [norm for b in blocks for norm in (b.snorm1, b.snorm2, b.nnorm1, b.nnorm2)], dtype
    )
    attentions = ready_attentions([part for b in blocks for part in (b.sattn, b.nattn)], dtype)
    mlps = ready_mlps([part for b in blocks for part in (b.smlp, b.nmlp)], dtype)
    both = zip(norms[::2], attentions, norms[1::2], mlps, strict=True)
    halves = [ReadyHalf(*parts, across=number % 2 == 1) for number, parts in enumerate(both)]
    return [ReadyBlock(*pair) for pair in zip(halves[::2], halves[1::2], strict=True)]


def ready_norms(layers: Sequence[nn.LayerNorm], dtype: torch.dtype) -> list[Norm]:
    """Normalisations of one width in a precision."""
    parts = _stacked(layer.weight for layer in layers), _stacked(layer.bias for layer in layers)
    weights, biases = (part.to(dtype).unbind() for part in parts)
    return [
        Norm(weight, bias, layer.eps)
        for weight, bias, layer in zip(weights, biases, layers, strict=True)
    ]


def ready_attentions(layers: Sequence[Attention], dtype: torch.dtype) -> list[ReadyAttention]:
    """Attentions of one width in a precision, with the joined maps that `Attention` explains."""
    query_ADD, key_ADD, value_ADD = _stacked(one.qkv.weight for one in layers).chunk(3, dim=1)
    query_bias_AD, _, value_bias_AD = _stacked(one.qkv.bias for one in layers).chunk(3, dim=1)
    project_ADD = _stacked(one.proj.weight for one in layers)
    # The scores' scaling goes into the query, where it costs nothing.
    scaled_key_ADD = key_ADD.transpose(1, 2) * key_ADD.shape[1] ** -0.5
    parts = (
        scaled_key_ADD @ query_ADD,
        (scaled_key_ADD @ query_bias_AD[:, :, None])[:, :, 0],
        project_ADD @ value_ADD,
        (project_ADD @ value_bias_AD[:, :, None])[:, :, 0],
        _stacked(one.proj.bias for one in layers),
    )
    return [
        ReadyAttention(
            LinearMap(to_query, query_bias),
            LinearMap(to_value, value_bias),
            bias,
            layer.dropout if layer.training else 0.0,
        )
        for to_query, query_bias, to_value, value_bias, bias, layer in zip(
            *(part.to(dtype).unbind() for part in parts), layers, strict=True
        )
    ]


def ready_mlps(layers: Sequence[MLP], dtype: torch.dtype) -> list[ReadyMLP]:
    """MLPs of one width in a precision."""
    parts = (
        _stacked(one.fc1.weight for one in layers),
        _stacked(one.fc1.bias for one in layers),
        _stacked(one.fc2.weight for one in layers),
        _stacked(one.fc2.bias for one in layers),
    )
    return [
        ReadyMLP(
            LinearMap(weight1, bias1),
            LinearMap(weight2, bias2),
            layer.dropout if layer.training else 0.0,
        )
        for weight1, bias1, weight2, bias2, layer in zip(
            *(part.to(dtype).unbind() for part in parts), layers, strict=True
        )
    ]


def _stacked(parameters: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(parameters))
