"""Loaded by worker processes that a command starts: what they would print is not for its terminal.

Their errors come back as errors of the command. Some libraries say things of their own when a
process ends, and Ctrl-C in a terminal reaches every process of a command.
"""

import os
import signal

from flowpatch.preprocessing.kept_memory import keep_freed_memory


def dask_setup(_worker: object) -> None:
    """Called by Dask in each worker before it takes work."""
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
