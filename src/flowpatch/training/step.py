"""One step of the optimizer: cut a batch, forecast, compare, update.

Everything of a step that costs time is here, and nothing waits for the device.
"""

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from flowpatch.metrics import masked_mae
from flowpatch.model.patchstg import PatchSTG
from flowpatch.training.captured import Captured
from flowpatch.training.settings import TrainSettings
from flowpatch.windows.batches import Windows


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
        on_gpu, rate = accelerator.device.type == "cuda", settings.learning_rate
        plain = torch.optim.AdamW(
            model.parameters(),
            # On a GPU it is kept there, as a recorded step reads it anew each time.
            lr=torch.tensor(rate, device=accelerator.device) if on_gpu else rate,
            weight_decay=settings.weight_decay,
            # One kernel for all parameters: a tenth of a small model's step.
            fused=True,
            capturable=on_gpu,
        )
        self.model, self.optimizer = accelerator.prepare(model, plain)
        # The scale of fp16's gradients is chosen on the host.
        self._learn = self._learn_plainly if accelerator.scaler else Captured(self._learn_plainly)

    def __call__(self, origins: NDArray[np.int64], learning_rate: float) -> Tensor:
        """One step on the windows at (B,) origins; the loss stays on the device."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(learning_rate)
            else:
                group["lr"] = learning_rate
        batch = self._windows.batch(origins)
        return self._learn(batch.x_BTN, batch.y_BHN, batch.time_of_day_BT, batch.day_of_week_BT)

    def _learn_plainly(
        self, x_BTN: Tensor, y_BHN: Tensor, time_of_day_BT: Tensor, day_of_week_BT: Tensor
    ) -> Tensor:
        scaled_BHN = self.model(x_BTN, time_of_day_BT, day_of_week_BT)
        loss = masked_mae(self._windows.statistics.unscale(scaled_BHN), y_BHN)
        self._accelerator.backward(loss)
        if self._settings.clip_norm:
            self._accelerator.clip_grad_norm_(self.model.parameters(), self._settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()
