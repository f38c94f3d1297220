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
    dropped: 0 outside training. The others are left to be scaled by the value, see
    `dropout.scale_of_kept`.
    """
    query, key, value = (
        part.transpose(-3, -2) if across else part for part in (query_PSD, key_PSD, value_PSD)
    )
    shape = query.shape
    if query.device.type == "cpu":
        mixed: Tensor = _SpelledOut.apply(query, key, value, dropout)  # type: ignore[no-untyped-call]
    else:
        # The fused kernels take four dimensions; given five, PyTorch spells it all out.
        query, key, value = (part.flatten(0, -4) for part in (query, key, value))
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=1.0)
        mixed = mixed.reshape(shape)
    return mixed.transpose(-3, -2) if across else mixed


class _SpelledOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
        query_GLD, key_GLD, value_GLD = map(_sequences, (query, key, value))
        scores_GLL = torch.bmm(query_GLD, key_GLD.transpose(1, 2))
        # In bfloat16 a softmax over rows this short takes five times as long, back and forth.
        weights_GLL = scores_GLL.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
        mask = KeepMask.draw(weights_GLL.shape, dropout) if dropout else None
        saved = query_GLD, key_GLD, value_GLD, weights_GLL, mask.words if mask else None
        ctx.save_for_backward(*saved)
        kept_GLL = mask.apply(weights_GLL) if mask else weights_GLL
        return torch.bmm(kept_GLL, value_GLD).view(query.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_mixed: Tensor) -> tuple[Tensor | None, ...]:
        query_GLD, key_GLD, value_GLD, weights_GLL, words_GLL = ctx.saved_tensors
        mask = None if words_GLL is None else KeepMask(words_GLL)
        by_mixed_GLD = _sequences(by_mixed)
        by_kept_GLL = torch.bmm(by_mixed_GLD, value_GLD.transpose(1, 2))
        by_weights_GLL = mask.apply(by_kept_GLL) if mask else by_kept_GLL
        by_scores_GLL = torch._softmax_backward_data(
            by_weights_GLL.float(), weights_GLL.float(), -1, torch.float32
        ).to(query_GLD.dtype)
        kept_GLL = mask.apply(weights_GLL) if mask else weights_GLL
        by_query_GLD = torch.bmm(by_scores_GLL, key_GLD)
        by_key_GLD = torch.bmm(by_scores_GLL.transpose(1, 2), query_GLD)
        by_value_GLD = torch.bmm(kept_GLL.transpose(1, 2), by_mixed_GLD)
        by_parts = (by_query_GLD, by_key_GLD, by_value_GLD)
        return *(part_GLD.view(by_mixed.shape) for part_GLD in by_parts), None


def _sequences(x_PSD: Tensor) -> Tensor:
    """(..., P, S, D) -> contiguous (G, L, D): strided factors would take the slow way in bmm."""
    return x_PSD.reshape(-1, *x_PSD.shape[-2:]).contiguous()
