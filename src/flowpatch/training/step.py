"""One step of the optimizer: cut a batch, forecast, compare, update.

Everything of a step that costs time is here, and nothing waits for the device.

Several processes share each batch. The loss and its gradient are those of the whole batch: a
process knows only its part of the errors and labels, so all of them add up gradients, errors and
labels in one go, and divide by the labels then. One process does the same alone.
"""

from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from numpy.typing import NDArray
from torch import Tensor

from flowpatch.metrics import masked_errors
from flowpatch.model.dropout import masks_of_share
from flowpatch.model.patchstg import PatchSTG
from flowpatch.model.step_bytes import windows_at_a_time
from flowpatch.series.statistics import Statistics
from flowpatch.training.captured import Captured
from flowpatch.training.settings import TrainSettings
from flowpatch.training.shares import share_of_batch
from flowpatch.training.world import World
from flowpatch.windows.batches import Batch, Windows


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
        self._windows = windows
        self._world = world or World()
        share = self._share(settings.batch_size)
        most = settings.micro_batch or windows_at_a_time(model, accelerator.device)
        # Of a whole batch: those of this process, and those that go through the model at a time.
        self.windows_here = share.stop - share.start
        self.windows_at_a_time = -(-self.windows_here // -(-self.windows_here // most))
        self.model = model.to(accelerator.device)
        # The same to begin with, whatever the machines that drew them.
        self._world.spread(list(self.model.parameters()))
        on_gpu, rate = accelerator.device.type == "cuda", settings.learning_rate
        plain = torch.optim.AdamW(
            self.model.parameters(),
            # On a GPU it is kept there, as a recorded step reads it anew each time.
            lr=torch.tensor(rate, device=accelerator.device) if on_gpu else rate,
            weight_decay=settings.weight_decay,
            # One kernel for all parameters: a tenth of a small model's step.
            fused=True,
            capturable=on_gpu,
        )
        # The model stays as it is: gradients are added up here, in a fixed order.
        self.optimizer = accelerator.prepare(plain)
        descent = _Descent(
            self.model,
            self.optimizer,
            accelerator,
            windows.statistics,
            settings.clip_norm,
            # Of a whole batch: half precision has no room for a bare sum of errors.
            settings.batch_size * windows.output_len * windows.nodes,
        )
        # What looks at values or at the random state on the host cannot be recorded.
        recorded = on_gpu and not accelerator.scaler and not settings.recompute_activations
        self._look = Captured(descent.gradients, recorded=recorded)
        self._learn = Captured(descent.update, recorded=recorded)

    def __call__(self, origins: NDArray[np.int64], learning_rate: float) -> Tensor:
        """One step on the windows at (B,) origins; the loss stays on the device.

        The origins are those of all processes together.
        """
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(learning_rate)
            else:
                group["lr"] = learning_rate
        share = self._share(len(origins))
        found = self._find(origins[share], share.start)
        self._world.add_up(found)
        return self._learn(found)

    def _share(self, windows: int) -> slice:
        """The windows of a batch that are this process's."""
        return share_of_batch(windows, self._world.launch.rank, self._world.launch.size)

    def _find(self, origins: NDArray[np.int64], first_window: int) -> Tensor:
        """What `gradients` gives for some windows, the first of which has a place in the batch."""
        if not len(origins):
            # A batch too small for all: this process has no part in it.
            values = sum(one.numel() for one in self.model.parameters())
            return torch.zeros(values + 2, device=self._windows.device)
        first, *others = self._windows.batch(origins).split(self.windows_at_a_time)
        random_state = torch.get_rng_state()
        found, place = self._look_at(first, first_window), first_window + len(first)
        if others:
            # What was recorded is written over by the next part.
            found = found.clone()
        for part in others:
            # What is dropped is a function of a window's place alone, in whatever part it comes.
            torch.set_rng_state(random_state)
            found += self._look_at(part, place)
            place += len(part)
        return found

    def _look_at(self, part: Batch, first_window: int) -> Tensor:
        with masks_of_share(first_window, len(part)):
            return self._look(part.x_BTN, part.y_BHN, part.time_of_day_BT, part.day_of_week_BT)


@dataclass(frozen=True)
class _Descent:
    """The two halves of a step: gradients of a share of the windows, and what all of them change.

    `cells` is what errors are divided by on their way back.
    """

    model: PatchSTG
    optimizer: AcceleratedOptimizer
    accelerator: Accelerator
    statistics: Statistics
    clip_norm: float
    cells: int

    def gradients(
        self, x_BTN: Tensor, y_BHN: Tensor, time_of_day_BT: Tensor, day_of_week_BT: Tensor
    ) -> Tensor:
        """Gradients of the errors by cells, one after the other; sum of errors; labels."""
        scaled_BHN = self.model(x_BTN, time_of_day_BT, day_of_week_BT)
        errors, labels = masked_errors(self.statistics.unscale(scaled_BHN), y_BHN)
        self.accelerator.backward(errors / self.cells)
        parts = [one.grad.reshape(-1) for one in self.model.parameters() if one.grad is not None]
        self.optimizer.zero_grad()
        return torch.cat([*parts, torch.stack([errors.detach(), labels.to(errors.dtype)])])

    def update(self, found: Tensor) -> Tensor:
        """Descends by the gradients of a whole batch; gives its loss."""
        errors, labels = found[-2], found[-1].clamp(min=1)
        parameters = list(self.model.parameters())
        gradients = torch.split(
            found[:-2] * (self.cells / labels), [one.numel() for one in parameters]
        )
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.view_as(parameter)
        if self.clip_norm:
            self.accelerator.clip_grad_norm_(parameters, self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return errors / labels
