"""`flowpatch train`: a new run from a store, or a stopped one resumed."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from cyclopts import Parameter

from flowpatch.cli.groups import MAXCOMPUTE
from flowpatch.cli.sample_tables import fetch_store
from flowpatch.errors import SettingsError
from flowpatch.maxcompute.names import TableName, is_address
from flowpatch.maxcompute.settings import MaxComputeSettings
from flowpatch.model.settings import ModelSettings
from flowpatch.tables.settings import FetchSettings
from flowpatch.training.settings import TrainSettings

if TYPE_CHECKING:
    from flowpatch.store.sample_store import SampleStore
    from flowpatch.training.world import World

RunFolderPath = Annotated[Path | None, Parameter(name=("--run", "--run-folder"))]
"""Where a new run lies. The longer name is for torchrun, which takes `--run` for its own."""
_DEFAULT_FETCH = FetchSettings()
_DEFAULT_MAXCOMPUTE = MaxComputeSettings()
_DEFAULT_MODEL = ModelSettings()
_DEFAULT_TRAINING = TrainSettings()
_CHANGED_ON_RESUME = {"max_epoch", "device", "memory_limit"}


def train(
    store: str | None = None,
    *,
    run: RunFolderPath = None,
    resume: Path | None = None,
    store_version: str | None = None,
    metadata_file: Path | None = None,
    model: Annotated[ModelSettings, Parameter(name="*")] = _DEFAULT_MODEL,
    training: Annotated[TrainSettings, Parameter(name="*")] = _DEFAULT_TRAINING,
    fetching: Annotated[FetchSettings, MAXCOMPUTE] = _DEFAULT_FETCH,
    maxcompute: Annotated[MaxComputeSettings, MAXCOMPUTE] = _DEFAULT_MAXCOMPUTE,
) -> None:
    """Train PatchSTG from a sample store, or go on with a stopped run.

    Parameters
    ----------
    store
        The sample store, a folder or s3://BUCKET/PATH, or a sample table: odps://PROJECT/TABLE.
        With --resume: where the store is now, if it was moved.
    run
        Folder of the new run; by default runs/STORE-TIME.
    resume
        Folder of a stopped run to go on with; --max-epoch, --device and --memory-limit may change.
    store_version
        Version of the store to train on; by default the newest.
    metadata_file
        The sample table's metadata; by default metadata_TABLE.json in this folder.
    """
    if resume is None and store is None:
        raise SettingsError("Name a store to train from, or --resume a run: flowpatch train STORE.")
    # Imported here: --help must not wait for torch.
    from flowpatch.store.sample_store import open_store
    from flowpatch.training.world import joined

    with joined() as world:
        if resume is not None:
            _resume(world, store, run, resume, store_version, model, training)
        elif is_address(address := cast(str, store)):
            table = TableName.of_address(address)
            opened = fetch_once(
                world, lambda: fetch_store(table, metadata_file, fetching, maxcompute)
            )
            train_store(world, opened, table.table, run, model, training)
        else:
            with world.together():
                opened = open_store(address, store_version)
            train_store(world, opened, Path(address).stem, run, model, training)


def fetch_once(world: "World", fetch: Callable[[], "SampleStore"]) -> "SampleStore":
    """A store fetched by the first process of each machine; the others open what it has fetched."""
    from flowpatch.store.sample_store import open_store

    with world.together():
        fetched = fetch() if world.launch.is_first_here else None
    mine = ("", "") if fetched is None else (fetched.place.absolute_address, fetched.version)
    place = world.hand_out(mine)
    with world.together():
        return open_store(*place) if fetched is None else fetched


def train_store(
    world: "World",
    store: "SampleStore",
    name: str,
    run: Path | None,
    model: ModelSettings,
    training: TrainSettings,
) -> None:
    """Trains a new run on an open store and prints its folder, by default runs/NAME-TIME."""
    # Imported here: --help must not wait for torch.
    from flowpatch.training.runs import train

    run = run or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    train(store, run, model, training)
    if world.is_main:
        print(run)


def _resume(
    world: "World",
    store: str | None,
    run: Path | None,
    resumed: Path,
    store_version: str | None,
    model: ModelSettings,
    training: TrainSettings,
) -> None:
    given = {
        **model.model_dump(include=model.model_fields_set),
        **training.model_dump(include=training.model_fields_set - _CHANGED_ON_RESUME),
        **({"run": run} if run and run != resumed else {}),
        **({"store_version": store_version} if store_version else {}),
    }
    # A settings file may name again what the run was made with.
    recorded = world.from_main(lambda: _recorded_settings(resumed))
    refused = [name for name, value in given.items() if recorded.get(name, ...) != value]
    if refused:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(refused))
        raise SettingsError(
            f"A resumed run keeps its settings: leave out {flags}, or train a new run. "
            "Allowed with --resume: --max-epoch, --device, --memory-limit."
        )
    from flowpatch.training.runs import resume

    changed = training.model_dump(include=training.model_fields_set & _CHANGED_ON_RESUME)
    resume(resumed, store, **changed)
    if world.is_main:
        print(resumed)


def _recorded_settings(run: Path) -> dict[str, Any]:
    """What the run was made with; nothing where there is no run, which `resume` will say."""
    try:
        content = json.loads((run / "settings.json").read_text(encoding="utf-8"))
        return {**content["model"], **content["training"]}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}
