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
) -> None:
    """Places all that is found; `after_block` gets the number of records just placed.

    Whatever a thread or `after_block` raises ends the gathering.
    """
    first = next(found, None)
    if first is None:
        return
    found = chain([first], found)
    if isinstance(first, RecordPart):
        _gather_parts(found, scatter, after_block)
        return
    for block in found:
        after_block(scatter.add(_block(block)))


def _gather_parts(
    found: Iterator[RecordBlock | RecordPart | CellBlock],
    scatter: Scatter,
    after_block: Callable[[int], None],
) -> None:
    threads = min(MOST_THREADS, os.cpu_count() or 1)
    scatter.share(threads)
    taking = Lock()

    def take() -> RecordPart | None:
        with taking:
            part = next(found, None)
        if part is not None and not isinstance(part, RecordPart):
            raise TypeError("a source gives parts, or blocks, but not both in one stretch")
        return part

    def work(thread: int) -> None:
        while (part := take()) is not None:
            for block in part.read():
                after_block(scatter.add(block, thread))

    with ThreadPoolExecutor(threads, "gathering") as workers:
        for done in [workers.submit(work, thread) for thread in range(threads)]:
            done.result()


def _block(found: RecordBlock | RecordPart | CellBlock) -> RecordBlock | CellBlock:
    if isinstance(found, RecordPart):
        raise TypeError("a source gives parts, or blocks, but not both in one stretch")
    return found
