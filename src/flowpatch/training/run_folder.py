"""A run's folder: where its settings, checkpoints, metrics and TensorBoard events lie.

RUN/
  settings.json        what was asked for, and the store version
  metrics.jsonl        one row every `log_every` steps and one every epoch
  checkpoints/         best.safetensors, last.safetensors
  tensorboard/         the same figures as events
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowpatch.errors import OutputError, RunExistsError, RunNotFoundError
from flowpatch.training.checkpoint import Checkpoint
from flowpatch.training.settings import CheckpointName


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def metrics(self) -> Path:
        """The plain log."""
        return self.path / "metrics.jsonl"

    @property
    def settings(self) -> Path:
        """The settings, to read; what counts is inside the checkpoints."""
        return self.path / "settings.json"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard events."""
        return self.path / "tensorboard"

    def checkpoint(self, name: CheckpointName) -> Path:
        """The file of a checkpoint."""
        return self.path / "checkpoints" / f"{name}.safetensors"

    def create(self, settings: dict[str, Any]) -> None:
        """Makes the folder of a new run.

        Raises:
            RunExistsError: a run, or something else, is there.
            OutputError: the file system refused it.
        """
        if self.path.is_file():
            raise RunExistsError(f"'{self.path}' is a file. Give another --run.")
        if self.path.is_dir() and any(self.path.iterdir()):
            raise RunExistsError(
                f"'{self.path}' is not empty. Give another --run, or go on with it: "
                f"flowpatch train --resume {self.path}."
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.settings.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            self.forget()
            raise OutputError(f"Cannot write the run '{self.path}': {error}.") from error

    def forget(self) -> None:
        """Removes a run that nobody can go on with, so that the same command may begin it again."""
        shutil.rmtree(self.path, ignore_errors=True)

    def load(self, name: CheckpointName) -> Checkpoint:
        """A checkpoint of the run.

        Raises:
            RunNotFoundError: no run is here, or it stopped before its first checkpoint.
            CheckpointDamagedError: the file is damaged.
        """
        if not self.path.is_dir():
            raise RunNotFoundError(f"No run at '{self.path}'. Check the path.")
        if not self.settings.is_file():
            raise RunNotFoundError(f"'{self.path}' is no run. Name the folder given to --run.")
        if not self.checkpoint(name).is_file():
            raise RunNotFoundError(
                f"The run '{self.path}' has no checkpoint '{name}': it stopped before its first. "
                "Train it anew in another folder."
            )
        found = Checkpoint.load(self.checkpoint(name))
        found.check_model(self.checkpoint(name))
        return found

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the log, oldest first, up to one that a crash cut off or that is damaged."""
        if not self.metrics.is_file():
            return []
        rows = []
        for line in self.metrics.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                break
            if not _is_row(row):
                break
            rows.append(row)
        return rows

    def append(self, row: dict[str, Any]) -> None:
        """Adds a row to the log.

        Raises:
            OutputError: the file system refused it.
        """
        self._write([row], "a")

    def keep_rows(self, step: int, epoch: int) -> None:
        """Drops the rows that a stopped run wrote after its last checkpoint.

        `step` steps and `epoch` whole epochs were done at that checkpoint.
        """
        kept = [
            row
            for row in self.rows()
            if row["step"] <= step and (row["kind"] == "step" or row["epoch"] <= epoch)
        ]
        self._write(kept, "w")

    def _write(self, rows: list[dict[str, Any]], mode: str) -> None:
        try:
            with self.metrics.open(mode, encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
        except OSError as error:
            raise OutputError(f"Cannot write '{self.metrics}': {error.strerror}.") from error


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and row.get("kind") in ("step", "epoch")
        and all(isinstance(row.get(name), int) for name in ("step", "epoch"))
    )
