"""Attention of one head over many short sequences, as fast as the device has it.

On a GPU that is PyTorch's fused attention. On a CPU its fused kernel knows no dropout and loses to
two batched products for sequences as short as patches, so there they are spelled out, with a
backward pass of their own.

Shape suffixes: P and S the two dimensions of tokens, D width; G sequences of L tokens, cut from P
and S.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from flowpatch.model.dropout import KeepMask


def attend(
    query_PSD: Tensor, key_PSD: Tensor, value_PSD: Tensor, across: bool, dropout: float
) -> Tensor:
    """(..., P, S, D) -> (..., P, S, D): softmax(query key^T) value along S, or `across` P.

    The query is scaled already. `dropout` is the probability with which an attention weight is
    dropped: 0 outside training.
    """
    if query_PSD.device.type == "cpu":
        mixed: Tensor = _SpelledOut.apply(query_PSD, key_PSD, value_PSD, across, dropout)  # type: ignore[no-untyped-call]
        return mixed
    # The fused kernels take four dimensions; given five, PyTorch spells it all out.
    query, key, value = (
        (part.transpose(-3, -2) if across else part).flatten(0, -4)
        for part in (query_PSD, key_PSD, value_PSD)
    )
    mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=1.0)
    return (mixed.transpose(-3, -2) if across else mixed).reshape(query_PSD.shape)


class _SpelledOut(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, across: bool, dropout: float
    ) -> Tensor:
        query_GLD, key_GLD, value_GLD = (_sequences(x, across) for x in (query, key, value))
        scores_GLL = torch.bmm(query_GLD, key_GLD.transpose(1, 2))
        # In bfloat16 a softmax over rows this short takes five times as long, back and forth.
        weights_GLL = scores_GLL.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
        mask = KeepMask.draw(weights_GLL.shape, dropout) if dropout else None
        ctx.across, ctx.scale = across, mask.scale if mask else 1.0
        ctx.save_for_backward(query, key, value, weights_GLL, mask.words if mask else None)
        mixed_GLD = torch.bmm(mask.apply(weights_GLL) if mask else weights_GLL, value_GLD)
        return _tokens(mixed_GLD, query.shape, across)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_mixed: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, weights_GLL, words_GLL = ctx.saved_tensors
        across = ctx.across
        mask = None if words_GLL is None else KeepMask(words_GLL, ctx.scale)
        by_mixed_GLD, value_GLD = _sequences(by_mixed, across), _sequences(value, across)
        by_kept_GLL = torch.bmm(by_mixed_GLD, value_GLD.transpose(1, 2))
        by_weights_GLL = mask.apply(by_kept_GLL) if mask else by_kept_GLL
        by_scores_GLL = torch._softmax_backward_data(
            by_weights_GLL.float(), weights_GLL.float(), -1, torch.float32
        ).to(query.dtype)
        kept_GLL = mask.apply(weights_GLL) if mask else weights_GLL
        by_query_GLD = torch.bmm(by_scores_GLL, _sequences(key, across))
        by_key_GLD = torch.bmm(by_scores_GLL.transpose(1, 2), _sequences(query, across))
        by_value_GLD = torch.bmm(kept_GLL.transpose(1, 2), by_mixed_GLD)
        by_parts = (by_query_GLD, by_key_GLD, by_value_GLD)
        return *(_tokens(part_GLD, query.shape, across) for part_GLD in by_parts), None, None


def _sequences(x_PSD: Tensor, across: bool) -> Tensor:
    """(..., P, S, D) -> contiguous (G, L, D): strided factors would take the slow way in bmm."""
    x = x_PSD.transpose(-3, -2) if across else x_PSD
    return x.reshape(-1, *x.shape[-2:]).contiguous()


def _tokens(x_GLD: Tensor, shape: torch.Size, across: bool) -> Tensor:
    """The inverse of `_sequences`."""
    if not across:
        return x_GLD.view(shape)
    *leading, patches, slots, dims = shape
    return x_GLD.view(*leading, slots, patches, dims).transpose(-3, -2)
