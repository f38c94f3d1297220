"""Checkpoints: one safetensors file each, complete, checked, and free of code.

A file holds the weights, and beside them all that gives them meaning: settings, patch layout,
scaling, nodes, and the store version. `last` also holds the optimizer and how far training had
come; what is random follows from seed and step. A file is written whole and then renamed, so a run
never has half of one, and it carries a hash of its content, so a damaged one is refused.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from flowpatch.errors import (
    CheckpointDamagedError,
    OutputError,
    RunMismatchError,
    RunNotFoundError,
)
from flowpatch.model.patchstg import PatchSTG
from flowpatch.model.settings import ModelSettings
from flowpatch.patches.kinds import LayoutKind
from flowpatch.patches.layout import PatchLayout
from flowpatch.places.reasons import first_line
from flowpatch.series.nodes import NodeTable
from flowpatch.series.statistics import Statistics
from flowpatch.store.sample_store import SampleStore
from flowpatch.time_axis import MINUTES_A_DAY
from flowpatch.training.device import encoder_dtype
from flowpatch.training.needs import Work, needs_of
from flowpatch.training.settings import TrainSettings
from flowpatch.windows.batches import Windows
from flowpatch.windows.opening import open_windows
from flowpatch.windows.order import BlockOrder
from flowpatch.windows.residence import Needs
from flowpatch.windows.shared import Machine

FORMAT = 1
"""Format number of a checkpoint."""
_LONGEST = 10**6
"""Steps of an input or output that any run has."""


@dataclass(frozen=True)
class StoreReference:
    """The store version that a run was trained on, and the tag that named it, if one did."""

    path: str
    version: str
    content_hash: str
    tag: str | None = None

    @classmethod
    def of(cls, store: SampleStore) -> "StoreReference":
        """The version that is open."""
        content_hash = store.manifest.content_hash
        return cls(store.place.absolute_address, store.version, content_hash, store.tag)


@dataclass(frozen=True)
class Progress:
    """How far training had come: enough to go on as if it had never stopped.

    `epoch` counts from 0 and `epoch_step` the steps done in it; the sums are of the losses of
    this epoch and since the last row of the log.
    """

    epoch: int = 0
    epoch_step: int = 0
    step: int = 0
    epoch_loss_sum: float = 0.0
    logged_loss_sum: float = 0.0
    logged_steps: int = 0
    best_val_mae: float | None = None
    best_epoch: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Checkpoint:
    """All that a forecaster needs, and, where `resume` holds tensors, all that training needs.

    `order` is how its epochs mix the windows, wherever the series lies.
    """

    model_settings: ModelSettings
    train_settings: TrainSettings
    input_len: int
    output_len: int
    steps_a_day: int
    layout: PatchLayout
    statistics: Statistics
    nodes: NodeTable
    store: StoreReference
    weights: dict[str, Tensor]
    progress: Progress
    order: BlockOrder | None = None
    resume: dict[str, Tensor] = field(default_factory=dict)

    def check_store(self, store: SampleStore) -> None:
        """Makes sure that a store holds the nodes and steps that the weights were made for.

        Raises:
            RunMismatchError: it does not.
        """
        if store.axis.steps_a_day != self.steps_a_day:
            raise RunMismatchError(
                f"The run was trained at {1440 // self.steps_a_day}-minute steps, but "
                f"'{store.place}' has {store.axis.step_minutes}-minute steps. Train a new run."
            )
        if store.nodes.fingerprint() != self.nodes.fingerprint():
            raise RunMismatchError(
                f"The run was trained on {len(self.nodes)} nodes, and '{store.place}' has "
                f"{len(store.nodes)} nodes with other keys or coordinates. Train a new run on it, "
                "or name the store that the run was trained on."
            )

    def check_model(self, path: Path) -> None:
        """Makes sure that settings and weights make one model, before memory is taken for it.

        Raises:
            CheckpointDamagedError: they do not; `path` is named.
        """
        try:
            # Deeper than its weights would take for ever to make.
            if self.model_settings.layers > len(self.weights):
                raise ValueError(f"{self.model_settings.layers} layers")
            # Of shapes alone: a stranger's sizes may be any.
            expected = self._new_model_of_shapes().state_dict()
            shapes, found = (
                {name: tensor.shape for name, tensor in tensors.items()}
                for tensors in (expected, self.weights)
            )
            if shapes != found:
                raise ValueError("the weights have other names or shapes")
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointDamagedError(
                f"{_damaged(path)}: its weights do not fit its settings: {first_line(error)}."
            ) from error

    def _new_model(self) -> PatchSTG:
        return PatchSTG(
            self.model_settings,
            self.layout,
            self.input_len,
            self.output_len,
            self.steps_a_day,
        )

    def _new_model_of_shapes(self) -> PatchSTG:
        with torch.device("meta"):
            return self._new_model()

    def model(self, device: torch.device) -> PatchSTG:
        """The forecaster on a device, with its weights where there are any yet."""
        model = self._new_model()
        if self.weights:
            model.load_state_dict(self.weights)
        return self._as_trained(model, device).to(device)

    def _as_trained(self, model: PatchSTG, device: torch.device) -> PatchSTG:
        """A model that computes as the settings of the training say."""
        model.encoder_dtype = encoder_dtype(self.train_settings.precision, device)
        model.recompute_activations = self.train_settings.recompute_activations
        return model

    def windows(
        self,
        store: SampleStore,
        device: torch.device,
        work: Work,
        batch_size: int | None = None,
        memory_limit: int | None = None,
        machine: Machine | None = None,
    ) -> Windows:
        """The windows of a store as the run sees them, for some work in so much memory.

        The processes of a `machine` read the store once together.

        Raises:
            MemoryLimitError: it is too little.
        """
        return open_windows(
            store,
            self.input_len,
            self.output_len,
            self.train_settings.missing,
            device,
            memory_limit,
            self.needs(work, device, batch_size),
            machine,
        )

    def needs(self, work: Work, device: torch.device, batch_size: int | None = None) -> Needs:
        """What the model takes at some work, in batches as trained unless their size is given."""
        settings = self.train_settings
        model = self._as_trained(self._new_model_of_shapes(), device)
        batch_size = batch_size or settings.batch_size
        return needs_of(work, model, batch_size, device, settings.micro_batch)

    def save(self, path: Path) -> None:
        """Writes the file whole, then renames it into place.

        Raises:
            OutputError: the file system refused it; what was there before is untouched.
        """
        tensors = {
            **{f"weights/{name}": tensor for name, tensor in self.weights.items()},
            **{f"resume/{name}": tensor for name, tensor in self.resume.items()},
            "layout/slots": torch.from_numpy(self.layout.slots),
            "layout/slot_of_node": torch.from_numpy(self.layout.slot_of_node),
        }
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        description = json.dumps(self._describe())
        metadata = {
            "format": str(FORMAT),
            "description": description,
            "content_hash": _hash(description, tensors),
        }
        _write_whole(path, save(tensors, metadata))

    def _describe(self) -> dict[str, Any]:
        return {
            "code_version": installed_version("flowpatch"),
            "model_settings": self.model_settings.model_dump(mode="json"),
            "train_settings": self.train_settings.model_dump(mode="json"),
            "input_len": self.input_len,
            "output_len": self.output_len,
            "steps_a_day": self.steps_a_day,
            "layout_kind": self.layout.kind,
            "statistics": self.statistics.to_json(),
            "nodes": self.nodes.to_json(),
            "store": asdict(self.store),
            "progress": asdict(self.progress),
            "order": None if self.order is None else self.order.to_json(),
        }

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Reads and checks a file.

        Raises:
            RunNotFoundError: there is no such file.
            CheckpointDamagedError: its bytes are not those that were written.
        """
        if not path.is_file():
            raise RunNotFoundError(f"No checkpoint '{path}'. Train a run first: flowpatch train.")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointDamagedError(f"{_damaged(path)}: {error}") from error
        _check_format(metadata, path)
        if _hash(metadata.get("description", ""), tensors) != metadata.get("content_hash"):
            raise CheckpointDamagedError(f"{_damaged(path)}: its content hash does not match.")
        try:
            checkpoint = cls._of(json.loads(metadata["description"]), tensors)
            checkpoint._check_values()
        # A hash only proves that its writer knew how: what it describes may be anything.
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            raise _nonsense(path, error) from error
        return checkpoint

    def _check_values(self) -> None:
        """Raises ValueError or TypeError for what no training writes."""
        for length in (self.input_len, self.output_len, self.steps_a_day):
            if not isinstance(length, int) or not 1 <= length <= _LONGEST:
                raise ValueError(f"a length of {length!r}")
        if MINUTES_A_DAY % self.steps_a_day:
            raise ValueError(f"{self.steps_a_day} steps a day")
        if self.layout.kind not in get_args(LayoutKind):
            raise ValueError(f"a layout {self.layout.kind!r}")
        if len(self.nodes) != len(self.layout.slot_of_node):
            raise ValueError("the layout is not that of the nodes")
        named = (self.store.path, self.store.version, self.store.content_hash)
        tag_is_text = self.store.tag is None or isinstance(self.store.tag, str)
        if not all(isinstance(name, str) for name in named) or not tag_is_text:
            raise TypeError(f"a store {self.store!r}")
        figures = [value for value in asdict(self.progress).values() if value is not None]
        figures += [self.statistics.mean, self.statistics.deviation, self.statistics.observed]
        if not all(math.isfinite(figure) for figure in figures):
            raise ValueError("figures that are no numbers")
        progress = self.progress
        if min(progress.epoch, progress.epoch_step, progress.step) < 0:
            raise ValueError("a negative progress")
        if self.statistics.deviation < 0:
            raise ValueError("a negative deviation")

    @classmethod
    def _of(cls, described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "Checkpoint":
        def under(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(prefix): tensor
                for name, tensor in tensors.items()
                if name.startswith(prefix)
            }

        # Older runs have none: their series were in memory.
        order = described.get("order")
        return cls(
            model_settings=ModelSettings(**described["model_settings"]),
            train_settings=TrainSettings(**described["train_settings"]),
            input_len=described["input_len"],
            output_len=described["output_len"],
            steps_a_day=described["steps_a_day"],
            layout=PatchLayout(
                described["layout_kind"],
                tensors["layout/slots"].numpy(),
                tensors["layout/slot_of_node"].numpy(),
            ),
            statistics=Statistics(**described["statistics"]),
            nodes=NodeTable.from_json(described["nodes"]),
            store=StoreReference(**described["store"]),
            weights=under("weights/"),
            progress=Progress(**described["progress"]),
            order=BlockOrder.from_json(order) if order else None,
            resume=under("resume/"),
        )


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as named tensors: `optimizer/<parameter>/<entry>`."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer/{index}/{entry}": torch.as_tensor(value)
        for index, entries in state.items()
        for entry, value in entries.items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts back what `optimizer_tensors` took; learning rates are set by the schedule."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer/"):
            _, index, entry = name.split("/")
            state.setdefault(int(index), {})[entry] = tensor.clone()
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def _check_format(metadata: Mapping[str, str], path: Path) -> None:
    number = metadata.get("format", "")
    if not re.fullmatch("[0-9]{1,9}", number):
        raise CheckpointDamagedError(f"'{path}' is no checkpoint of flowpatch.")
    if int(number) > FORMAT:
        raise CheckpointDamagedError(
            f"'{path}' has checkpoint format {number}; this flowpatch reads formats up to "
            f"{FORMAT}. Upgrade: pip install --upgrade flowpatch."
        )


def _hash(description: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(description.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # Reduced-precision tensors have no numpy type; their bytes do.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _damaged(path: Path) -> str:
    other = "best" if path.stem == "last" else "last"
    return f"The checkpoint '{path}' is damaged (the run's '{other}' may be whole)"


def _nonsense(path: Path, error: Exception) -> CheckpointDamagedError:
    return CheckpointDamagedError(
        f"{_damaged(path)}: it describes no run: {type(error).__name__}: {first_line(error)[:200]}."
    )


def _write_whole(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(
            f"Cannot write the checkpoint '{path}': {error.strerror}. What was there before is "
            "untouched; free some space, then go on with flowpatch train --resume."
        ) from error
