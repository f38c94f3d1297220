"""The published formulation as a forecaster, and how it is trained: eager, with AdamW."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.baselines.published_patchstg import PublishedPatchSTG
from flowpatch.metrics import masked_mae
from flowpatch.training.settings import TrainSettings
from flowpatch.windows.batches import Batch, Windows


class PublishedTraining:
    """A model under training, with the weight decay and the clipping of our own settings.

    `bfloat16` computes in it by autocast.
    """

    def __init__(
        self,
        model: PublishedPatchSTG,
        windows: Windows,
        settings: TrainSettings,
        *,
        bfloat16: bool = False,
    ) -> None:
        self.model, self._windows, self._clip_norm = model, windows, settings.clip_norm
        self._optimizer = torch.optim.AdamW(model.parameters(), weight_decay=settings.weight_decay)
        device = windows.device.type
        self._autocast = torch.autocast(device, torch.bfloat16, enabled=bfloat16)

    def forecast(self, batch: Batch) -> Tensor:
        """(B, H, N) in real units."""
        # Repeated for every node, as published.
        time_BTF = torch.stack([batch.time_of_day_BT, batch.day_of_week_BT], dim=-1)
        time_BTNF = time_BTF[:, :, None].repeat(1, 1, self._windows.nodes, 1)
        with self._autocast:
            scaled_BHN1: Tensor = self.model(batch.x_BTN[..., None], time_BTNF)
        return self._windows.statistics.unscale(scaled_BHN1[..., 0].float())

    def step(self, origins: NDArray[np.int64], learning_rate: float) -> Tensor:
        """One step on the windows at (B,) origins; gives the loss."""
        self._optimizer.param_groups[0]["lr"] = learning_rate
        batch = self._windows.batch(origins)
        self._optimizer.zero_grad()
        loss = masked_mae(self.forecast(batch), batch.y_BHN)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._clip_norm)
        self._optimizer.step()
        return loss.detach()
