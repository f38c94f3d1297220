"""One step of the optimizer: cut a batch, forecast, compare, update.

Everything of a step that costs time is here, and nothing waits for the device.

Several processes share each batch. The loss and its gradient are those of the whole batch: a
process knows only its part of the errors and labels, so all of them add up gradients, errors and
labels in one go, and divide by the labels then.
"""

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from flowpatch.metrics import masked_errors, masked_mae
from flowpatch.model.dropout import masks_of_share
from flowpatch.model.patchstg import PatchSTG
from flowpatch.training.scoring import in_real_units
from flowpatch.training.settings import TrainSettings
from flowpatch.training.shares import share_of_batch
from flowpatch.training.world import World
from flowpatch.windows.batches import Windows


class TrainingStep:
    """A model under training: calling it with origins does one step.

    Args:
        model: the forecaster, on the CPU or on the accelerator's device.
        windows: where batches are cut from.
        settings: learning rate, weight decay, clipping.
        accelerator: the device, and the scaling of gradients.
        world: the processes that share each batch; by default this one alone.
    """

    def __init__(
        self,
        model: PatchSTG,
        windows: Windows,
        settings: TrainSettings,
        accelerator: Accelerator,
        world: World | None = None,
    ) -> None:
        self._windows, self._settings, self._accelerator = windows, settings, accelerator
        self._world = world or World()
        self.model = model.to(accelerator.device)
        # The same to begin with, whatever the machines that drew them.
        self._world.spread(list(self.model.parameters()))
        plain = torch.optim.AdamW(
            self.model.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            # One kernel for all parameters: a tenth of a small model's step.
            fused=True,
        )
        # The model stays as it is: gradients are added up here, in a fixed order.
        self.optimizer = accelerator.prepare(plain)
        self._forecast = in_real_units(self.model, windows.statistics)

    def __call__(self, origins: NDArray[np.int64], learning_rate: float) -> Tensor:
        """One step on the windows at (B,) origins; the loss stays on the device.

        The origins are those of all processes together.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        loss = self._descend(origins) if self._world.is_alone else self._descend_together(origins)
        if self._settings.clip_norm:
            self._accelerator.clip_grad_norm_(self.model.parameters(), self._settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss

    def _descend(self, origins: NDArray[np.int64]) -> Tensor:
        """Leaves the gradient of the loss, which is returned, in the parameters."""
        batch = self._windows.batch(origins)
        loss = masked_mae(self._forecast(batch), batch.y_BHN)
        self._accelerator.backward(loss)
        return loss.detach()

    def _descend_together(self, origins: NDArray[np.int64]) -> Tensor:
        """The same with other processes, each of which forecasts its share of the windows."""
        launch = self._world.launch
        share = share_of_batch(len(origins), launch.rank, launch.size)
        errors, labels = self._errors(origins[share], share.start)
        # By cells, as everyone knows their number now: half precision has no room for a sum.
        cells = len(origins) * self._windows.output_len * self._windows.nodes
        self._accelerator.backward(errors / cells)
        error_sum, label_sum = self._add_up(errors.detach(), labels, cells)
        return error_sum / label_sum

    def _add_up(self, errors: Tensor, labels: Tensor, cells: int) -> tuple[Tensor, Tensor]:
        """Makes the gradients those of all, per label in place of per cell; errors and labels."""
        parameters = [one for one in self.model.parameters() if one.grad is not None]
        parts = [one.grad.reshape(-1) for one in parameters if one.grad is not None]
        sizes = [len(part) for part in parts]
        added = torch.cat([*parts, torch.stack([errors, labels])])
        self._world.add_up(added)
        gradients, (error_sum, label_sum) = added[:-2], added[-2:]
        label_sum = label_sum.clamp(min=1)
        gradients *= cells / label_sum
        for parameter, gradient in zip(parameters, torch.split(gradients, sizes), strict=True):
            parameter.grad = gradient.view_as(parameter)
        return error_sum, label_sum

    def _errors(self, origins: NDArray[np.int64], first_window: int) -> tuple[Tensor, Tensor]:
        """Sum of errors and number of labels of some windows, the first of which has a place."""
        if not len(origins):
            # A batch too small for all: this process has no part in it, and its gradient is 0.
            nothing = torch.stack([one.sum() for one in self.model.parameters()]).sum() * 0
            return nothing, nothing.detach()
        batch = self._windows.batch(origins)
        with masks_of_share(first_window, len(origins)):
            forecast_BHN = self._forecast(batch)
        errors, labels = masked_errors(forecast_BHN, batch.y_BHN)
        return errors, labels.to(errors.dtype)
