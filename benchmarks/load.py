"""From a store to training: the first batch in a warm process, the first step of a cold one."""

import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.measuring import (
    alternate,
    flowpatch,
    run,
    run_child,
    seconds_of,
    started_process,
)
from benchmarks.rows import Found, FoundRow
from benchmarks.workshop import Workshop

BATCH = 32
LINES_SEEN = 3
"""The first step, and two more: what a step takes when warm is the time between those."""
PATIENCE_S = 300


def measure(workshop: Workshop) -> FoundRow:
    """Both starts."""
    store = workshop.store()
    dense = workshop.new("dense.f32")
    loaded, _ = run_child(
        "benchmarks.load:warm", store=str(store), dense=str(dense), rounds=workshop.rounds(5)
    )
    dense.unlink()
    started, imported = alternate(
        workshop.rounds(3), lambda: first_step(workshop, store), _import_torch
    )
    return {
        "first_batch": Found(loaded["store"], loaded["plain"], f"on {loaded['device']}"),
        "first_step": Found(
            started, imported, "1 layer, batches of 1 window: the step is short, as it is taken off"
        ),
    }


def warm(store: str, dense: str, rounds: int) -> dict[str, object]:
    """Seconds from a store to the first batch, and of reading its series from a plain file."""
    import torch

    from flowpatch.store.sample_store import open_store
    from flowpatch.windows.in_memory import InMemory
    from flowpatch.windows.origins import origins_of

    device = "cuda" if torch.cuda.is_available() else "cpu"

    def first_batch() -> None:
        opened = open_store(store)
        windows = InMemory.of_store(opened, device=device)
        origins = origins_of(opened.splits, "train", windows.input_len, windows.output_len)
        float(windows.batch(origins[:BATCH]).x_BTN.sum())

    def plain() -> None:
        torch.from_numpy(np.fromfile(dense, dtype=np.float32)).to(device)

    open_store(store).read().tofile(dense)
    # Once each untimed: files into the page cache, modules into memory.
    first_batch()
    plain()
    loaded, read = alternate(rounds, lambda: seconds_of(first_batch), lambda: seconds_of(plain))
    return {"store": loaded, "plain": read, "device": device}


def first_step(workshop: Workshop, store: Path) -> float:
    """Seconds from the command to the end of its first optimizer step, less those of a warm step.

    Raises:
        RuntimeError: the training ended or hung before it had made its steps.
    """
    folder = workshop.new("run")
    command = flowpatch("train", store, "--run", folder, "--batch-size", 1, "--layers", 1)
    rows = folder / "metrics.jsonl"
    seen: list[float] = []
    started = time.perf_counter()
    with started_process([*command, "--log-every", "1", "--max-epoch", "1"]) as process:
        while len(seen) < LINES_SEEN and process.poll() is None:
            lines = rows.read_bytes().count(b"\n") if rows.exists() else 0
            passed = time.perf_counter() - started
            seen += [passed] * (lines - len(seen))
            if passed > PATIENCE_S:
                raise RuntimeError(f"no training step of '{store}' in {PATIENCE_S} s")
            time.sleep(0.002)
        if len(seen) < LINES_SEEN:
            said = process.communicate()[1]
            raise RuntimeError(f"the training ended before its third step:\n{said[-2000:]}")
    return seen[0] - (seen[2] - seen[1])


def _import_torch() -> float:
    return run([sys.executable, "-c", "import torch"]).seconds
