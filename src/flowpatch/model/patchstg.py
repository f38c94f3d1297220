"""PatchSTG: irregular spatial patching for large-scale traffic forecasting.

Fang et al., "Efficient Large-Scale Traffic Forecasting with Transformers: A Spatial Data
Management Perspective", KDD 2025, arXiv 2412.09972. Read top to bottom:

    embed    nodes -> slots of spatial patches; input steps -> temporal patches; add what is known
             of time and node
    encode   depth attention inside patches, breadth attention across them
    unpatch  slots -> nodes
    decode   all temporal patches of a node -> all its label steps

Parameter names are the published ones, so that published weights load as they are.

Shape suffixes: B windows, T input steps, K temporal patches, H label steps, N nodes, P patches,
S slots of a patch, D width of the encoder, E width of the embedded input.
"""

from collections.abc import Callable, Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from flowpatch.model.compiling import compiled_half, run_half
from flowpatch.model.layers import Block, ReadyBlock, ReadyHalf, ready_blocks
from flowpatch.model.settings import ModelSettings
from flowpatch.patches.layout import PatchLayout
from flowpatch.time_axis import DAYS_A_WEEK

GROUP_BYTES = 9 * 2**18
"""Encoded windows that go through the encoder together outside training: 2.25 MB, so that what a
block makes of them is still in the cache when the next operation reads it."""


class PatchSTG(nn.Module):
    """The forecaster, in scaled units.

    Args:
        settings: widths, depth, dropout.
        layout: which slot shows which node.
        input_len: T; the temporal patch size must divide it.
        output_len: H, any number.
        steps_a_day: entries of the time-of-day embedding.
        days_a_week: entries of the day-of-week embedding.

    Raises:
        SettingsError: the temporal patch size does not divide the input.
    """

    slots: Tensor
    slot_of_node: Tensor

    def __init__(
        self,
        settings: ModelSettings,
        layout: PatchLayout,
        input_len: int,
        output_len: int,
        steps_a_day: int,
        days_a_week: int = DAYS_A_WEEK,
    ) -> None:
        super().__init__()
        self.settings, self.layout = settings, layout
        self.input_len, self.output_len = input_len, output_len
        self.patch_size, self.patch_count = settings.temporal_patches(input_len)
        # What the encoder computes in; weights, embeddings' sums and forecasts stay float32.
        self.encoder_dtype = torch.float32
        # Batches of this many windows go through the encoder compiled.
        self.compiled_windows = 0
        # Keep only the input of each half of a block, and compute the rest again going back.
        self.recompute_activations = False
        dims = settings.dims

        self.node_emb = nn.Parameter(torch.empty(len(layout.slot_of_node), settings.node_dims))
        self.time_in_day_emb = nn.Parameter(torch.empty(steps_a_day, settings.tod_dims))
        self.day_in_week_emb = nn.Parameter(torch.empty(days_a_week, settings.dow_dims))
        for embedding in (self.node_emb, self.time_in_day_emb, self.day_in_week_emb):
            nn.init.xavier_uniform_(embedding)
        # Published as convolutions; `_embed` and `_decode` apply their weights as linear maps.
        self.input_st_fc = nn.Conv2d(3, settings.input_dims, kernel_size=(1, self.patch_size))
        self.spa_encoder = nn.ModuleList(
            Block(dims, settings.dropout) for _ in range(settings.layers)
        )
        self.regression_conv = nn.Conv2d(dims * self.patch_count, output_len, kernel_size=(1, 1))

        # The layout belongs to the checkpoint, not to the published weights.
        self.register_buffer("slots", torch.from_numpy(layout.slots), persistent=False)
        self.register_buffer(
            "slot_of_node", torch.from_numpy(layout.slot_of_node), persistent=False
        )

    def forward(self, x_BTN: Tensor, time_of_day_BT: Tensor, day_of_week_BT: Tensor) -> Tensor:
        """Scaled input and time indices -> (B, H, N) scaled forecasts, in float32."""
        # The precision is chosen here, so a surrounding autocast must not choose again.
        with torch.autocast(x_BTN.device.type, enabled=False):
            x_BKPSD = self._embed(x_BTN, time_of_day_BT, day_of_week_BT)
            return self._decode(self._unpatch(self._encode(x_BKPSD)))

    def _embed(self, x_BTN: Tensor, time_of_day_BT: Tensor, day_of_week_BT: Tensor) -> Tensor:
        """Input and time to slots of width D, each part in the encoder's precision.

        Nodes are put into slots before they are embedded, and what is the same for all nodes of a
        window, or all windows of a node, is computed once and only shown to the others.
        """
        slots, dtype = self.slots.flatten(), self.encoder_dtype
        time_BKE = self._embed_time_channels(time_of_day_BT, day_of_week_BT)
        # Patch k is dated by input step T - K + k: the last K steps, as published.
        # F.embedding, unlike indexing, sums its gradient in a fixed order.
        dated = slice(-self.patch_count, None)
        tod_BKD = F.embedding(time_of_day_BT[:, dated], self.time_in_day_emb)
        dow_BKD = F.embedding(day_of_week_BT[:, dated], self.day_in_week_emb)
        node_CD = F.embedding(slots, self.node_emb)
        x_BKCT = self._temporal_patches(x_BTN.index_select(2, slots)).transpose(2, 3)
        weight_ET = self.input_st_fc.weight[:, 0, 0]
        value_BKCE = F.linear(x_BKCT, weight_ET) + time_BKE[:, :, None]
        spread = (*value_BKCE.shape[:3], -1)
        parts = [
            value_BKCE,
            tod_BKD[:, :, None].expand(spread),
            dow_BKD[:, :, None].expand(spread),
            node_CD.expand(spread),
        ]
        x_BKCD = torch.cat([part.to(dtype) for part in parts], dim=-1)
        return x_BKCD.reshape(*x_BKCD.shape[:2], *self.slots.shape, -1)

    def _embed_time_channels(self, time_of_day_BT: Tensor, day_of_week_BT: Tensor) -> Tensor:
        """The two time channels of the published convolution, and its bias: (B, K, E)."""
        weight_E3T = self.input_st_fc.weight.squeeze(2)
        tod_BKT = self._temporal_patches(time_of_day_BT / len(self.time_in_day_emb))
        dow_BKT = self._temporal_patches(day_of_week_BT / len(self.day_in_week_emb))
        return (
            F.linear(tod_BKT, weight_E3T[:, 1], self.input_st_fc.bias)
            + F.linear(dow_BKT, weight_E3T[:, 2])
        )  # fmt: skip

    def _encode(self, x_BKPSD: Tensor) -> Tensor:
        """All windows at once, or, where no gradient is asked for, in groups that fit a cache."""
        modules = cast("list[Block]", self.spa_encoder)
        blocks = ready_blocks(modules, self.encoder_dtype)
        if torch.is_grad_enabled() or x_BKPSD.device.type != "cpu":
            compiled = len(x_BKPSD) == self.compiled_windows
            run = compiled_half() if compiled else run_half
            return _through(blocks, x_BKPSD, run, self.recompute_activations)
        window_bytes = x_BKPSD[:1].numel() * x_BKPSD.element_size()
        groups = torch.split(x_BKPSD, max(1, GROUP_BYTES // max(1, window_bytes)))
        return torch.cat([_through(blocks, group) for group in groups])

    def _temporal_patches(self, steps_BT: Tensor) -> Tensor:
        """(B, T, ...) -> (B, K, T / K, ...)."""
        return steps_BT.reshape(len(steps_BT), self.patch_count, -1, *steps_BT.shape[2:])

    def _unpatch(self, x_BKPSD: Tensor) -> Tensor:
        """Slots back to nodes, padding left behind."""
        return x_BKPSD.flatten(2, 3).index_select(2, self.slot_of_node)

    def _decode(self, x_BKND: Tensor) -> Tensor:
        """In float32: a forecast is a sum over the whole width, and should not come in steps."""
        x_BNC = x_BKND.float().transpose(1, 2).flatten(2)
        weight_HC = self.regression_conv.weight.flatten(1)
        return F.linear(x_BNC, weight_HC, self.regression_conv.bias).transpose(1, 2)


def _through(
    blocks: Iterable[ReadyBlock],
    x_BKPSD: Tensor,
    run: Callable[[ReadyHalf, Tensor], Tensor] = run_half,
    recompute: bool = False,
) -> Tensor:
    for block in blocks:
        for half in (block.depth, block.breadth):
            if recompute:
                # The random state goes back with it, so dropout drops the same values again.
                x_BKPSD = checkpoint(run, half, x_BKPSD, use_reentrant=False)
            else:
                x_BKPSD = run(half, x_BKPSD)
    return x_BKPSD
