"""`flowpatch train`: a new run from a store, or a stopped one resumed."""

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from flowpatch.errors import SettingsError
from flowpatch.model.settings import ModelSettings
from flowpatch.training.settings import TrainSettings

_DEFAULT_MODEL = ModelSettings()
_DEFAULT_TRAINING = TrainSettings()
_CHANGED_ON_RESUME = {"max_epoch", "device"}


def train(
    store: Path | None = None,
    *,
    run: Path | None = None,
    resume: Path | None = None,
    store_version: str | None = None,
    model: Annotated[ModelSettings, Parameter(name="*")] = _DEFAULT_MODEL,
    training: Annotated[TrainSettings, Parameter(name="*")] = _DEFAULT_TRAINING,
) -> None:
    """Train PatchSTG from a sample store, or go on with a stopped run.

    Parameters
    ----------
    store
        The sample store. With --resume: where it is now, if it was moved.
    run
        Folder of the new run; by default runs/STORE-TIME.
    resume
        Folder of a stopped run to go on with; --max-epoch and --device may change.
    store_version
        Version of the store to train on; by default the newest.
    """
    if resume is not None:
        _resume(store, run, resume, store_version, model, training)
        return
    if store is None:
        raise SettingsError("Name a store to train from, or --resume a run: flowpatch train STORE.")
    # Imported here: --help must not wait for torch.
    from flowpatch.store.sample_store import open_store
    from flowpatch.training.runs import train

    opened = open_store(store, store_version)
    run = run or Path("runs") / f"{store.stem}-{datetime.now():%Y%m%d-%H%M%S}"
    train(opened, run, model, training)
    print(run)


def _resume(
    store: Path | None,
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
    recorded = _recorded_settings(resumed)
    refused = [name for name, value in given.items() if recorded.get(name, ...) != value]
    if refused:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(refused))
        raise SettingsError(
            f"A resumed run keeps its settings: leave out {flags}, or train a new run. "
            "Allowed with --resume: --max-epoch, --device."
        )
    from flowpatch.training.runs import resume

    changed = training.model_fields_set
    resume(
        resumed,
        store,
        max_epoch=training.max_epoch if "max_epoch" in changed else None,
        device=training.device if "device" in changed else None,
    )
    print(resumed)


def _recorded_settings(run: Path) -> dict[str, Any]:
    """What the run was made with; nothing where there is no run, which `resume` will say."""
    try:
        content = json.loads((run / "settings.json").read_text(encoding="utf-8"))
        return {**content["model"], **content["training"]}
    except (OSError, ValueError, KeyError):
        return {}
