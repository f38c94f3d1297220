"""PatchSTG: irregular spatial patching for large-scale traffic forecasting.

Fang et al., "Efficient Large-Scale Traffic Forecasting with Transformers: A Spatial Data
Management Perspective", KDD 2025, arXiv 2412.09972. Read top to bottom:

    embed    input steps -> temporal patches; add what is known of time and node
    patch    nodes -> slots of spatial patches
    encode   depth attention inside patches, breadth attention across them
    unpatch  slots -> nodes
    decode   all temporal patches of a node -> all its label steps

Parameter names are the published ones, so that published weights load as they are.

Shape suffixes: B windows, T input steps, K temporal patches, H label steps, N nodes, P patches,
S slots of a patch, D width of the encoder, E width of the embedded input.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowpatch.model.layers import Block
from flowpatch.model.settings import ModelSettings
from flowpatch.patches.layout import PatchLayout
from flowpatch.time_axis import DAYS_A_WEEK


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
        """Scaled input and time indices -> (B, H, N) scaled forecasts."""
        x_BKND = self._embed(x_BTN, time_of_day_BT, day_of_week_BT)
        x_BKPSD = self._patch(x_BKND)
        for block in self.spa_encoder:
            x_BKPSD = block(x_BKPSD)
        return self._decode(self._unpatch(x_BKPSD))

    def _embed(self, x_BTN: Tensor, time_of_day_BT: Tensor, day_of_week_BT: Tensor) -> Tensor:
        nodes = x_BTN.shape[2]
        value_BKNE = self._embed_input(x_BTN, time_of_day_BT, day_of_week_BT)
        # Patch k is dated by input step T - K + k: the last K steps, as published.
        # F.embedding, unlike indexing, sums its gradient in a fixed order.
        dated = slice(-self.patch_count, None)
        tod_BKD = F.embedding(time_of_day_BT[:, dated], self.time_in_day_emb)
        dow_BKD = F.embedding(day_of_week_BT[:, dated], self.day_in_week_emb)
        return torch.cat(
            [
                value_BKNE,
                tod_BKD[:, :, None].expand(-1, -1, nodes, -1),
                dow_BKD[:, :, None].expand(-1, -1, nodes, -1),
                self.node_emb.expand(*value_BKNE.shape[:2], -1, -1),
            ],
            dim=-1,
        )

    def _embed_input(self, x_BTN: Tensor, time_of_day_BT: Tensor, day_of_week_BT: Tensor) -> Tensor:
        """The published convolution over value, time of day and day of week.

        The two time channels are the same for all nodes, so their part is computed once a window.
        """
        weight_E3T = self.input_st_fc.weight.squeeze(2)
        value_BKNT = self._temporal_patches(x_BTN).transpose(2, 3)
        tod_BKT = self._temporal_patches(time_of_day_BT / len(self.time_in_day_emb))
        dow_BKT = self._temporal_patches(day_of_week_BT / len(self.day_in_week_emb))
        time_BKE = (
            F.linear(tod_BKT.to(x_BTN.dtype), weight_E3T[:, 1], self.input_st_fc.bias)
            + F.linear(dow_BKT.to(x_BTN.dtype), weight_E3T[:, 2])
        )  # fmt: skip
        return F.linear(value_BKNT, weight_E3T[:, 0]) + time_BKE[:, :, None]

    def _temporal_patches(self, steps_BT: Tensor) -> Tensor:
        """(B, T, ...) -> (B, K, T / K, ...)."""
        return steps_BT.reshape(len(steps_BT), self.patch_count, -1, *steps_BT.shape[2:])

    def _patch(self, x_BKND: Tensor) -> Tensor:
        """Nodes to slots, padding included."""
        x_BKCD = x_BKND.index_select(2, self.slots.flatten())
        return x_BKCD.reshape(*x_BKND.shape[:2], *self.slots.shape, x_BKND.shape[3])

    def _unpatch(self, x_BKPSD: Tensor) -> Tensor:
        """Slots back to nodes, padding left behind."""
        return x_BKPSD.flatten(2, 3).index_select(2, self.slot_of_node)

    def _decode(self, x_BKND: Tensor) -> Tensor:
        x_BNC = x_BKND.transpose(1, 2).flatten(2)
        weight_HC = self.regression_conv.weight.flatten(1)
        return F.linear(x_BNC, weight_HC, self.regression_conv.bias).transpose(1, 2)
