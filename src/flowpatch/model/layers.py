"""The encoder's parts: attention, MLP, and the block of depth and breadth attention.

Parameter names are the published ones, so that published weights load as they are.

Shape suffixes: B windows, K temporal patches, P spatial patches, S slots of a patch, D width;
L any sequence of tokens, ... any leading dimensions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Self-attention with one head of full width over the second dimension from the end."""

    def __init__(self, dims: int, dropout: float) -> None:
        super().__init__()
        self.qkv = nn.Linear(dims, 3 * dims)
        self.proj = nn.Linear(dims, dims)
        self.dropout = dropout

    def forward(self, x_LD: Tensor) -> Tensor:
        """(..., L, D) -> (..., L, D)."""
        q_LD, k_LD, v_LD = self.qkv(x_LD).chunk(3, dim=-1)
        dropout = self.dropout if self.training else 0.0
        mixed_LD = F.scaled_dot_product_attention(q_LD, k_LD, v_LD, dropout_p=dropout)
        return F.dropout(self.proj(mixed_LD), self.dropout, self.training)


class MLP(nn.Module):
    """Two linear maps of equal width with an exact GELU between them."""

    def __init__(self, dims: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dims, dims)
        self.fc2 = nn.Linear(dims, dims)
        self.dropout = dropout

    def forward(self, x_LD: Tensor) -> Tensor:
        """(..., L, D) -> (..., L, D)."""
        hidden_LD = F.dropout(F.gelu(self.fc1(x_LD)), self.dropout, self.training)
        return F.dropout(self.fc2(hidden_LD), self.dropout, self.training)


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
        x_PSD = x_PSD + self.sattn(self.snorm1(x_PSD))
        x_PSD = x_PSD + self.smlp(self.snorm2(x_PSD))
        x_SPD = x_PSD.transpose(-3, -2)
        x_SPD = x_SPD + self.nattn(self.nnorm1(x_SPD))
        x_SPD = x_SPD + self.nmlp(self.nnorm2(x_SPD))
        return torch.transpose(x_SPD, -3, -2)
