"""StoreWriter: days in, one commit, and nothing for readers to see before it.

    writer.stretch(first, stop)    steps that are written now, in order of time
    writer.write(step, values)     whole days of them
    writer.keep()                  what is written survives this process, for one that resumes
    writer.commit(...)             the new version, at once

A version is built from nothing, or on a base: the version before it, of which some days are written
anew (`base.py`). How arrays are made is in `array_writer.py`, what a draft remembers in `draft.py`,
how values come to another axis or other nodes in `carrying.py`.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version as installed_version
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from flowpatch.errors import (
    ClusterUnreachableError,
    ColumnError,
    NodeTableError,
    PeriodError,
    RecordError,
    SettingsError,
    StoreDamagedError,
    StoreDraftError,
    StoreExistsError,
    StoreLockedError,
    StoreWriteError,
)
from flowpatch.places.place import Place, place_of
from flowpatch.series.dense import DayCounts, RecordCounts
from flowpatch.series.nodes import NodeTable
from flowpatch.series.quality import Quality, QualityScan
from flowpatch.series.splits import Splits
from flowpatch.store import draft as drafts
from flowpatch.store.array_writer import ArrayWriter
from flowpatch.store.arrays import (
    ATTRIBUTE,
    LEDGER_DIMENSIONS,
    block_days,
)
from flowpatch.store.base import Base
from flowpatch.store.blocks import BlockWriter, Fork
from flowpatch.store.carrying import move_steps, spread
from flowpatch.store.chunks import write_steps
from flowpatch.store.draft import Draft, Origin
from flowpatch.store.facts import BlockFacts
from flowpatch.store.ledger import Ledger
from flowpatch.store.manifest import Manifest, hash_content
from flowpatch.store.repository import (
    has_version,
    is_unfinished,
    open_or_create_repository,
    reading,
    writing,
)
from flowpatch.store.sample_store import SampleStore, open_store
from flowpatch.time_axis import TimeAxis


class StoreWriter:
    """Writes one new version of a store, as a context manager.

    Left by an error it leaves no new version. What `keep` has made safe then stays beside the
    versions, for a writer of the same origin that resumes, unless the error is one that would come
    again; with nothing kept, no folder is left where there was none.

    Args:
        place: where the store is, or will be.
        axis: the steps of the series.
        nodes: its nodes.
        origin: what the version is made from.
        overwrite: a store that is there gets a new version, built from nothing.
        base: the current version of the store, whose days serve where none are written.
        resume: go on with what a writer of the same origin left, if one did.

    Raises:
        StoreExistsError: a store, or something else, is at the place, and nobody spoke of it.
        StoreLockedError: another process is writing it, or has written it since `base` was opened.
        StoreDraftError: what is to be resumed is of another origin.
        StoreWriteError: a write was refused.
    """

    def __init__(
        self,
        place: str | Path | Place,
        axis: TimeAxis,
        nodes: NodeTable,
        origin: Origin,
        *,
        overwrite: bool = False,
        base: SampleStore | None = None,
        resume: bool = False,
    ) -> None:
        self.place, self.axis, self.nodes = place_of(place), axis, nodes
        self._origin, self._overwrite, self._resume = origin, overwrite, resume
        self._base = None if base is None else Base.of(base, axis, nodes)
        self._safe = Draft(origin, {}, {})
        self._written = dict[int, str]()

    @property
    def block_steps(self) -> int:
        """Blocks that begin at multiples of this many steps fill whole chunks."""
        return block_days(self.axis, len(self.nodes)) * self.axis.steps_a_day

    def __enter__(self) -> "StoreWriter":
        with writing(self.place):
            self.place.prepare()
        with ExitStack() as stack:
            self._lock = stack.enter_context(self.place.writer_lock())
            if self._base is None:
                check_free(self.place, overwrite=self._overwrite)
            self._is_first = not has_version(self.place)
            goes_on = self._resume and self.place.holds_store()
            if self._is_first and not goes_on and self.place.exists(StoreWriteError):
                # Empty, or what a build left that was stopped: start from nothing.
                with writing(self.place):
                    self.place.remove()
            self._is_begun = not self.place.exists(StoreWriteError)
            stack.push(self._leave_draft)
            self._repository = open_or_create_repository(self.place, self._lock)
            self._open()
            self._leave = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave.__exit__(kind, error, traceback)

    def _leave_draft(
        self, _kind: Any, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Removes what nobody can go on with."""
        if not self._is_begun or (self._safe.day_hashes and not _would_come_again(error)):
            return
        if isinstance(error, ClusterUnreachableError):
            # Workers that are out of reach may be writing still: what they leave would be nobody's.
            return
        # What went wrong is told already; this may fail for the same reason.
        with suppress(Exception):
            # Whoever has taken the lock over has made this place its own.
            self._lock.check()
            if self._is_first:
                self.place.remove()
            else:
                self._repository.drop_draft()

    @property
    def safe_days(self) -> int:
        """How many days would survive this process."""
        return len(self._safe.day_hashes)

    @property
    def looks_at_all(self) -> bool:
        """Whether every day must be looked at: nothing is known, or the nodes are others."""
        return self._base is None or self._base.ledger is None

    @property
    def is_as_base(self) -> bool:
        """Whether what was written holds just what the base does."""
        base = self._base
        return (
            base is not None
            and self.axis == base.store.axis
            and not base.has_other_nodes
            and tuple(self._ledger.day_hashes) == base.store.manifest.day_hashes
            and base.ledger is not None
        )

    def is_safe(self, first_step: int, stop_step: int) -> bool:
        """Whether all days of these steps were written before: `take_over` takes them."""
        days = range(*self._days(first_step, stop_step))
        return all(day in self._safe.day_hashes for day in days)

    @contextmanager
    def stretch(self, first_step: int, stop_step: int) -> Iterator[None]:
        """All days of these steps are written inside this block, in order of time.

        On a base, one stretch may follow another where a day between them is left as it is.
        """
        base = self._base
        if base is None or base.ledger is None:
            self._scan.begin(first_step, np.empty((0, len(self.nodes)), dtype=np.float32))
            yield
            return
        reach = self._scan.reach_steps
        self._scan.begin(first_step, base.read(first_step - reach, first_step))
        for begin in range(first_step, stop_step, self.block_steps):
            end = min(stop_step, begin + self.block_steps)
            self._scan.forget(base.known_from(begin), base.read(begin, end))
        behind_step = base.known_from(stop_step)
        behind = base.read(stop_step, stop_step + reach)
        self._scan.forget_behind(behind_step, behind)
        self._scan.begin(first_step, base.read(max(0, first_step - reach), first_step))
        yield
        self._scan.add_behind(behind_step, behind)

    def write(
        self, first_step: int, values: NDArray[np.float32], counts: DayCounts | None = None
    ) -> None:
        """Writes the (S, N) values of whole days from `first_step` on.

        `counts` are the records of each of those days, by default one for each value.
        """
        self._check(first_step, values)
        if self._base is None:
            self._join_written(self._blocks.write(first_step, values, counts))
            return
        facts = BlockFacts.of(self.axis, first_step, values, counts)
        with writing(self.place):
            for begin, end in self._changed(facts):
                write_steps(self._value, begin, values[begin - first_step : end - first_step])
        self._join_written(facts)

    def fork(self) -> Fork:
        """What another process writes some days through; one serves many that get it pickled.

        What was written until now is made safe.
        """
        if self._session.has_uncommitted_changes:
            self.keep()
        return Fork(self._session.fork(), self.axis, self.place.absolute_address)

    def merge(self, fork: Fork, blocks: Iterable[BlockFacts]) -> None:
        """Takes blocks that were written through a fork, in any order of blocks and of forks."""
        with writing(self.place):
            self._session.merge(fork.session)
        for facts in blocks:
            self._join_written(facts)

    def take_over(self, first_step: int, stop_step: int) -> None:
        """Looks at days as they lie in the version already: safe ones, or those of the base.

        Raises:
            StoreDraftError: days that are safe are not what was written.
        """
        self.join_safe(self._blocks.look(first_step, stop_step))

    def join_safe(self, facts: BlockFacts) -> None:
        """Takes days as they lie in the version already; their records are known.

        Raises:
            StoreDraftError: days that are safe are not what was written.
        """
        for day, found in zip(facts.days, facts.day_hashes, strict=True):
            if self._safe.day_hashes.get(day, found) != found:
                raise StoreDraftError(
                    f"What a stopped build left in '{self.place}' is damaged: day {day + 1} is not "
                    "what was written. Run the command without --resume."
                )
        known = [self._safe.day_counts.get(day, self._ledger.day_counts[day]) for day in facts.days]
        self._join(replace(facts, day_counts=np.array(known)))

    def keep(self) -> None:
        """Makes all days that were written safe: they outlive this process."""
        for day, known in self._written.items():
            self._safe.day_hashes[day] = known
            self._safe.day_counts[day] = self._ledger.day_counts[day].tolist()
        self._written.clear()
        with writing(self.place):
            self._arrays.group.attrs[drafts.ATTRIBUTE] = self._safe.to_json()
            self._session.commit(
                f"{len(self._safe.day_hashes)} days are safe", metadata={"draft": True}
            )
            self._open_session()

    def quality(self) -> Quality:
        """What is odd about the series, all its days together."""
        return self._scan.quality()

    def counts(self) -> RecordCounts:
        """Where the records of all days went."""
        return self._ledger.counts()

    def commit(
        self,
        *,
        input_len: int,
        output_len: int,
        counts: RecordCounts,
        nodes_without_coordinates: int,
        splits: Splits,
        source: dict[str, Any] | None = None,
    ) -> SampleStore:
        """Makes everything written the current version, at once, and opens it.

        `source` is kept in place of the origin's, where more is known of it now.
        """
        ledger = self._ledger
        if "" in ledger.day_hashes:
            raise ValueError(f"day {ledger.day_hashes.index('')} was not written")
        statistics = ledger.moments.statistics(*splits.bounds("train"))
        parent = self._origin.base or self._current_version()
        manifest = Manifest(
            code_version=installed_version("flowpatch"),
            parent=parent,
            recipe=self._origin.recipe,
            source=source or self._origin.source,
            axis=self.axis,
            key_columns=self.nodes.key_columns,
            nodes=len(self.nodes),
            input_len=input_len,
            output_len=output_len,
            counts=counts,
            nodes_without_coordinates=nodes_without_coordinates,
            quality=self.quality(),
            splits=splits,
            statistics=statistics,
            day_hashes=tuple(ledger.day_hashes),
            content_hash=hash_content(self.axis, self.nodes, splits, statistics, ledger.day_hashes),
        )
        with writing(self.place):
            for name, values in ledger.to_arrays().items():
                self._arrays.put(name, LEDGER_DIMENSIONS[name], values)
            self._arrays.group.attrs[ATTRIBUTE] = manifest.to_json()
            if drafts.ATTRIBUTE in self._arrays.group.attrs:
                del self._arrays.group.attrs[drafts.ATTRIBUTE]
            period = f"{self.axis.start} to {self.axis.stop}"
            metadata = {"content_hash": manifest.content_hash, "parent": parent}
            version = self._session.commit(f"{len(self.nodes)} nodes, {period}", metadata=metadata)
            # Icechunk does not wait for the disk: a reference must not outlive what it names.
            self.place.settle()
        self._repository.publish_draft(version)
        self._is_begun = False
        return open_store(self.place, version)

    def _current_version(self) -> str | None:
        current = self._repository.current()
        return None if current is None else current.version

    def _open(self) -> None:
        """Begins, or goes on."""
        base = self._base
        if base is not None and self._current_version() != base.store.version:
            raise StoreLockedError(
                f"'{self.place}' was written by another process a moment ago. Run the command "
                "again: it starts from what is there now."
            )
        known = None if base is None else base.ledger
        self._ledger = known or Ledger.empty(self.axis, len(self.nodes))
        if base is not None:
            self._ledger.day_counts[:] = base.day_counts
        self._scan = QualityScan(self.axis, len(self.nodes), self._ledger.findings)
        found = self._left_behind() if self._resume else None
        self._is_begun = True
        if found is None:
            with writing(self.place):
                self._begin(base)
        else:
            self._safe = found
            with writing(self.place):
                self._open_session()

    def _begin(self, base: "Base | None") -> None:
        """A draft from nothing, or from what the base holds."""
        self._repository.begin_draft()
        self._session = self._repository.draft_session()
        if base is None:
            group = zarr.create_group(self._session.store, overwrite=True)
            self._arrays = ArrayWriter(group, self.axis, self.nodes)
            self._value = self._arrays.create_value()
        else:
            self._arrays = self._opened_arrays()
            self._value = self._carry(base)
        if base is None or base.has_other_nodes:
            self._arrays.put_nodes()
        self._arrays.put_time()

    def _left_behind(self) -> Draft | None:
        """The draft that another writer of the same origin left, if it left any day."""
        snapshot = self._repository.draft()
        if snapshot is None:
            return None
        with reading(self.place):
            group = zarr.open_group(self._repository.session(snapshot).store, mode="r")
            content = group.attrs.get(drafts.ATTRIBUTE)
        if content is None:
            return None
        draft = Draft.from_json(content, str(self.place))
        if different := draft.origin.differences(self._origin):
            raise StoreDraftError(
                f"What a stopped build left in '{self.place}' is of another origin: "
                f"{', '.join(different)} differ. Give the same settings, or run the command "
                "without --resume to begin anew."
            )
        return draft

    def _open_session(self) -> None:
        self._session = self._repository.draft_session()
        self._arrays = self._opened_arrays()
        self._value = self._arrays.opened_value()

    def _opened_arrays(self) -> ArrayWriter:
        group = zarr.open_group(self._session.store, mode="a")
        return ArrayWriter(group, self.axis, self.nodes)

    def _carry(self, base: "Base") -> Any:
        """The array of values, with those of the base where they belong now."""
        value = self._arrays.opened_value()
        try:
            if base.columns is None and move_steps(value, base.steps, self.axis.length):
                return value
        except ValueError as error:
            raise StoreDamagedError(f"'{self.place}' is damaged: {error}.") from error
        columns = np.arange(len(self.nodes)) if base.columns is None else base.columns
        value = self._arrays.create_value(overwrite=True)
        first, stop = base.steps, base.steps + base.store.axis.length
        spread(base.read, value, max(0, first), stop, columns, self.block_steps)
        return value

    def _check(self, first_step: int, values: NDArray[np.float32]) -> None:
        """Raises ValueError for values that may not be written."""
        stop_step, a_day = first_step + len(values), self.axis.steps_a_day
        inside = 0 <= first_step < stop_step <= self.axis.length
        if first_step % a_day or stop_step % a_day or not inside:
            raise ValueError(f"steps {first_step} to {stop_step} are no whole days of the axis")
        if values.shape[1] != len(self.nodes):
            raise ValueError(f"{values.shape[1]} columns are not the {len(self.nodes)} nodes")

    def _days(self, first_step: int, stop_step: int) -> tuple[int, int]:
        return first_step // self.axis.steps_a_day, stop_step // self.axis.steps_a_day

    @property
    def _blocks(self) -> BlockWriter:
        return BlockWriter(self._value, self.axis, self.place)

    def _join_written(self, facts: BlockFacts) -> None:
        self._written.update(zip(facts.days, facts.day_hashes, strict=True))
        self._join(facts)

    def _join(self, facts: BlockFacts) -> None:
        self._scan.add(facts.found)
        self._ledger.add(facts)

    def _changed(self, facts: BlockFacts) -> Iterator[tuple[int, int]]:
        """First and stop step of each run of days that are not in the store as they are."""
        a_day, known = self.axis.steps_a_day, self._ledger.day_hashes
        changed = [
            day
            for day, found in zip(facts.days, facts.day_hashes, strict=True)
            if known[day] != found
        ]
        for run in np.split(changed, np.flatnonzero(np.diff(changed) > 1) + 1):
            if len(run):
                yield int(run[0]) * a_day, int(run[-1] + 1) * a_day


def _would_come_again(error: BaseException | None) -> bool:
    """Whether going on would end the same way: it is the data or a setting that is wrong."""
    wrong = (SettingsError, RecordError, NodeTableError, ColumnError, PeriodError, StoreDraftError)
    return error is None or isinstance(error, wrong)


def publish_finished(place: Place) -> None:
    """A version whose writer died between its commit and what makes it the current one is made so.

    Raises:
        StoreLockedError: another process is writing it.
    """
    if not place.holds_store():
        return
    with place.writer_lock() as lock:
        repository = open_or_create_repository(place, lock)
        finished = repository.finished_draft()
        if finished is not None:
            repository.publish_draft(finished.version)


def check_free(place: str | Path | Place, *, overwrite: bool) -> None:
    """Makes sure that a store may be written at a place, before any work is done for it.

    Raises:
        StoreExistsError: a store, or something that is no store, is there.
    """
    place = place_of(place)
    if not place.exists(StoreWriteError):
        return
    if has_version(place):
        if not overwrite:
            raise StoreExistsError(
                f"A sample store is already at '{place}'. Give another --store, or --overwrite to "
                "write a new version of it, or bring it up to date: flowpatch update."
            )
    elif not is_unfinished(place):
        raise StoreExistsError(
            f"'{place}' exists and is no sample store. Give another --store; nothing was touched."
        )
