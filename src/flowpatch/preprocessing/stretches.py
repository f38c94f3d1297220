"""Days of a series out of the records, stretch by stretch, into a version that is being written.

Peak memory is bounded by the stretch of days that is gathered at a time, not by the period.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from flowpatch.errors import RecordError, StoppedByUser
from flowpatch.interruption import Interruption, StopAskedError
from flowpatch.preprocessing.gathering import gather
from flowpatch.preprocessing.settings import BuildSettings
from flowpatch.progress import track
from flowpatch.series.dense import CELL_BYTES, DayCounts, RecordCounts, Scatter, list_causes
from flowpatch.series.quality import Quality
from flowpatch.sources.contract import MANY_RECORDS, NodeIndex, RecordReader, Survey
from flowpatch.store.writer import StoreWriter
from flowpatch.time_axis import TimeAxis

GATHER_BYTES = 2**30
"""Memory for the days that are gathered in one pass over the records."""


@dataclass(frozen=True)
class Run:
    """Days first .. stop, written one after another; those before 0 are dropped from the axis."""

    first: int
    stop: int


@dataclass(frozen=True)
class Part:
    """Days first .. stop that are gathered together, or are only looked at: they are there."""

    first: int
    stop: int
    is_there: bool


@dataclass(frozen=True)
class Gathering:
    """Where the values of days come from: a source, or None where no records are left for them.

    `records` says about how many records will be read. Days that are `carried` are in the version
    already and only looked at. Progress is shown under the name of the `command`.
    """

    settings: BuildSettings
    source: RecordReader | None
    nodes: NodeIndex
    records: int
    carried: frozenset[int] = frozenset()
    command: str = "preprocess"


def write_days(
    gathering: Gathering, writer: StoreWriter, runs: Sequence[Run], interruption: Interruption
) -> None:
    """Gathers the records of some days and writes them; safe days are taken over.

    Every stretch but the last is made safe as soon as it is written.
    """
    axis, a_day = writer.axis, writer.axis.steps_a_day
    longest = max((run.stop - run.first for run in runs), default=0)
    days = min(longest, stretch_days(gathering, writer))
    scatter = new_scatter(gathering, axis, days, len(writer.nodes))

    def is_there(day: int) -> bool:
        return day in gathering.carried or writer.is_safe(day * a_day, (day + 1) * a_day)

    with track(gathering.command, total=gathering.records, unit="records") as task:

        def after_block(records: int) -> None:
            task.advance(records)
            interruption.raise_if_asked()

        for run in runs:
            with writer.stretch(run.first * a_day, run.stop * a_day), _Behind() as behind:
                for part in plan_parts(run, days, is_there):
                    first, stop = part.first * a_day, part.stop * a_day
                    if part.is_there:
                        behind.do(partial(writer.take_over, first, stop))
                        continue
                    gather_stretch(gathering, axis, scatter, first, stop, after_block)
                    # Only one stretch's values are held: those before are written by now.
                    behind.wait()
                    values, counts = scatter.finish(stop - first)
                    keep = run != runs[-1] or part.stop < run.stop
                    behind.do(partial(_write, writer, first, values, counts, keep, interruption))
                    del values


def new_scatter(gathering: Gathering, axis: TimeAxis, days: int, nodes: int) -> Scatter:
    """Where the records of stretches of up to so many days are gathered, one after another."""
    return Scatter(
        days * axis.steps_a_day,
        nodes,
        gathering.settings.aggregate,
        gathering.settings.null_value,
        day_steps=axis.steps_a_day,
        many=gathering.records >= MANY_RECORDS,
    )


def gather_stretch(
    gathering: Gathering,
    axis: TimeAxis,
    scatter: Scatter,
    first: int,
    stop: int,
    after_block: Callable[[int], None],
    threads: int | None = None,
) -> None:
    """Places the records of steps first .. stop.

    `after_block` gets the number of records just placed; `threads` gather at most.
    """
    if gathering.source is not None:
        in_order = gathering.settings.aggregate == "last"
        found = gathering.source.read_blocks(gathering.nodes, axis, first, stop, in_order=in_order)
        gather(found, scatter, after_block, threads)


def _write(
    writer: StoreWriter,
    first: int,
    values: NDArray[np.float32],
    counts: DayCounts,
    keep: bool,
    interruption: Interruption,
) -> None:
    a_day = writer.axis.steps_a_day
    for begin in range(0, len(values), writer.block_steps):
        interruption.raise_if_asked()
        block = values[begin : begin + writer.block_steps]
        days = slice(begin // a_day, (begin + len(block)) // a_day)
        writer.write(first + begin, block, counts[days])
    if keep:
        writer.keep()


class _Behind:
    """Work done behind the back of whoever reads on: one piece at a time, in order."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, "writing")
        self._under_way: Future[None] | None = None

    def do(self, work: Callable[[], None]) -> None:
        """Begins the work once all before it is done; raises what that raised."""
        self.wait()
        self._under_way = self._worker.submit(work)

    def wait(self) -> None:
        """Returns once the work is done; raises what it raised."""
        if self._under_way is not None:
            self._under_way.result()

    def __enter__(self) -> "_Behind":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._worker:
            if error is None:
                self.wait()


def stretch_days(gathering: Gathering, writer: StoreWriter) -> int:
    """Days of as many whole blocks as fit the memory for gathering."""
    cell_bytes = CELL_BYTES[gathering.settings.aggregate]
    block_bytes = writer.block_steps * len(writer.nodes) * cell_bytes
    blocks = max(1, GATHER_BYTES // block_bytes)
    return blocks * writer.block_steps // writer.axis.steps_a_day


def plan_parts(run: Run, days: int, is_there: Callable[[int], bool]) -> Iterator[Part]:
    """The run in parts of so many days at most, all of them there already or none."""
    first = max(0, run.first)
    while first < run.stop:
        there, stop = is_there(first), first + 1
        while stop < min(run.stop, first + days) and is_there(stop) == there:
            stop += 1
        yield Part(first, stop, there)
        first = stop


@contextmanager
def stopping(writer: StoreWriter) -> Iterator[None]:
    """A signal noted inside this block ends the command, which says how to go on.

    Raises:
        StoppedByUser: a signal came.
    """
    try:
        yield
    except StopAskedError:
        kept = writer.safe_days
        raise StoppedByUser(
            f"Stopped; {kept} days are kept. Go on with them: the same command with --resume."
            if kept
            else "Stopped; nothing was written. Run the command again."
        ) from None


def account(counts: RecordCounts, survey: Survey) -> RecordCounts:
    """The counts of all records that were surveyed, those included that no day holds."""
    return counts + RecordCounts(
        read=survey.records - counts.read,
        without_time=survey.without_time,
        out_of_period=survey.records - survey.without_time - counts.read,
    )


def check_observed(quality: Quality, counts: RecordCounts) -> None:
    """Makes sure that there is any value.

    Raises:
        RecordError: there is none.
    """
    if not quality.observed:
        raise RecordError(
            f"Every value is missing: none of the {counts.read:,} records fills a cell "
            f"({not_used(counts)}). Check --value-column, --node-columns and --null-value."
        )


def not_used(counts: RecordCounts) -> str:
    """The records that fill no cell, by cause, for a message."""
    chosen = {"out_of_period": counts.out_of_period, "null_value": counts.null_value}
    return list_causes({**counts.dropped, **chosen})
