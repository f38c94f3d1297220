"""One step of the optimizer: cut a batch, forecast, compare, update.

Everything of a step that costs time is here, and nothing waits for the device.
"""

from contextlib import nullcontext

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from flowpatch.metrics import absolute_error, count_observed
from flowpatch.model.patchstg import PatchSTG
from flowpatch.model.step_bytes import windows_at_a_time
from flowpatch.training.scoring import in_real_units
from flowpatch.training.settings import TrainSettings
from flowpatch.windows.batches import Batch, Windows


class TrainingStep:
    """A model under training: calling it with origins does one step.

    Args:
        model: the forecaster, on the CPU or on the accelerator's device.
        windows: where batches are cut from.
        settings: learning rate, weight decay, clipping.
        accelerator: the device, and how gradients are brought together.
    """

    def __init__(
        self, model: PatchSTG, windows: Windows, settings: TrainSettings, accelerator: Accelerator
    ) -> None:
        self._windows, self._settings, self._accelerator = windows, settings, accelerator
        self.at_a_time = settings.micro_batch or windows_at_a_time(model, accelerator.device)
        plain = torch.optim.AdamW(
            model.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            # One kernel for all parameters: a tenth of a small model's step.
            fused=True,
        )
        self.model, self.optimizer = accelerator.prepare(model, plain)
        self._forecast = in_real_units(self.model, windows.statistics)

    def __call__(self, origins: NDArray[np.int64], learning_rate: float) -> Tensor:
        """One step on the windows at (B,) origins; the loss stays on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        batch = self._windows.batch(origins)
        # Counted over the whole batch, so that its parts add up to the same gradient.
        labels = count_observed(batch.y_BHN)
        parts = batch.split(self.at_a_time)
        losses = [self._learn_from(part, labels, part is parts[-1]) for part in parts]
        if self._settings.clip_norm:
            self._accelerator.clip_grad_norm_(self.model.parameters(), self._settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return torch.stack(losses).sum()

    def _learn_from(self, part: Batch, labels: Tensor, is_last: bool) -> Tensor:
        """Adds the gradient of some windows, and returns their share of the batch's loss."""
        model = self.model
        with nullcontext() if is_last else self._accelerator.no_sync(model):
            loss = absolute_error(self._forecast(part), part.y_BHN) / labels
            self._accelerator.backward(loss)
        return loss.detach()
