"""What a worker of a cluster does: some days gathered, written through a fork, and looked at.

This runs in processes of their own, on machines that may be others; it knows nothing of how it got
there (`cluster.py`). One block of days is worked on in a process at a time, whatever its threads,
so that a worker takes the memory of one.
"""

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Lock, Timer

from flowpatch.errors import FlowpatchError, UnfitWorkerError
from flowpatch.interruption import StopAskedError
from flowpatch.preprocessing.stretches import Gathering, Part, gather_stretch, new_scatter
from flowpatch.series.dense import Scatter
from flowpatch.sources.file_records import FileRecords
from flowpatch.store.blocks import BlockWriter, Fork
from flowpatch.store.facts import BlockFacts
from flowpatch.time_axis import TimeAxis

SAME_VERSIONS = ("flowpatch", "icechunk")
"""Packages of which driver and workers must have the same version: of what they hand over."""
HOW_TO_FIT = (
    "Every worker needs the flowpatch and the icechunk of this command (pip install "
    "'flowpatch[dask]'), and must see the records and the store under the same paths."
)
IDLE_S = 60.0
"""After so long without work a worker gives back memory and files, should nobody tell it to."""


@dataclass(frozen=True)
class Needs:
    """What a worker must have, and see: versions, files with their sizes, and other paths."""

    versions: Mapping[str, str | None]
    files: tuple[tuple[str, int], ...]
    paths: tuple[str, ...]

    def lacking(self) -> str | None:
        """What is wrong with this process; None where nothing is."""
        for package, wanted in self.versions.items():
            if (found := installed_version(package)) != wanted:
                return f"has {package} {found or 'not at all'}, and this command {wanted}"
        for path, size in self.files:
            try:
                if (found_size := Path(path).stat().st_size) != size:
                    return f"sees '{path}' with {found_size:,} bytes, which has {size:,} here"
            except OSError as error:
                return f"cannot see the records '{path}' ({error.strerror})"
        for path in self.paths:
            if not Path(path).exists():
                return f"cannot see the folder '{Path(path).parent}' of this machine"
        return None


def installed_version(package: str) -> str | None:
    """Its version; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@dataclass(frozen=True)
class BlockWork:
    """What is the same for all parts of a build, of which `build` is an id.

    `days` are the most that one part has. `fork` is a pickled one: each part is written through a
    copy of its own.
    """

    build: str
    needs: Needs
    gathering: Gathering
    records: FileRecords
    axis: TimeAxis
    nodes: int
    days: int
    block_steps: int
    fork: bytes


@dataclass(frozen=True)
class Done:
    """A part that was written or looked at: the fork with its chunks, and what is known of it."""

    part: Part
    fork: Fork
    blocks: tuple[BlockFacts, ...]

    @property
    def records(self) -> int:
        """How many were read for it."""
        if self.part.is_there:
            return 0
        return sum(int(facts.day_counts[:, 0].sum()) for facts in self.blocks)


def cannot_open(fork: bytes) -> str | None:
    """Why this process cannot write through a pickled fork; None where it can."""
    try:
        pickle.loads(fork).opened()  # noqa: S301 - it comes from the command.
    except FlowpatchError as error:
        return f"cannot open the store: {error}"
    return None


def do_part(pickled_work: bytes, part: Part, threads: int) -> Done:
    """Writes the days of a part, or looks at them where they are there.

    Args:
        pickled_work: a `BlockWork`, which is unpickled once.
        part: which days.
        threads: how many gather.

    Raises:
        SourceError, StoreError: the records cannot be read, or the values not be written.
        StopAskedError: the build was stopped.
    """
    with _bench.at_work(pickled_work, threads) as opened:
        work = opened.work
        fork: Fork = pickle.loads(work.fork)  # noqa: S301 - it comes from the same command.
        writer = fork.opened()
        if part.is_there:
            return Done(part, fork, tuple(writer.look(*steps) for steps in _blocks(work, part)))
        return Done(part, fork, tuple(_write(opened, writer, part, threads)))


def _write(
    opened: "_Opened", writer: BlockWriter, part: Part, threads: int
) -> Iterator[BlockFacts]:
    work, a_day = opened.work, opened.work.axis.steps_a_day
    begin = part.first * a_day
    gather_stretch(
        work.gathering,
        work.axis,
        opened.scatter,
        begin,
        part.stop * a_day,
        lambda _: _bench.raise_if_stopped(work.build),
        threads,
    )
    values, counts = opened.scatter.finish(part.stop * a_day - begin)
    for first, stop in _blocks(work, part):
        _bench.raise_if_stopped(work.build)
        days = slice(first // a_day - part.first, stop // a_day - part.first)
        yield writer.write(first, values[first - begin : stop - begin], counts[days])


def _blocks(work: BlockWork, part: Part) -> Iterator[tuple[int, int]]:
    a_day = work.axis.steps_a_day
    for first in range(part.first * a_day, part.stop * a_day, work.block_steps):
        yield first, min(first + work.block_steps, part.stop * a_day)


@dataclass(frozen=True)
class _Opened:
    """A work that a process has begun: its files are open, its memory was touched."""

    pickled: bytes
    work: BlockWork
    scatter: Scatter

    @classmethod
    def of(cls, pickled: bytes, threads: int) -> "_Opened":
        work: BlockWork = pickle.loads(pickled)  # noqa: S301 - it comes from the command.
        if lacking := work.needs.lacking():
            raise UnfitWorkerError(f"A worker {lacking}. {HOW_TO_FIT}")
        work.records.use_threads(threads)
        scatter = new_scatter(work.gathering, work.axis, work.days, work.nodes)
        return cls(pickled, work, scatter)


class _Bench:
    """What a process keeps from one part of a build to the next."""

    def __init__(self) -> None:
        self._working = Lock()
        self._opened: _Opened | None = None
        self._clearing: Timer | None = None
        self._stopped = set[str]()

    def stop(self, build: str) -> None:
        """Parts of this build end soon, and nothing is written any more."""
        self._stopped.add(build)

    def raise_if_stopped(self, build: str) -> None:
        """Raises StopAskedError once a build was stopped."""
        if build in self._stopped:
            raise StopAskedError

    @contextmanager
    def at_work(self, pickled: bytes, threads: int) -> Iterator[_Opened]:
        """The work, opened; for one thread at a time."""
        with self._working:
            if self._clearing is not None:
                self._clearing.cancel()
            try:
                if self._opened is None or self._opened.pickled != pickled:
                    self._clear()
                    self._opened = _Opened.of(pickled, threads)
                yield self._opened
            except BaseException:
                # What was gathered by half must not be found by the next.
                self._clear()
                raise
            self._clearing = Timer(IDLE_S, self.clear)
            self._clearing.daemon = True
            self._clearing.start()

    def clear(self) -> None:
        """Gives back everything, unless it is in use."""
        if self._working.acquire(blocking=False):
            try:
                self._clear()
            finally:
                self._working.release()

    def _clear(self) -> None:
        if self._opened is not None:
            self._opened.work.records.close()
        self._opened = None


_bench = _Bench()


def stop_build(build: str) -> None:
    """Ends what this process does for a build: whoever stops it may be about to tidy up."""
    _bench.stop(build)


def clear_bench() -> None:
    """A build is over: gives back what it took here."""
    _bench.clear()
