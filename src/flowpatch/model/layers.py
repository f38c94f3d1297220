"""The encoder's parts: attention, MLP, and the block of depth and breadth attention.

A layer holds float32 parameters under their published names, so that published weights load as
they are. What computes is the layer made ready for a precision by `ready`: its weights cast, and
joined where that saves work, as passes over tokens cost much and products of weights little. So
the weight and the bias of a norm are part of the maps behind it, and what dropout keeps is scaled
by the maps around it. A forecast makes each layer ready once, however many groups of windows go
through it.

Shape suffixes: A layers that are alike; P spatial patches, S slots of a patch, D width; L any
sequence of tokens, ... any leading dimensions.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowpatch.model.attention import attend
from flowpatch.model.dropout import drop, scale_of_kept


class LinearMap(NamedTuple):
    """x W^T + b, from (..., D) to (..., outputs)."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x_D: Tensor) -> Tensor:
        """(..., D) -> (..., outputs)."""
        return F.linear(x_D, self.weight, self.bias)


class Affine(NamedTuple):
    """What (A,) norms do behind the norm itself: (A, D) factors, and what is added."""

    factor: Tensor
    added: Tensor


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
    """An attention's joined maps in one precision; without dropout the value has the bias."""

    to_query: LinearMap
    to_value: LinearMap
    bias: Tensor | None
    dropout: float

    def __call__(self, x_PSD: Tensor, across: bool) -> Tensor:
        """(..., P, S, D) -> (..., P, S, D), along S, or `across` P."""
        query_PSD, value_PSD = self.to_query(x_PSD), self.to_value(x_PSD)
        mixed_PSD = attend(query_PSD, x_PSD, value_PSD, across, self.dropout)
        return mixed_PSD if self.bias is None else drop(mixed_PSD + self.bias, self.dropout)


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
        hidden_LD = drop(F.gelu(self.fc1(x_LD)), self.dropout)
        return drop(self.fc2(hidden_LD), self.dropout)


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

    attention: ReadyAttention
    mlp: ReadyMLP
    across: bool
    eps: float

    def __call__(self, x_PSD: Tensor) -> Tensor:
        """(..., P, S, D) -> (..., P, S, D)."""
        if not self.across or x_PSD.device.type != "cpu":
            return self._through(x_PSD, self.across)
        # A CPU copies whatever is strided, forwards and backwards; turned around once, nothing is.
        x_SPD = x_PSD.transpose(-3, -2).contiguous()
        return self._through(x_SPD, across=False).transpose(-3, -2).contiguous()

    def _through(self, x_PSD: Tensor, across: bool) -> Tensor:
        x_PSD = x_PSD + self.attention(self._norm(x_PSD), across)
        return x_PSD + self.mlp(self._norm(x_PSD))

    def _norm(self, x_D: Tensor) -> Tensor:
        return F.layer_norm(x_D, x_D.shape[-1:], eps=self.eps)


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
    attentions = ready_attentions(
        [part for b in blocks for part in (b.sattn, b.nattn)],
        dtype,
        _affine([norm for b in blocks for norm in (b.snorm1, b.nnorm1)]),
    )
    mlps = ready_mlps(
        [part for b in blocks for part in (b.smlp, b.nmlp)],
        dtype,
        _affine([norm for b in blocks for norm in (b.snorm2, b.nnorm2)]),
    )
    halves = [
        ReadyHalf(*parts, across=number % 2 == 1, eps=blocks[0].snorm1.eps)
        for number, parts in enumerate(zip(attentions, mlps, strict=True))
    ]
    return [ReadyBlock(*pair) for pair in zip(halves[::2], halves[1::2], strict=True)]


def ready_attentions(
    layers: Sequence[Attention], dtype: torch.dtype, norm: Affine | None = None
) -> list[ReadyAttention]:
    """Attentions of one width in a precision, with the joined maps that `Attention` explains.

    With y = f n + a behind the norm n itself, a value is W y + b = (W f) n + (W a + b). The norm is
    the key as well: a score is (W y + b) (f n + a), of which softmax ignores what the second a
    adds, so it is (f W f n + f (W a + b)) n.
    """
    query_ADD, key_ADD, value_ADD = _stacked(one.qkv.weight for one in layers).chunk(3, dim=1)
    query_bias_AD, _, value_bias_AD = _stacked(one.qkv.bias for one in layers).chunk(3, dim=1)
    project_ADD = _stacked(one.proj.weight for one in layers)
    # The scores' scaling goes into the query, where it costs nothing.
    scaled_key_ADD = key_ADD.transpose(1, 2) * key_ADD.shape[1] ** -0.5
    to_query = scaled_key_ADD @ query_ADD, _times(scaled_key_ADD, query_bias_AD)
    to_value = project_ADD @ value_ADD, _times(project_ADD, value_bias_AD)
    if norm is not None:
        weight_ADD, bias_AD = _behind(norm, *to_query)
        to_query = norm.factor[:, :, None] * weight_ADD, norm.factor * bias_AD
        to_value = _behind(norm, *to_value)
    bias_AD = _stacked(one.proj.bias for one in layers)
    dropout, kept = _dropout_of(layers)
    if not dropout:
        # Weights that add up to 1 mix values that have the bias to what has it once.
        to_value = to_value[0], to_value[1] + bias_AD
    parts = (
        *to_query,
        # Both what is dropped of the weights and of what they mix.
        *(part * kept**2 for part in to_value),
        bias_AD * kept,
    )
    return [
        ReadyAttention(
            LinearMap(to_query, query_bias),
            LinearMap(to_value, value_bias),
            bias if dropout else None,
            dropout,
        )
        for to_query, query_bias, to_value, value_bias, bias in zip(
            *(part.to(dtype).unbind() for part in parts), strict=True
        )
    ]


def ready_mlps(
    layers: Sequence[MLP], dtype: torch.dtype, norm: Affine | None = None
) -> list[ReadyMLP]:
    """MLPs of one width in a precision."""
    first = _stacked(one.fc1.weight for one in layers), _stacked(one.fc1.bias for one in layers)
    if norm is not None:
        first = _behind(norm, *first)
    dropout, kept = _dropout_of(layers)
    parts = (
        *first,
        _stacked(one.fc2.weight for one in layers) * kept**2,
        _stacked(one.fc2.bias for one in layers) * kept,
    )
    return [
        ReadyMLP(LinearMap(weight1, bias1), LinearMap(weight2, bias2), dropout)
        for weight1, bias1, weight2, bias2 in zip(
            *(part.to(dtype).unbind() for part in parts), strict=True
        )
    ]


def _affine(norms: Sequence[nn.LayerNorm]) -> Affine:
    return Affine(_stacked(one.weight for one in norms), _stacked(one.bias for one in norms))


def _behind(norm: Affine, weight_ADD: Tensor, bias_AD: Tensor) -> tuple[Tensor, Tensor]:
    """Linear maps of what norms give, as maps of the norms themselves."""
    return weight_ADD * norm.factor[:, None], bias_AD + _times(weight_ADD, norm.added)


def _times(weight_ADD: Tensor, x_AD: Tensor) -> Tensor:
    return (weight_ADD @ x_AD[:, :, None])[:, :, 0]


def _dropout_of(layers: Sequence[Attention] | Sequence[MLP]) -> tuple[float, float]:
    """With which probability all of the layers drop now, and what scales the rest."""
    (probability,) = {layer.dropout if layer.training else 0.0 for layer in layers}
    device = next(layers[0].parameters()).device
    return probability, scale_of_kept(probability, device)


def _stacked(parameters: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(parameters))
