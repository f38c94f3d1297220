"""Does speed cost accuracy? The published formulation and ours, equal epochs, the same windows.

`python -m benchmarks accuracy` trains both on real and on simulated counts with three seeds each,
which takes about an hour on two cores; `--quick` trains one seed for one epoch on few nodes. Both
see the same order of windows, learning rates and scaling, keep the weights of the best validation
MAE, and are scored on the same labels. All that differs is the formulation: layout, precision, and
how dropout is drawn.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.baselines.published_patchstg import PublishedPatchSTG, Widths
from benchmarks.baselines.published_training import PublishedTraining
from flowpatch.model.baselines import Forecaster
from flowpatch.model.patchstg import PatchSTG
from flowpatch.model.settings import ModelSettings
from flowpatch.patches.layout import PatchLayout
from flowpatch.preprocessing.build import preprocess
from flowpatch.preprocessing.settings import PreprocessSettings
from flowpatch.store.sample_store import SampleStore
from flowpatch.training.device import encoder_dtype, make_accelerator
from flowpatch.training.runs import make_layout
from flowpatch.training.scoring import in_real_units, score
from flowpatch.training.settings import TrainSettings
from flowpatch.training.step import TrainingStep
from flowpatch.windows.batches import Windows
from flowpatch.windows.in_memory import InMemory
from flowpatch.windows.origins import origins_of

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
EPOCHS = 3
SEEDS = (1, 2, 3)
FAST, PUBLISHED = "flowpatch, defaults", "published formulation"


@dataclass(frozen=True)
class DataSet:
    """One data set and how its store is built."""

    name: str
    settings: dict[str, Any]

    def build(self, folder: Path) -> SampleStore:
        """A store in `folder`."""
        source = DATA / self.name
        return preprocess(
            PreprocessSettings(
                records=str(source / "records.parquet"),
                nodes=str(source / "nodes.csv"),
                store=folder / f"{self.name}.store",
                **self.settings,
            )
        )


DATA_SETS = (
    DataSet("aarhus", {"node_columns": ("sensor_id",)}),
    DataSet("ingolstadt_simulated", {"aggregate": "sum"}),
)


def measure(*, quick: bool) -> dict[str, Any]:
    """Test MAE of both formulations by data set, seed by seed."""
    if not DATA.is_dir():
        return {"not_run": f"the data sets are not at {DATA.name}/ beside the project"}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for data_set in DATA_SETS[: 1 if quick else None]:
            store = data_set.build(Path(folder))
            found[data_set.name] = compare(store, SEEDS[: 1 if quick else None], quick=quick)
    return found


def compare(store: SampleStore, seeds: tuple[int, ...], *, quick: bool) -> dict[str, Any]:
    """Both formulations on one store, and by how much the fast one is worse on average."""
    epochs = 1 if quick else EPOCHS
    runs = {
        name: [train_and_score(name, store, seed, epochs, quick=quick) for seed in seeds]
        for name in (FAST, PUBLISHED)
    }
    maes = {name: [run["test_mae"] for run in found] for name, found in runs.items()}
    return {
        "nodes": len(store.nodes),
        "steps": store.axis.length,
        "step_minutes": store.axis.step_minutes,
        "epochs": epochs,
        "runs": runs,
        "mean_test_mae": {name: mean(found) for name, found in maes.items()},
        "deviation_over_seeds": {name: pstdev(found) for name, found in maes.items()},
        "fast_worse_by_percent": 100 * (mean(maes[FAST]) / mean(maes[PUBLISHED]) - 1),
    }


def train_and_score(
    name: str,
    store: SampleStore,
    seed: int,
    epochs: int,
    *,
    quick: bool,
    windows: Windows | None = None,
) -> dict[str, float]:
    """One training, and its scores with the weights of the best epoch; by default in memory."""
    settings = TrainSettings(max_epoch=epochs, seed=seed)
    windows = windows or InMemory.of_store(store, missing=settings.missing)
    lengths = (windows.input_len, windows.output_len)
    origins = {
        split: origins_of(store.splits, split, *lengths)[: 64 if quick else None]
        for split in ("train", "val", "test")
    }
    torch.manual_seed(seed)
    make = _fast if name == FAST else _published
    model, step, forecaster = make(store, windows, settings)

    def mae_on(split: str) -> float:
        model.eval()
        table = score({name: forecaster}, windows, origins[split], settings.batch_size)[name]
        if table.pooled.mae is None:
            raise ValueError(f"no label was observed in the split '{split}'")
        return table.pooled.mae

    best, best_weights, seconds = float("inf"), model.state_dict(), 0.0
    for epoch in range(epochs):
        model.train()
        order = windows.epoch_order(origins["train"], seed, epoch)
        windows.expect(order)
        started = time.monotonic()
        for first in range(0, len(order), settings.batch_size):
            step(order[first : first + settings.batch_size], settings.learning_rate_at(epoch, 0.0))
        seconds += time.monotonic() - started
        if (val_mae := mae_on("val")) < best:
            best = val_mae
            best_weights = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(best_weights)
    return {
        "seed": seed,
        "val_mae": best,
        "test_mae": mae_on("test"),
        "seconds_an_epoch": seconds / epochs,
    }


Made = tuple[nn.Module, Callable[..., Tensor], Forecaster]
"""A model, one step of its training, and the forecaster that it is."""


def _fast(store: SampleStore, windows: Windows, settings: TrainSettings) -> Made:
    """What `flowpatch train` does with its defaults."""
    chosen = ModelSettings()
    layout = make_layout(chosen, store)
    lengths = (windows.input_len, windows.output_len)
    model = PatchSTG(chosen, layout, *lengths, store.axis.steps_a_day)
    model.encoder_dtype = encoder_dtype(settings.precision, windows.device)
    step = TrainingStep(model, windows, settings, make_accelerator(settings))
    return model, step, in_real_units(model, windows.statistics)


def _published(store: SampleStore, windows: Windows, settings: TrainSettings) -> Made:
    """The published formulation at the same widths, with the same optimizer and clipping."""
    chosen = ModelSettings(layout="paper")
    layout: PatchLayout = make_layout(chosen, store)
    widths = Widths(
        chosen.layers, chosen.input_dims, chosen.node_dims, chosen.tod_dims, chosen.dow_dims
    )
    model = PublishedPatchSTG(
        widths, layout, windows.output_len, store.axis.steps_a_day, windows.input_len
    )
    training = PublishedTraining(model, windows, settings)
    return model, training.step, training.forecast
