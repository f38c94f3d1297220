"""Scores of a trained run beside the naive forecasts, on one split of its store version."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowpatch.errors import PeriodError
from flowpatch.metrics import MAPE_FLOOR, ScoreTable
from flowpatch.model.baselines import Forecaster, LastValue, SameTimeBefore, naive_forecasts
from flowpatch.progress import track
from flowpatch.series.splits import SplitName
from flowpatch.settings import parse_bytes
from flowpatch.training.device import select_device
from flowpatch.training.run_folder import RunFolder
from flowpatch.training.runs import open_trained_store
from flowpatch.training.scoring import in_real_units, score
from flowpatch.training.settings import CheckpointName
from flowpatch.training.shares import check_windows
from flowpatch.training.world import World, joined
from flowpatch.windows.origins import origins_of

MODEL = "PatchSTG"


@dataclass(frozen=True)
class Evaluation:
    """The score tables by forecaster, the model first, all on the same labels.

    `stood_in` is, for naive forecasts, the share of labels for which they had no value of their
    own and the historical mean stood in.
    """

    run: Path
    checkpoint: CheckpointName
    epoch: int
    split: SplitName
    windows: int
    input_len: int
    output_len: int
    step_minutes: int
    mape_floor: float
    store: dict[str, str]
    tables: dict[str, ScoreTable]
    stood_in: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain values: scores in real units, MAPE and WAPE in per cent, shares from 0 to 1."""
        return {
            "run": str(self.run),
            "checkpoint": self.checkpoint,
            "epoch": self.epoch,
            "store": self.store,
            "split": self.split,
            "windows": self.windows,
            "input_len": self.input_len,
            "output_len": self.output_len,
            "step_minutes": self.step_minutes,
            "mape_floor": self.mape_floor,
            "scores": {
                name: {**table.to_json(), "historical_mean_stood_in": self.stood_in.get(name, 0.0)}
                for name, table in self.tables.items()
            },
        }


def evaluate(
    run: str | Path,
    split: SplitName = "test",
    checkpoint: CheckpointName = "best",
    store_path: str | Path | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    mape_floor: float = MAPE_FLOOR,
    memory_limit: str | int | None = None,
) -> Evaluation:
    """Scores a run's model and the naive forecasts on a split, in real units.

    Where several processes were launched, all of them call this; each gets the same scores, which
    do not depend on their number.
    `memory_limit` is what the processes of a machine may take together, such as `2GB`; by default
    what there is.

    Raises:
        RunNotFoundError, CheckpointDamagedError: the run cannot be read.
        StoreNotFoundError, RunMismatchError: its store version is not there.
        PeriodError: the split has no observed label.
        SettingsError: the device or the memory limit is none.
        MemoryLimitError: the memory allowed is too little.
    """
    limit = None if memory_limit is None else parse_bytes(memory_limit)
    folder = RunFolder(Path(run))
    with joined() as world:
        trained = world.from_main(lambda: folder.load(checkpoint))
        with world.together():
            store = open_trained_store(trained, store_path)
            found_device = select_device(device, world.launch)
            origins = origins_of(store.splits, split, trained.input_len, trained.output_len)
            check_windows(world.launch.size, len(origins), split)
        batch_size = batch_size or trained.train_settings.batch_size
        windows = trained.windows(store, found_device, "evaluate", batch_size, limit, world)
        forecasters = {
            MODEL: in_real_units(trained.model(windows.device).eval(), trained.statistics),
            **naive_forecasts(windows, store.splits),
        }
        with track("evaluate", total=len(origins), unit="windows") as task:
            tables = score(
                forecasters, windows, origins, batch_size, mape_floor, task.advance, world
            )
        stood_in = _stood_in(forecasters, world)
    if not tables[MODEL].pooled.labels:
        raise PeriodError(f"The split '{split}' has no observed label to score.")
    return Evaluation(
        run=folder.path,
        checkpoint=checkpoint,
        epoch=trained.progress.epoch,
        split=split,
        windows=len(origins),
        input_len=windows.input_len,
        output_len=windows.output_len,
        step_minutes=store.axis.step_minutes,
        mape_floor=mape_floor,
        store={"path": str(store.place), "version": store.version},
        tables=tables,
        stood_in=stood_in,
    )


def _stood_in(forecasters: Mapping[str, Forecaster], world: World) -> dict[str, float]:
    """For each forecaster that may lack a value of its own, how often that was."""
    shares = {}
    for name, naive in forecasters.items():
        if isinstance(naive, LastValue | SameTimeBefore):
            world.add_up(naive.stand_in.labels_2)
            shares[name] = naive.stand_in.share()
    return shares
