"""The encoder's parts: attention, MLP, and the block of depth and breadth attention.

A layer holds float32 parameters under their published names, so that published weights load as
they are. What computes is the layer made ready for a precision by `ready`: its weights cast, and
joined where that saves work. A forecast makes each layer ready once, however many groups of
windows go through it.

Shape suffixes: P spatial patches, S slots of a patch, D width; L any sequence of tokens, ... any
leading dimensions.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowpatch.model.attention import attend
from flowpatch.model.dropout import dropout


@dataclass(frozen=True)
class LinearMap:
    """x W^T + b, from (..., D) to (..., outputs)."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, layer: nn.Linear, dtype: torch.dtype) -> "LinearMap":
        """A layer's map in a precision."""
        return cls(layer.weight.to(dtype), layer.bias.to(dtype))

    def __call__(self, x_D: Tensor) -> Tensor:
        """(..., D) -> (..., outputs)."""
        return F.linear(x_D, self.weight, self.bias)


@dataclass(frozen=True)
class Norm:
    """Layer normalisation over the last dimension."""

    weight: Tensor
    bias: Tensor
    eps: float

    @classmethod
    def of(cls, layer: nn.LayerNorm, dtype: torch.dtype) -> "Norm":
        """A layer's normalisation in a precision."""
        return cls(layer.weight.to(dtype), layer.bias.to(dtype), layer.eps)

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
        query, key, value = self.qkv.weight.chunk(3)
        query_bias, _, value_bias = self.qkv.bias.chunk(3)
        # The scores' scaling goes into the query, where it costs nothing.
        scaled_key = key.T * len(query) ** -0.5
        to_query = scaled_key @ query, scaled_key @ query_bias
        to_value = self.proj.weight @ value, self.proj.weight @ value_bias
        return ReadyAttention(
            LinearMap(*(part.to(dtype) for part in to_query)),
            LinearMap(*(part.to(dtype) for part in to_value)),
            self.proj.bias.to(dtype),
            self.dropout if self.training else 0.0,
        )


@dataclass(frozen=True)
class ReadyAttention:
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
        maps = LinearMap.of(self.fc1, dtype), LinearMap.of(self.fc2, dtype)
        return ReadyMLP(*maps, self.dropout if self.training else 0.0)


@dataclass(frozen=True)
class ReadyMLP:
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
        depth = ReadyHalf(
            Norm.of(self.snorm1, dtype),
            self.sattn.ready(dtype),
            Norm.of(self.snorm2, dtype),
            self.smlp.ready(dtype),
            across=False,
        )
        breadth = ReadyHalf(
            Norm.of(self.nnorm1, dtype),
            self.nattn.ready(dtype),
            Norm.of(self.nnorm2, dtype),
            self.nmlp.ready(dtype),
            across=True,
        )
        return ReadyBlock(depth, breadth)


@dataclass(frozen=True)
class ReadyHalf:
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


@dataclass(frozen=True)
class ReadyBlock:
    """Both halves of a block in one precision."""

    depth: ReadyHalf
    breadth: ReadyHalf

    def __call__(self, x_PSD: Tensor) -> Tensor:
        """(..., P, S, D) -> (..., P, S, D)."""
        return self.breadth(self.depth(x_PSD))
