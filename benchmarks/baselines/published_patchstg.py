"""PatchSTG in its published formulation, as a baseline: float32, eager, one operation at a time.

What makes it slow is kept on purpose, as it is what people run today: patches padded by the
`paper` layout, time features repeated for every node, attention weights spelled out, and eight
dropouts a block. Weights carry their published names, so that this and
`flowpatch.model.patchstg` load each other's.

Shape suffixes: B windows, T input steps, K temporal patches, H label steps, N nodes, C slots of
all patches, P patches, S slots of a patch, D width of the encoder, F time features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowpatch.patches.layout import PatchLayout

DAYS_A_WEEK = 7


@dataclass(frozen=True)
class Widths:
    """What the published code calls its hyperparameters."""

    layers: int = 5
    input_dims: int = 64
    node_dims: int = 64
    tod_dims: int = 32
    dow_dims: int = 32
    dropout: float = 0.1

    @property
    def dims(self) -> int:
        """D."""
        return self.input_dims + self.node_dims + self.tod_dims + self.dow_dims


class PublishedPatchSTG(nn.Module):
    """Scaled (B, T, N, 1) input and (B, T, N, 2) time features -> (B, H, N, 1) scaled output."""

    def __init__(
        self,
        widths: Widths,
        layout: PatchLayout,
        output_len: int,
        steps_a_day: int,
        temporal_patch_size: int,
        temporal_patch_count: int = 1,
    ) -> None:
        super().__init__()
        self.steps_a_day, self.nodes = steps_a_day, len(layout.slot_of_node)
        self.patch_count = temporal_patch_count
        self.node_emb = nn.Parameter(torch.empty(self.nodes, widths.node_dims))
        self.time_in_day_emb = nn.Parameter(torch.empty(steps_a_day, widths.tod_dims))
        self.day_in_week_emb = nn.Parameter(torch.empty(DAYS_A_WEEK, widths.dow_dims))
        for embedding in (self.node_emb, self.time_in_day_emb, self.day_in_week_emb):
            nn.init.xavier_uniform_(embedding)
        kernel = (1, temporal_patch_size)
        self.input_st_fc = nn.Conv2d(3, widths.input_dims, kernel, stride=kernel)
        self.spa_encoder = nn.ModuleList(
            WindowBlock(widths.dims, layout.patches, layout.patch_size, widths.dropout)
            for _ in range(widths.layers)
        )
        self.regression_conv = nn.Conv2d(
            widths.dims * temporal_patch_count, output_len, kernel_size=(1, 1)
        )
        self._all_slots_C = layout.slots.ravel()
        self._slot_of_node_N = layout.slot_of_node

    def forward(self, x_BTN1: Tensor, time_BTNF: Tensor) -> Tensor:
        """Scaled input and the indices of time of day and day of week, one pair a node."""
        embedded_BKND = self._embed(x_BTN1, time_BTNF)
        x_BKCD = embedded_BKND[:, :, self._all_slots_C, :]
        for block in self.spa_encoder:
            x_BKCD = block(x_BKCD)
        batch, patches, _, dims = x_BKCD.shape
        original_BKND = torch.zeros(batch, patches, self.nodes, dims).to(x_BTN1.device)
        original_BKND[:, :, torch.arange(self.nodes), :] = x_BKCD[:, :, self._slot_of_node_N, :]
        stacked = original_BKND.transpose(2, 3).reshape(batch, -1, self.nodes, 1)
        predicted: Tensor = self.regression_conv(stacked)
        return predicted

    def _embed(self, x_BTN1: Tensor, time_BTNF: Tensor) -> Tensor:
        time_of_day, day_of_week = time_BTNF[..., 0:1], time_BTNF[..., 1:2]
        channels = torch.cat(
            [x_BTN1, time_of_day / self.steps_a_day, day_of_week / DAYS_A_WEEK], dim=-1
        ).float()
        values_BKND = self.input_st_fc(channels.transpose(1, 3)).transpose(1, 3)
        batch, count = values_BKND.shape[:2]
        dated_BKNF = time_BTNF[:, -count:].long()
        values_BKND = torch.cat([values_BKND, self.time_in_day_emb[dated_BKNF[..., 0]]], dim=-1)
        values_BKND = torch.cat([values_BKND, self.day_in_week_emb[dated_BKNF[..., 1]]], dim=-1)
        node_BKND = self.node_emb[None, None].expand(batch, count, -1, -1)
        return torch.cat([values_BKND, node_BKND], dim=-1)


class WindowBlock(nn.Module):
    """Depth attention inside each patch, then breadth attention across patches."""

    def __init__(self, dims: int, patches: int, patch_size: int, dropout: float) -> None:
        super().__init__()
        self.patches, self.patch_size = patches, patch_size
        self.snorm1, self.snorm2 = nn.LayerNorm(dims), nn.LayerNorm(dims)
        self.sattn, self.smlp = WindowAttention(dims, dropout), Mlp(dims, dropout)
        self.nnorm1, self.nnorm2 = nn.LayerNorm(dims), nn.LayerNorm(dims)
        self.nattn, self.nmlp = WindowAttention(dims, dropout), Mlp(dims, dropout)

    def forward(self, x_BKCD: Tensor) -> Tensor:
        """(B, K, C, D) -> (B, K, C, D)."""
        batch, count, _, dims = x_BKCD.shape
        patches, size = self.patches, self.patch_size
        x = x_BKCD.reshape(batch, count, patches, size, dims)
        depth = self.snorm1(x.reshape(batch * count * patches, size, dims))
        x = x + self.sattn(depth).reshape(batch, count, patches, size, dims)
        x = x + self.smlp(self.snorm2(x))
        breadth = self.nnorm1(x.transpose(2, 3).reshape(batch * count * size, patches, dims))
        mixed = self.nattn(breadth).reshape(batch, count, size, patches, dims)
        x = x + mixed.transpose(2, 3)
        out: Tensor = x + self.nmlp(self.nnorm2(x))
        return out.reshape(batch, count, -1, dims)


class WindowAttention(nn.Module):
    """Self-attention of one head, its weights written out."""

    def __init__(self, dims: int, dropout: float) -> None:
        super().__init__()
        self.scale = dims**-0.5
        self.qkv = nn.Linear(dims, 3 * dims)
        self.attn_drop = nn.Dropout(dropout)
        self.proj = nn.Linear(dims, dims)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., L, D) -> (..., L, D)."""
        windows, length, dims = x.shape
        qkv = self.qkv(x).reshape(windows, length, 3, 1, dims).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        weights = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        mixed = self.attn_drop(weights) @ v
        projected = self.proj(mixed.transpose(1, 2).reshape(windows, length, dims))
        dropped: Tensor = self.proj_drop(projected)
        return dropped


class Mlp(nn.Module):
    """Two linear maps of equal width with an exact GELU between them."""

    def __init__(self, dims: int, dropout: float) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dims, dims), nn.Linear(dims, dims)
        self.act = nn.GELU()
        self.drop1, self.drop2 = nn.Dropout(dropout), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        x = self.drop1(self.act(self.fc1(x)))
        dropped: Tensor = self.drop2(self.fc2(x))
        return dropped
