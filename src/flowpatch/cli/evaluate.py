"""`flowpatch evaluate`: a run's scores beside the naive forecasts, as a table or as JSON."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flowpatch.cli.printing import show
from flowpatch.errors import OutputError, SettingsError
from flowpatch.series.splits import SplitName
from flowpatch.training.settings import CheckpointName

if TYPE_CHECKING:
    from rich.table import Table

    from flowpatch.training.evaluation import Evaluation

_METRICS = {"MAE": "mae", "RMSE": "rmse", "MAPE %": "mape", "WAPE %": "wape"}


def evaluate(
    run: Path,
    *,
    split: SplitName = "test",
    checkpoint: CheckpointName = "best",
    store: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    memory_limit: str | None = None,
    mape_floor: float = 1.0,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
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
        Where the store is now, if it was moved: a folder, or s3://BUCKET/PATH.
    batch_size
        Windows of one step; by default as trained.
    device
        auto, cpu, cuda, or one GPU such as cuda:0.
    memory_limit
        Memory that the process may take, such as 2GB; by default what the machine or its container
        has. A series that does not fit is streamed from the store.
    mape_floor
        MAPE leaves out labels smaller than this.
    as_json
        Print JSON instead of tables.
    out
        Also write the JSON to this file.
    """
    if batch_size is not None and batch_size < 1:
        raise SettingsError(f"Bad value '{batch_size}' for batch_size: it must be 1 or more.")
    if not 0 < mape_floor < math.inf:
        raise SettingsError(f"Bad value '{mape_floor}' for mape_floor: it must be above 0.")
    # Imported here: --help must not wait for torch.
    from flowpatch.training.evaluation import evaluate
    from flowpatch.training.world import joined

    with joined() as world:
        world.from_main(lambda: _check_place(out))
        found = evaluate(
            run, split, checkpoint, store, batch_size, device, mape_floor, memory_limit
        )
        world.from_main(lambda: _deliver(found, out, as_json))


def _check_place(out: Path | None) -> None:
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise OutputError(f"Cannot write '{out}': no file in a folder that exists. Check --out.")


def _deliver(found: "Evaluation", out: Path | None, as_json: bool) -> None:
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
    labels = next(iter(found.tables.values())).pooled
    show(
        f"{found.split} split, {found.windows:,} windows of {found.input_len} -> "
        f"{found.output_len} steps of {found.step_minutes} min, weights of epoch {found.epoch}",
        *(_horizon_table(found, name, metric) for name, metric in _METRICS.items()),
        _pooled_table(found),
        f"{labels.labels:,} labels; MAPE over the {labels.mape_labels:,} of at least "
        f"{found.mape_floor:g}.",
        *(
            f"For {share:.1%} of them the historical mean stood in for '{name}'."
            for name, share in found.stood_in.items()
            if share >= 0.0005
        ),
    )


def _pooled_table(found: "Evaluation") -> "Table":
    from rich.table import Table

    table = Table(title="All horizons together")
    table.add_column("forecast")
    for name in (*_METRICS, "RMSE, mean of horizons"):
        table.add_column(name, justify="right")
    for name, scores in found.tables.items():
        pooled = [getattr(scores.pooled, metric) for metric in _METRICS.values()]
        table.add_row(name, *map(_figure, [*pooled, scores.rmse_mean_of_horizons]))
    return table


def _horizon_table(found: "Evaluation", name: str, metric: str) -> "Table":
    from rich.table import Table

    table = Table(title=f"{name} by horizon")
    table.add_column("step", justify="right")
    for forecaster in found.tables:
        table.add_column(forecaster, justify="right")
    for horizon in range(found.output_len):
        scores = [table.horizons[horizon] for table in found.tables.values()]
        table.add_row(
            str(horizon + 1),
            *(_figure(getattr(one, metric)) for one in scores),
        )
    return table


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}" if value < 1000 else f"{value:,.0f}"
