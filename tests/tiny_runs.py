"""Short trainings of a small model, their curves, and how one is stopped."""

import os
import signal
import threading
import time
from pathlib import Path

from flowpatch.model.settings import ModelSettings
from flowpatch.training.run_folder import RunFolder
from flowpatch.training.settings import TrainSettings

TINY = ModelSettings(layers=1, input_dims=8, node_dims=4, tod_dims=2, dow_dims=2)
SHORT = TrainSettings(max_epoch=3, batch_size=8, learning_rate=0.01, log_every=2, device="cpu")


def curve(run: Path) -> list[dict[str, object]]:
    """The rows of the log without their timings."""
    return [
        {key: value for key, value in row.items() if key != "seconds"}
        for row in RunFolder(run).rows()
    ]


def interrupt_after(run: Path, rows: int) -> threading.Thread:
    """Presses Ctrl-C once the log of a run has so many rows."""

    def watch() -> None:
        until = time.monotonic() + 60
        while len(RunFolder(run).rows()) < rows and time.monotonic() < until:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread
