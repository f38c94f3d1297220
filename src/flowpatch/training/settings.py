"""How a forecaster is trained. Free of torch, so that `--help` need not load it."""

import math
from typing import Annotated, Literal

from pydantic import Field

from flowpatch.settings import Bytes, Settings
from flowpatch.windows.missing import Missing

Positive = Annotated[int, Field(ge=1)]
Schedule = Literal["multistep", "cosine", "constant"]
Precision = Literal["auto", "no", "bf16", "fp16"]
Compile = Literal["auto", "yes", "no"]
CheckpointName = Literal["best", "last"]
"""The weights with the lowest validation MAE, or those of the last step."""

MILESTONES = (1, 35, 40)
"""Epochs after which the published schedule halves the learning rate."""


COMPILED_STEPS = 5_000
"""Steps of a training from which on compiling takes less time than it saves, on an H100."""


class TrainSettings(Settings):
    """What a run is made of, beside its model and its store."""

    input_len: Positive | None = None
    """Steps of a window before its origin; by default as the store was built."""
    output_len: Positive | None = None
    """Steps of a window from its origin; by default as the store was built."""
    missing: Missing = "last"
    """What the model sees in a missing cell: 0, the last value observed, or the mean."""
    max_epoch: Positive = 50
    """Epochs at most."""
    batch_size: Positive = 32
    """Windows of one step, those of all processes together."""
    micro_batch: Positive | None = None
    """Windows of a step that go through the model at a time, which changes only memory; by default
    as many as take about 4 GB on a CPU, or half the memory of a GPU."""
    recompute_activations: bool = False
    """Keep less for the way back and compute it again: about a third of the memory, a third more
    time."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.001
    """Learning rate at the start."""
    schedule: Schedule = "multistep"
    """multistep halves after epochs 1, 35, 40, as published; cosine falls to 0; constant stays."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Weight decay of AdamW."""
    clip_norm: Annotated[float, Field(ge=0)] = 5.0
    """Largest norm of the gradient; 0 clips nothing."""
    patience: Annotated[int, Field(ge=0)] = 10
    """Epochs without a better validation MAE before training stops; 0 never stops early."""
    precision: Precision = "auto"
    """What the encoder computes in: bf16, fp16, or float32 (no); auto is bf16 on a device made for
    it. Weights, forecasts and losses are float32 in any case."""
    compile: Compile = "auto"
    """Whether the encoder is compiled for a GPU, which takes some 20 s, once a machine: yes, no;
    auto is yes for long trainings."""
    device: str = "auto"
    """auto, cpu, cuda, or one GPU such as cuda:0."""
    memory_limit: Bytes | None = None
    """Memory that the process may take, such as 2GB; by default what the machine or its container
    has. A series that does not fit is streamed from the store."""
    seed: Annotated[int, Field(ge=0)] = 1
    """Seed of the initial weights, the order of windows, and dropout."""
    log_every: Positive = 50
    """Steps between two rows of the loss in metrics.jsonl."""

    def learning_rate_at(self, epoch: int, share_done: float) -> float:
        """The learning rate of a step, from its epoch (from 0) and the share of the run done."""
        match self.schedule:
            case "multistep":
                return self.learning_rate * 0.5 ** sum(epoch >= passed for passed in MILESTONES)
            case "cosine":
                return self.learning_rate * 0.5 * (1 + math.cos(math.pi * share_done))
            case "constant":
                return self.learning_rate
