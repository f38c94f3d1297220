"""`flowpatch evaluate`: a run's scores beside the naive forecasts, as a table or as JSON."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flowpatch.errors import OutputError, SettingsError
from flowpatch.series.splits import SplitName
from flowpatch.training.settings import CheckpointName

if TYPE_CHECKING:
    from rich.table import Table

    from flowpatch.metrics import ScoreTable
    from flowpatch.training.evaluation import Evaluation


def evaluate(
    run: Path,
    /,
    *,
    split: SplitName = "test",
    checkpoint: CheckpointName = "best",
    store: Path | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    mape_floor: float = 1.0,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
    out: Path | None = None,
) -> None:
    """Score a run beside the naive forecasts, in real units.

    Parameters
    ----------
    run
        Folder of the run.
    split
        Split to score: train, val or test.
    checkpoint
        Weights to score: best or last.
    store
        Where the store is now, if it was moved.
    batch_size
        Windows of one step; by default as trained.
    device
        auto, cpu, cuda, or one GPU such as cuda:0.
    mape_floor
        MAPE leaves out labels smaller than this.
    as_json
        Print JSON instead of tables.
    out
        Also write the JSON to this file.
    """
    if batch_size is not None and batch_size < 1:
        raise SettingsError(f"Bad value '{batch_size}' for batch_size: it must be 1 or more.")
    if mape_floor <= 0:
        raise SettingsError(f"Bad value '{mape_floor}' for mape_floor: it must be above 0.")
    # Imported here: --help must not wait for torch.
    from flowpatch.training.evaluation import evaluate

    found = evaluate(run, split, checkpoint, store, batch_size, device, mape_floor)
    content = json.dumps(found.to_json(), indent=2)
    if out is not None:
        _write(out, content)
    if as_json:
        print(content)
    else:
        _print_tables(found)


def _write(path: Path, content: str) -> None:
    try:
        path.write_text(content + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"Cannot write '{path}': {error.strerror}. Check --out.") from error


def _print_tables(found: "Evaluation") -> None:
    from rich.console import Console

    console = Console()
    console.print(
        f"{found.split} split, {found.windows:,} windows of {found.input_len} -> "
        f"{found.output_len} steps of {found.step_minutes} min, weights of epoch {found.epoch}"
    )
    console.print(_pooled_table(found))
    console.print(_horizon_table(found))
    labels = next(iter(found.tables.values())).pooled
    console.print(
        f"{labels.labels:,} labels; MAPE over the {labels.mape_labels:,} of at least "
        f"{found.mape_floor:g}."
    )


def _pooled_table(found: "Evaluation") -> "Table":
    from rich.table import Table

    table = Table(title="All horizons together")
    table.add_column("forecast")
    for name in ("MAE", "RMSE", "RMSE, mean of horizons", "MAPE %", "WAPE %"):
        table.add_column(name, justify="right")
    for name, scores in found.tables.items():
        pooled = scores.pooled
        figures = (
            pooled.mae, pooled.rmse, scores.rmse_mean_of_horizons, pooled.mape, pooled.wape,
        )  # fmt: skip
        table.add_row(name, *map(_figure, figures))
    return table


def _horizon_table(found: "Evaluation") -> "Table":
    from rich.table import Table

    table = Table(title="MAE / RMSE / MAPE % by horizon")
    table.add_column("step", justify="right")
    table.add_column("minutes", justify="right")
    for name in found.tables:
        table.add_column(name, justify="right")
    for horizon in range(found.output_len):
        table.add_row(
            str(horizon + 1),
            str((horizon + 1) * found.step_minutes),
            *(_cell(scores, horizon) for scores in found.tables.values()),
        )
    return table


def _cell(scores: "ScoreTable", horizon: int) -> str:
    one = scores.horizons[horizon]
    return " / ".join(map(_figure, (one.mae, one.rmse, one.mape)))


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}" if value < 1000 else f"{value:,.0f}"
