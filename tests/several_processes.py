"""Commands in several processes, as torchrun and accelerate launch start them, on this machine.

torchrun(4, [...])           in a test: the arguments behind `-m`, or a script's
python several_processes.py  what each process of a drill does, see `test_processes.py`
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BATCH_SIZES = (3, 11, 64)
"""Windows of one step of an evaluation in a drill."""
LAUNCHER_SAYS = ("E1", "W1", "  ", "Traceback", "torch.distributed", "---", "===", "[")
"""How lines of torchrun's own begin."""


@dataclass(frozen=True)
class Ended:
    """How all processes together ended."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> list[str]:
        """Lines on standard error but for the launcher's own."""
        return [one for one in self.err.splitlines() if one and not one.startswith(LAUNCHER_SAYS)]


class Launched:
    """Processes under way."""

    def __init__(self, command: list[str]) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.launcher = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ranks(self) -> dict[int, int]:
        """The id of the process of each rank."""
        found = {}
        children = Path(f"/proc/{self.launcher.pid}/task/{self.launcher.pid}/children")
        for child in children.read_text().split():
            environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            ranks = [one.removeprefix(b"RANK=") for one in environment if one.startswith(b"RANK=")]
            found.update({int(rank): int(child) for rank in ranks})
        return found

    def send(self, number: signal.Signals, rank: int | None = None) -> None:
        """A signal for one rank, or for the launcher."""
        os.kill(self.launcher.pid if rank is None else self.ranks()[rank], number)

    def wait_for_rows(self, run: Path, rows: int) -> None:
        log, until = run / "metrics.jsonl", time.monotonic() + 120
        while not log.is_file() or log.read_text().count("\n") < rows:
            if self.launcher.poll() is not None or time.monotonic() > until:
                raise AssertionError(self.wait())
            time.sleep(0.005)

    def wait(self) -> Ended:
        out, err = self.launcher.communicate(timeout=180)
        return Ended(self.launcher.returncode, out, err)


def torchrun(processes: int, command: list[Any]) -> Launched:
    run = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return Launched([*run, *map(str, command)])


def accelerate(processes: int, command: list[Any]) -> Launched:
    run = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
    plain = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    # A port of its own: the default one may be taken.
    port = ["--main_process_port", "0"]
    return Launched([*run, *plain, *port, *map(str, command)])


@contextmanager
def everything_streamed() -> Iterator[list[int]]:
    """However much memory there is, series are streamed; gives the blocks as they are read."""
    from flowpatch.windows.residence import BlockPlan
    from flowpatch.windows.streaming import Streamed
    from streamed_series import stream_everything

    blocks: list[int] = []
    read = Streamed._read_block

    def counted(self: Streamed, block: int, slot: int) -> None:
        blocks.append(block)
        read(self, block, slot)

    with pytest.MonkeyPatch.context() as patched:
        stream_everything(patched, BlockPlan(block_steps=9, held_blocks=10))
        patched.setattr(Streamed, "_read_block", counted)
        yield blocks


def drill(store: Path, run: Path, found: Path) -> None:
    """Trains, scores, fails and shares memory; each process leaves what it saw in `found`."""
    from flowpatch.cli.train import fetch_once
    from flowpatch.errors import PeriodError, SettingsError
    from flowpatch.model.settings import ModelSettings
    from flowpatch.store.sample_store import open_store
    from flowpatch.training.evaluation import evaluate
    from flowpatch.training.runs import train
    from flowpatch.training.settings import TrainSettings
    from flowpatch.training.world import joined
    from flowpatch.windows.in_memory import InMemory

    model, training = json.loads((found / "settings.json").read_text())
    model_settings, train_settings = ModelSettings(**model), TrainSettings(**training)
    saw: dict[str, Any] = {}
    with joined() as world:
        rank, size = world.launch.rank, world.launch.size
        opened = open_store(store)
        trained = train(opened, run, model_settings, train_settings)
        saw["best_val_mae"] = trained.progress.best_val_mae
        saw["scores"] = [
            evaluate(run, batch_size=count, device="cpu").to_json() for count in BATCH_SIZES
        ]
        try:
            train(opened, run / "x", model_settings, train_settings.replace(batch_size=size - 1))
        except SettingsError as error:
            saw["too small a batch"] = str(error)
        try:
            with world.together():
                if rank == size - 1:
                    raise PeriodError("met by the last one")
        except PeriodError as error:
            saw["met by one"] = str(error)
        with everything_streamed() as blocks:
            train(opened, found / "streamed", model_settings, train_settings)
            saw["blocks read"] = len(blocks)
        fetched: list[int] = []
        one = fetch_once(world, lambda: (fetched.append(rank), open_store(store))[1])
        saw["fetched"] = (fetched, one.version == opened.version)
        windows = InMemory.of_store(opened, missing="last", machine=world)
        alone = InMemory.of_store(opened, missing="last")
        # Every process asks for other windows first, so that each prepares some for the others.
        origins = np.roll(np.arange(8, opened.axis.length - 4), 50 * rank)
        saw["same input"] = all(
            bool((windows.batch(part).x_BTN == alone.batch(part).x_BTN).all())
            for part in np.array_split(origins, 10)
        )
        world.gather(None)
        if rank == 0:
            windows.values_TN[0, 0] = 1234.5
        world.gather(None)
        saw["written by the first"] = float(windows.values_TN[0, 0])
        saw["memory"] = Path("/proc/self/maps").read_text().count("/memfd:flowpatch (deleted)")
    (found / f"{rank}.json").write_text(json.dumps(saw))


if __name__ == "__main__":
    drill(*map(Path, sys.argv[1:]))
