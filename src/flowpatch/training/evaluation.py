"""Scores of a trained run beside the naive forecasts, on one split of its store version."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowpatch.errors import PeriodError
from flowpatch.metrics import MAPE_FLOOR, ScoreTable
from flowpatch.model.baselines import LastValue, SameTimeBefore, naive_forecasts
from flowpatch.progress import track
from flowpatch.series.splits import SplitName
from flowpatch.settings import parse_bytes
from flowpatch.training.device import select_device
from flowpatch.training.run_folder import RunFolder
from flowpatch.training.runs import open_trained_store
from flowpatch.training.scoring import in_real_units, score
from flowpatch.training.settings import CheckpointName
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

    `memory_limit` is what the process may take, such as `2GB`; by default what there is.

    Raises:
        RunNotFoundError, CheckpointDamagedError: the run cannot be read.
        StoreNotFoundError, RunMismatchError: its store version is not there.
        PeriodError: the split has no observed label.
        SettingsError: the device or the memory limit is none.
        MemoryLimitError: the memory allowed is too little.
    """
    limit = None if memory_limit is None else parse_bytes(memory_limit)
    folder = RunFolder(Path(run))
    trained = folder.load(checkpoint)
    store = open_trained_store(trained, store_path)
    batch_size = batch_size or trained.train_settings.batch_size
    windows = trained.windows(store, select_device(device), "evaluate", batch_size, limit)
    model = trained.model(windows.device).eval()
    forecasters = {
        MODEL: in_real_units(model, trained.statistics),
        **naive_forecasts(windows, store.splits),
    }
    origins = origins_of(store.splits, split, windows.input_len, windows.output_len)
    with track("evaluate", total=len(origins), unit="windows") as task:
        tables = score(
            forecasters, windows, origins, batch_size, mape_floor, after_batch=task.advance
        )
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
        stood_in={
            name: naive.stand_in.share()
            for name, naive in forecasters.items()
            if isinstance(naive, LastValue | SameTimeBefore)
        },
    )
