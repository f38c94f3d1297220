"""The training loop, on Accelerate: one run under way.

The order of windows is a function of seed and epoch alone, the learning rate of the step alone,
dropout of seed, step and a window's place in the batch, and a checkpoint holds the optimizer. So a
resumed run goes on as if it had never stopped, with as many processes as there are then: they
share each batch, know the same figures, decide alike, and the main one writes. How a run begins is
left to `runs.py`.
"""

import shlex
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from flowpatch.errors import (
    CheckpointDamagedError,
    PeriodError,
    ProcessLostError,
    StoppedByUser,
    TrainingDivergedError,
)
from flowpatch.interruption import Interruption, StopAskedError, noting_interruption
from flowpatch.metrics import ScoreTable
from flowpatch.model.step_bytes import describe_parts
from flowpatch.progress import Task, say, track
from flowpatch.series.splits import SplitName
from flowpatch.store.sample_store import SampleStore
from flowpatch.training.checkpoint import (
    Checkpoint,
    load_optimizer_tensors,
    optimizer_tensors,
)
from flowpatch.training.device import deterministic, is_compiled, seed_step
from flowpatch.training.run_folder import RunFolder
from flowpatch.training.scoring import in_real_units, score
from flowpatch.training.settings import CheckpointName
from flowpatch.training.shares import origins_shared
from flowpatch.training.step import TrainingStep
from flowpatch.training.world import World
from flowpatch.windows.batches import Windows
from flowpatch.windows.origins import origins_of

if TYPE_CHECKING:
    from flowpatch.training.events import Events

CHECKPOINT_SECONDS = 300
"""A crash inside a long epoch costs at most this much work."""


class Trainer:
    """One run under way."""

    def __init__(
        self,
        folder: RunFolder,
        checkpoint: Checkpoint,
        store: SampleStore,
        windows: Windows,
        accelerator: Accelerator,
        world: World,
    ) -> None:
        self.folder, self._checkpoint, self._world = folder, checkpoint, world
        self.settings, self.progress = checkpoint.train_settings, checkpoint.progress
        self._windows, self._accelerator = windows, accelerator
        self._train_origins = labelled_origins(store, windows, "train")
        self._val_origins = labelled_origins(store, windows, "val")
        # Seeded before the weights are drawn.
        torch.manual_seed(self.settings.seed)
        model = checkpoint.model(accelerator.device)
        self._step = TrainingStep(model, windows, self.settings, accelerator, world)
        steps = self.steps_an_epoch * self.settings.max_epoch
        if is_compiled(self.settings.compile, accelerator.device, steps):
            model.compiled_windows = self._step.windows_at_a_time
        if checkpoint.resume:
            self._go_on_from(checkpoint)
        self._loss_sums = torch.tensor(
            [self.progress.epoch_loss_sum, self.progress.logged_loss_sum],
            dtype=torch.float64,
            device=accelerator.device,
        )
        self._events: Events | None = None
        self._started = time.monotonic() - self.progress.seconds
        self._saved_at = time.monotonic()

    def _go_on_from(self, checkpoint: Checkpoint) -> None:
        try:
            load_optimizer_tensors(self._step.optimizer, checkpoint.resume)
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointDamagedError(
                f"'{self.folder.checkpoint('last')}' does not hold what a training goes on from: "
                f"{error!r}. Score it, or train a new run."
            ) from error

    @property
    def steps_an_epoch(self) -> int:
        """Steps of one epoch; the last may have a smaller batch."""
        return -(-len(self._train_origins) // self.settings.batch_size)

    @property
    def _quoted_path(self) -> str:
        """The run's folder, to be pasted into a shell."""
        return shlex.quote(str(self.folder.path))

    def fit(self) -> Checkpoint:
        """Trains until the last epoch, early stopping or Ctrl-C; returns the best checkpoint."""
        if self._is_done():
            say(f"Nothing to do: {self.progress.epoch} epochs are done. Give a larger --max-epoch.")
        else:
            self._say_start()
        epochs_left = self.settings.max_epoch - self.progress.epoch
        windows_left = epochs_left * (len(self._train_origins) + len(self._val_origins))
        windows_left -= self.progress.epoch_step * self.settings.batch_size
        with (
            noting_interruption() as interruption,
            deterministic(),
            track("train", total=windows_left, unit="windows") as task,
        ):
            try:
                while not self._is_done():
                    self._train_epoch(task, interruption)
                    self._finish_epoch(self._validate(task, interruption))
            except StopAskedError:
                self.save("last")
                raise StoppedByUser(
                    f"Stopped in epoch {self.progress.epoch + 1} of {self.settings.max_epoch}, "
                    f"nothing is lost. Go on: flowpatch train --resume {self._quoted_path}"
                ) from None
            except ProcessLostError as lost:
                self._save_what_is_whole()
                raise ProcessLostError(
                    "A process of this training has ended, so the others stop as well. Go on from "
                    "the last checkpoint, with any number of processes: "
                    f"flowpatch train --resume {self._quoted_path}"
                ) from lost
            finally:
                if self._events is not None:
                    self._events.close()
        best = self.progress
        say(
            f"best validation MAE {best.best_val_mae:.4g} in epoch {best.best_epoch}; "
            f"'{self.folder.path}' is ready: flowpatch evaluate {self._quoted_path}"
        )
        return self._world.from_main(lambda: self.folder.load("best"))

    def save(self, name: CheckpointName) -> None:
        """Writes a checkpoint of this moment; all processes call it, and the main one writes."""
        self._world.from_main(lambda: self._write(name))
        self._saved_at = time.monotonic()

    def _save_what_is_whole(self) -> None:
        """Keeps the steps since the last checkpoint, where another process has been lost.

        A step changes nothing before the last word of the others in it.
        """
        # What a GPU was waiting for from the others would be waited for here as well.
        if self._world.is_main and self._accelerator.device.type == "cpu":
            self._write("last")

    def _write(self, name: CheckpointName) -> None:
        epoch_loss, logged_loss = self._loss_sums.tolist()
        self.progress = replace(
            self.progress,
            epoch_loss_sum=epoch_loss,
            logged_loss_sum=logged_loss,
            seconds=time.monotonic() - self._started,
        )
        resumable = name == "last"
        replace(
            self._checkpoint,
            weights=self._step.model.state_dict(),
            progress=self.progress,
            resume=optimizer_tensors(self._step.optimizer) if resumable else {},
        ).save(self.folder.checkpoint(name))

    def _is_done(self) -> bool:
        done, patience = self.progress.epoch, self.settings.patience
        stale = done - self.progress.best_epoch
        return done >= self.settings.max_epoch or bool(patience and done and stale >= patience)

    def _train_epoch(self, task: Task, interruption: Interruption) -> None:
        self._step.model.train()
        seed, epoch = self.settings.seed, self.progress.epoch
        batch_size, launch = self.settings.batch_size, self._world.launch
        order = self._windows.epoch_order(self._train_origins, seed, epoch, batch_size)
        left = order[self.progress.epoch_step * batch_size :]
        self._windows.expect(origins_shared(left, batch_size, launch.rank, launch.size))
        for epoch_step in range(self.progress.epoch_step, self.steps_an_epoch):
            origins = order[epoch_step * batch_size : (epoch_step + 1) * batch_size]
            self._take_step(origins)
            task.advance(len(origins))
            if self.progress.logged_steps == self.settings.log_every:
                task.note(f"epoch {self.progress.epoch + 1}  loss {self._log_step():.4g}")
            is_due = time.monotonic() - self._saved_at > CHECKPOINT_SECONDS
            # Asked or due in one process, it is done by all, after the same step.
            is_asked, is_due = self._world.any(interruption.is_asked, is_due)
            if is_asked:
                raise StopAskedError
            if is_due:
                self.save("last")

    def _take_step(self, origins: NDArray[np.int64]) -> None:
        device, rank = self._accelerator.device, self._world.launch.rank
        seed_step(device, self.settings.seed, self.progress.step, rank)
        # Added on the device: reading it would stall the loop.
        self._loss_sums += self._step(origins, self._learning_rate())
        self.progress = replace(
            self.progress,
            step=self.progress.step + 1,
            epoch_step=self.progress.epoch_step + 1,
            logged_steps=self.progress.logged_steps + 1,
        )

    def _learning_rate(self) -> float:
        share_done = self.progress.step / (self.steps_an_epoch * self.settings.max_epoch)
        return self.settings.learning_rate_at(self.progress.epoch, share_done)

    def _log_step(self) -> float:
        """Logs the mean loss since the last row, and makes sure that it is a number."""
        loss = float(self._loss_sums[1]) / self.progress.logged_steps
        if not np.isfinite(loss):
            raise TrainingDivergedError(
                f"The loss is {loss} after step {self.progress.step}. Train again in another --run "
                "with a smaller --learning-rate or --clip-norm."
            )
        row = {"step": self.progress.step, "epoch": self.progress.epoch + 1, "loss": loss}
        # Forgotten first: a process lost while the row is written leaves a state to save.
        self._loss_sums[1] = 0
        self.progress = replace(self.progress, logged_steps=0)
        self._log({"kind": "step", **row, "learning_rate": self._learning_rate()})
        return loss

    def _validate(self, task: Task, interruption: Interruption) -> ScoreTable:
        self._step.model.eval()

        def after_batch(windows: int) -> None:
            task.advance(windows)
            (is_asked,) = self._world.any(interruption.is_asked)
            if is_asked:
                raise StopAskedError

        forecaster = in_real_units(self._step.model, self._windows.statistics)
        origins, batch_size = self._val_origins, self.settings.batch_size
        tables = score(
            {"model": forecaster},
            self._windows,
            origins,
            batch_size,
            after_batch=after_batch,
            world=self._world,
        )
        return tables["model"]

    def _finish_epoch(self, val: ScoreTable) -> None:
        train_mae = float(self._loss_sums[0]) / self.steps_an_epoch
        val_mae, epoch = val.pooled.mae, self.progress.epoch + 1
        if val_mae is None or not np.isfinite(val_mae):
            raise TrainingDivergedError(
                f"The validation MAE is {val_mae} after epoch {epoch}. Train again in another "
                "--run with a smaller --learning-rate or --clip-norm."
            )
        best = self.progress.best_val_mae
        is_best = best is None or val_mae < best
        row = {
            "kind": "epoch",
            "step": self.progress.step,
            "epoch": epoch,
            "train_mae": train_mae,
            "val_mae": val_mae,
            "val_rmse": val.pooled.rmse,
            "learning_rate": self._learning_rate(),
            "seconds": round(time.monotonic() - self._started, 3),
        }
        self._log(row)
        say(
            f"epoch {epoch}/{self.settings.max_epoch}  train MAE {train_mae:.4g}  "
            f"val MAE {val_mae:.4g}{'  best' if is_best else ''}  {row['seconds']:.0f} s"
        )
        self._loss_sums[0] = 0
        self.progress = replace(self.progress, epoch=epoch, epoch_step=0)
        if is_best:
            self.progress = replace(self.progress, best_val_mae=val_mae, best_epoch=epoch)
            self.save("best")
        self.save("last")

    def _log(self, row: dict[str, Any]) -> None:
        self._world.from_main(lambda: self._write_row(row))

    def _write_row(self, row: dict[str, Any]) -> None:
        self.folder.append(row)
        if self._events is None:
            # Imported at the first row: it takes as long as everything else at start-up.
            from flowpatch.training.events import Events

            self._events = Events(self.folder.tensorboard, self.progress.step)
        for name, value in row.items():
            if isinstance(value, float):
                self._events.add(f"{row['kind']}/{name}", value, row["step"])

    def _say_start(self) -> None:
        layout, epoch = self._checkpoint.layout, self.progress.epoch
        parameters = sum(p.numel() for p in self._step.model.parameters())
        device = self._accelerator.device
        place = "cpu" if device.type == "cpu" else str(device)
        others = "" if self._world.is_alone else f" with {self._world.launch.size} processes"
        say(
            f"PatchSTG, {parameters:,} parameters, {layout.patches} patches of "
            f"{layout.patch_size}, {len(self._train_origins):,} training windows of "
            f"{self._windows.input_len} -> {self._windows.output_len} steps, "
            f"on {place}{others}"
            + (", compiled" if self._step.model.compiled_windows else "")
            + (f", from epoch {epoch + 1}" if self.progress.step else "")
        )
        if self._step.windows_at_a_time < self._step.windows_here:
            say(
                describe_parts(
                    self._step.model, self._step.windows_at_a_time, self._step.windows_here
                )
            )


def labelled_origins(store: SampleStore, windows: Windows, split: SplitName) -> NDArray[np.int64]:
    """The origins of a split that training uses.

    Raises:
        PeriodError: the split has no window, or none of its labels was observed.
    """
    origins = origins_of(store.splits, split, windows.input_len, windows.output_len)
    labels = slice(int(origins[0]), int(origins[-1]) + windows.output_len)
    if not store.observed_at[labels].any():
        raise PeriodError(
            f"The split '{split}' has no observed label to learn or judge by. Choose other ratios "
            "or another period, and build the store again."
        )
    return origins
