"""Forecasts in real units: a run, its store version, and an origin.

Shape suffixes: T input steps, H label steps, N nodes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from flowpatch.errors import PeriodError, SettingsError
from flowpatch.series.nodes import NodeTable
from flowpatch.settings import parse_bytes
from flowpatch.store.sample_store import SampleStore, open_store
from flowpatch.time_axis import Instants
from flowpatch.training.checkpoint import Checkpoint
from flowpatch.training.device import select_device
from flowpatch.training.run_folder import RunFolder
from flowpatch.training.runs import open_trained_store
from flowpatch.training.scoring import in_real_units
from flowpatch.training.settings import CheckpointName
from flowpatch.windows.in_memory import InMemory
from flowpatch.windows.opening import check_allowed


@dataclass(frozen=True)
class Forecast:
    """(H, N) values in real units, for the (H,) instants of the steps and the N nodes."""

    instants: Instants
    nodes: NodeTable
    values: NDArray[np.float32]


def forecast(
    run: str | Path,
    origin: str | np.datetime64 | None = None,
    checkpoint: CheckpointName = "best",
    store_path: str | Path | None = None,
    device: str = "auto",
    memory_limit: str | int | None = None,
) -> Forecast:
    """Forecasts the steps from `origin`, by default those after the last observed step.

    A store that was moved or has grown is named by `store_path`; its newest version serves, if
    it holds the same nodes. Without it, the version that the run was trained on is read. Of the
    series only the input is read, so that memory does not grow with the store; `memory_limit` is
    what the process may take, such as `2GB`, by default what there is.

    Raises:
        RunNotFoundError, CheckpointDamagedError: the run cannot be read.
        RunMismatchError: the store holds other nodes or steps.
        PeriodError: the store does not hold the whole input of that origin.
        MemoryLimitError: the memory allowed is too little for the model.
    """
    limit = None if memory_limit is None else parse_bytes(memory_limit)
    trained = RunFolder(Path(run)).load(checkpoint)
    store = _store(trained, store_path)
    step = _origin_step(store, origin, trained.input_len)
    on_device = select_device(device)
    check_allowed(trained.needs("forecast", on_device, batch_size=1), limit)
    windows = InMemory(
        _values_around(store, step, trained.input_len, trained.output_len),
        store.axis,
        trained.statistics,
        trained.input_len,
        trained.output_len,
        trained.train_settings.missing,
        on_device,
        first_step=step - trained.input_len,
    )
    model = trained.model(windows.device).eval()
    with torch.no_grad():
        forecast_1HN = in_real_units(model, trained.statistics)(windows.batch(np.array([step])))
    steps = range(step, step + trained.output_len)
    return Forecast(
        np.array([store.axis.instant_of(one) for one in steps]),
        store.nodes,
        forecast_1HN[0].cpu().numpy(),
    )


def _store(trained: Checkpoint, path: str | Path | None) -> SampleStore:
    if path is None:
        return open_trained_store(trained)
    store = open_store(path)
    trained.check_store(store)
    return store


def _origin_step(store: SampleStore, origin: str | np.datetime64 | None, input_len: int) -> int:
    last = store.splits.stop
    step = last if origin is None else store.axis.step_of(_instant(origin))
    first = store.splits.first + input_len
    if not first <= step <= last:
        raise PeriodError(
            f"The origin {origin} has no whole input of {input_len} steps in '{store.place}'. "
            f"Allowed: {store.axis.instant_of(first)} to {store.axis.instant_of(last)}."
        )
    return step


def _values_around(
    store: SampleStore, origin: int, input_len: int, output_len: int
) -> NDArray[np.float32]:
    """(T + H, N) values; the labels are left out, as they lie in the future."""
    values_TN = store.read(origin - input_len, origin)
    future_HN = np.full((output_len, values_TN.shape[1]), np.nan, dtype=np.float32)
    return np.concatenate([values_TN, future_HN])


def _instant(origin: str | np.datetime64) -> np.datetime64:
    if isinstance(origin, np.datetime64):
        return origin
    try:
        return np.datetime64(origin, "m")
    except ValueError:
        raise SettingsError(
            f"The origin '{origin}' is no instant. Write it as 2025-09-25T08:00."
        ) from None
