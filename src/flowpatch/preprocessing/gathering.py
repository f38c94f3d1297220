"""One stretch's records into its cells, by as many threads as the source allows."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from threading import Lock

from flowpatch.series.dense import Scatter
from flowpatch.sources.contract import CellBlock, RecordBlock, RecordPart

MOST_THREADS = 8
"""Each holds records of its own, and one core writes what they gather."""


def gather(
    found: Iterator[RecordBlock | RecordPart | CellBlock],
    scatter: Scatter,
    after_block: Callable[[int], None],
    most_threads: int | None = None,
) -> None:
    """Places all that is found; `after_block` gets the number of records just placed.

    There are `most_threads` at most, by default one for each core. Whatever a thread or
    `after_block` raises ends the gathering.
    """
    first = next(found, None)
    found = chain(() if first is None else (first,), found)
    cores = most_threads or os.cpu_count() or 1
    threads = min(MOST_THREADS, cores) if isinstance(first, RecordPart) else 1
    scatter.share(threads)
    taking = Lock()

    def take() -> RecordBlock | RecordPart | CellBlock | None:
        with taking:
            return next(found, None)

    def work(thread: int) -> None:
        while (taken := take()) is not None:
            for block in taken.read() if isinstance(taken, RecordPart) else (taken,):
                after_block(scatter.add(block, thread))

    if threads == 1:
        work(0)
        return
    with ThreadPoolExecutor(threads, "gathering") as workers:
        for done in [workers.submit(work, thread) for thread in range(threads)]:
            done.result()
