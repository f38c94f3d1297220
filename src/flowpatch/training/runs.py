"""Runs: a new one on a store version, or a stopped one that goes on."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from flowpatch.errors import OutputError, RunMismatchError, StoreNotFoundError
from flowpatch.model.settings import ModelSettings
from flowpatch.patches.layout import PatchLayout, balanced_layout, paper_layout
from flowpatch.patches.similarity import daily_profiles
from flowpatch.places.place import place_of
from flowpatch.store.sample_store import SampleStore, open_store
from flowpatch.training.checkpoint import Checkpoint, Progress, StoreReference
from flowpatch.training.device import make_accelerator
from flowpatch.training.lineage import note_run, say_moved
from flowpatch.training.run_folder import RunFolder
from flowpatch.training.settings import TrainSettings
from flowpatch.training.shares import check_batch, check_windows
from flowpatch.training.trainer import Trainer
from flowpatch.training.world import World, joined
from flowpatch.windows.batches import Windows
from flowpatch.windows.origins import origins_of


def train(
    store: SampleStore,
    run: str | Path,
    model_settings: ModelSettings | None = None,
    train_settings: TrainSettings | None = None,
) -> Checkpoint:
    """Trains a new run on an open store version; returns its best checkpoint.

    Where several processes were launched, all of them call this, and train together.

    Raises:
        RunExistsError: the run's folder is not empty.
        OutputError: the file system refused a write; a run that has begun can be resumed.
        PeriodError, LayoutError, SettingsError: store and settings do not fit together.
        MemoryLimitError: the memory allowed is too little.
        StoppedByUser: Ctrl-C; the run can be resumed.
        TrainingDivergedError: the loss is no longer a number.
        ProcessLostError: another process has ended; the run can be resumed.
    """
    model_settings = model_settings or ModelSettings()
    train_settings = train_settings or TrainSettings()
    model_settings.check_layout()
    with joined() as world:
        checkpoint, windows, accelerator = _begin(store, model_settings, train_settings, world)
        folder = RunFolder(world.from_main(lambda: Path(run)))
        trainer = Trainer(folder, checkpoint, store, windows, accelerator, world)
        world.from_main(lambda: _create(folder, checkpoint, store))
        try:
            trainer.save("last")
        except OutputError:
            world.from_main(folder.forget)
            raise
        world.from_main(lambda: note_run(store, checkpoint.store, folder.path, "trained"))
        return trainer.fit()


def _begin(
    store: SampleStore, model_settings: ModelSettings, train_settings: TrainSettings, world: World
) -> tuple[Checkpoint, Windows, Accelerator]:
    """What a new run begins with; nothing is written yet."""
    input_len = train_settings.input_len or store.manifest.input_len
    output_len = train_settings.output_len or store.manifest.output_len
    with world.together():
        accelerator = make_accelerator(train_settings, world.launch)
        check_processes(world, train_settings, store, input_len, output_len)
    model_settings.temporal_patches(input_len)
    checkpoint = Checkpoint(
        model_settings=model_settings,
        train_settings=train_settings,
        input_len=input_len,
        output_len=train_settings.output_len or store.manifest.output_len,
        steps_a_day=store.axis.steps_a_day,
        layout=world.from_main(lambda: make_layout(model_settings, store)),
        statistics=store.statistics,
        nodes=store.nodes,
        store=StoreReference.of(store),
        weights={},
        progress=Progress(),
    )
    windows = _training_windows(checkpoint, store, accelerator.device, world)
    return replace(checkpoint, order=windows.order), windows, accelerator


def _create(folder: RunFolder, checkpoint: Checkpoint, store: SampleStore) -> None:
    folder.create(
        {
            "store": {"path": str(store.place), "version": store.version, "tag": store.tag},
            "model": checkpoint.model_settings.model_dump(mode="json"),
            "training": checkpoint.train_settings.model_dump(mode="json"),
        }
    )


def resume(
    run: str | Path,
    store_path: str | Path | None = None,
    max_epoch: int | None = None,
    device: str | None = None,
    memory_limit: str | int | None = None,
) -> Checkpoint:
    """Goes on with a stopped run, on the store version that it was trained on.

    With as many processes as were launched now, however many there were before. `store_path` says
    where the store is now; `max_epoch`, `device` and `memory_limit` replace the run's own. The
    order of windows stays that of the run, in memory or streamed.

    Raises:
        RunNotFoundError, CheckpointDamagedError: the run cannot be read.
        RunMismatchError: the store is not the one that the run was trained on.
    """
    changes = {"max_epoch": max_epoch, "device": device, "memory_limit": memory_limit}
    with joined() as world:
        folder = RunFolder(world.from_main(lambda: Path(run)))
        checkpoint = world.from_main(lambda: folder.load("last"))
        settings = TrainSettings(
            **{
                **checkpoint.train_settings.model_dump(),
                **{key: value for key, value in changes.items() if value is not None},
            }
        )
        checkpoint = replace(checkpoint, train_settings=settings)
        with world.together():
            store = open_trained_store(checkpoint, store_path)
            accelerator = make_accelerator(settings, world.launch)
            input_len, output_len = checkpoint.input_len, checkpoint.output_len
            check_processes(world, settings, store, input_len, output_len)
        windows = _training_windows(checkpoint, store, accelerator.device, world)
        windows.order = checkpoint.order
        trainer = Trainer(folder, checkpoint, store, windows, accelerator, world)
        progress = checkpoint.progress
        world.from_main(lambda: folder.keep_rows(progress.step, progress.epoch))
        world.from_main(lambda: note_run(store, checkpoint.store, folder.path, "resumed"))
        return trainer.fit()


def check_processes(
    world: World, settings: TrainSettings, store: SampleStore, input_len: int, output_len: int
) -> None:
    """Makes sure that there is something to do for every process.

    Raises:
        SettingsError: there are too many of them.
        PeriodError: there is no training window at all.
    """
    size = world.launch.size
    check_batch(size, settings.batch_size)
    check_windows(size, len(origins_of(store.splits, "train", input_len, output_len)), "train")


def open_trained_store(checkpoint: Checkpoint, store_path: str | Path | None = None) -> SampleStore:
    """The very store version that a checkpoint was trained on, wherever it lies now.

    Raises:
        StoreNotFoundError: it is not there.
        RunMismatchError: what is there has other content.
    """
    reference = checkpoint.store
    place = place_of(store_path or reference.path)
    if store_path is None and not place.exists(StoreNotFoundError):
        raise StoreNotFoundError(
            f"The store that the run was trained on is no longer at '{place}'. If it was moved, "
            "say where: flowpatch evaluate RUN --store PATH, flowpatch train PATH --resume RUN."
        )
    store = open_store(place, reference.version)
    if store.manifest.content_hash != reference.content_hash:
        raise RunMismatchError(
            f"Version {reference.version} of '{place}' has other content than the run was trained "
            "on. Name the store that it was trained on."
        )
    checkpoint.check_store(store)
    say_moved(store, reference)
    return store


def _training_windows(
    checkpoint: Checkpoint, store: SampleStore, device: torch.device, world: World
) -> Windows:
    settings = checkpoint.train_settings
    share = -(-settings.batch_size // world.launch.size)
    return checkpoint.windows(store, device, "train", share, settings.memory_limit, world)


def make_layout(settings: ModelSettings, store: SampleStore) -> PatchLayout:
    """The patch layout that the settings ask for; `paper` reads the training values."""
    coordinates = store.nodes.coordinates
    if settings.layout == "balanced":
        return balanced_layout(coordinates, settings.factors)
    return paper_layout(
        coordinates,
        lambda: daily_profiles(_training_days(store), store.axis.steps_a_day, len(coordinates)),
        settings.depth,
        settings.leaf_size,
        settings.factors,
    )


def _training_days(store: SampleStore) -> Iterator[NDArray[np.float32]]:
    """Scaled values of each whole day of the training period."""
    for _, day_TN in store.days(*store.splits.bounds("train")):
        yield store.statistics.scale(day_TN)
