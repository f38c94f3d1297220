"""Days of a series out of the records, spread over the workers of a cluster.

    driver    plans parts of whole blocks         worker    gathers the days of a part
              forks the version                             writes them through the fork
              merges forks, joins facts           <-        looks at them: `BlockFacts`
              makes them safe

One process, which holds the writer's lock, plans and joins; all values stay with the workers. What
comes out is what `stretches.write_days` writes, whatever the order in which parts are done.
"""

import pickle
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from uuid import uuid4

from flowpatch.errors import ClusterError, StoreWriteError
from flowpatch.interruption import Interruption
from flowpatch.places.place import Place
from flowpatch.preprocessing.block_work import (
    SAME_VERSIONS,
    BlockWork,
    Done,
    Needs,
    cannot_open,
    do_part,
    installed_version,
    stop_build,
)
from flowpatch.preprocessing.cluster import Cluster, open_cluster
from flowpatch.preprocessing.settings import PreprocessSettings
from flowpatch.preprocessing.sources import folder_around
from flowpatch.preprocessing.stretches import Gathering, Part, Run, plan_parts, stretch_days
from flowpatch.progress import track
from flowpatch.sources.files import FilesSource
from flowpatch.store.writer import StoreWriter

PARTS_A_WORKER = 4
"""At least: the end waits for one part, and no more of them than there are workers is lost."""


@dataclass(frozen=True)
class Workers:
    """A cluster that was found fit to build from a source, and what each of its workers needs."""

    cluster: Cluster
    source: FilesSource
    needs: Needs

    def write_days(
        self, gathering: Gathering, writer: StoreWriter, interruption: Interruption
    ) -> None:
        """Has all days written that are not safe, and looks at those that are.

        Each part is made safe as soon as it is done, but for the last one.

        Raises:
            ClusterError: the workers could not do it, or went away.
            FlowpatchError: whatever one of them met, as a build in one process would.
        """
        parts, build = self._plan(gathering, writer), uuid4().hex
        longest = max(part.stop - part.first for part in parts)
        work = self._work(gathering, writer, longest, build)
        results = self.cluster.work_off(
            partial(do_part, work),
            parts,
            between=interruption.raise_if_asked,
            stop=partial(stop_build, build),
        )
        with (
            track(gathering.command, total=gathering.records, unit="records") as task,
            writer.stretch(0, writer.axis.length),
            _telling_how_to_go_on(writer),
            closing(results),
        ):
            for left, done in zip(reversed(range(len(parts))), results, strict=True):
                _join(writer, done)
                task.advance(done.records)
                if left and not done.part.is_there:
                    writer.keep()

    def _plan(self, gathering: Gathering, writer: StoreWriter) -> list[Part]:
        """Parts of whole blocks, so that no two workers write one chunk."""
        days, a_day = writer.axis.days, writer.axis.steps_a_day
        block_days = writer.block_steps // a_day

        def is_there(day: int) -> bool:
            first = day - day % block_days
            return writer.is_safe(first * a_day, min(days, first + block_days) * a_day)

        share = -(-days // (PARTS_A_WORKER * self.cluster.workers))
        share = -(-share // block_days) * block_days
        longest = min(share, stretch_days(gathering, writer))
        return list(plan_parts(Run(0, days), longest, is_there))

    def _work(self, gathering: Gathering, writer: StoreWriter, days: int, build: str) -> bytes:
        """What all parts share, pickled once."""
        fork = pickle.dumps(writer.fork())
        self.cluster.check(partial(cannot_open, fork))
        records = self.source.surveyed
        work = BlockWork(
            build,
            self.needs,
            replace(gathering, source=records),
            records,
            writer.axis,
            len(writer.nodes),
            days,
            writer.block_steps,
            fork,
        )
        return pickle.dumps(work)


def _join(writer: StoreWriter, done: Done) -> None:
    if done.part.is_there:
        for facts in done.blocks:
            writer.join_safe(facts)
    else:
        writer.merge(done.fork, done.blocks)


@contextmanager
def open_workers(
    settings: PreprocessSettings, source: FilesSource, place: Place
) -> Iterator[Workers]:
    """The workers that the settings name, each of which has and sees what it needs.

    Raises:
        MissingExtraError: Dask is not installed.
        ClusterUnreachableError: no scheduler answers, or it has no worker.
        UnfitWorkerError: a worker is of another version, or does not see records or store.
        SourceError: the records are missing, or lack a column.
    """
    files, copies_to = source.files, source.copies_to
    with open_cluster(settings) as cluster, ExitStack() as leaving:
        folders = {
            folder for folder in (folder_around(place.address), copies_to) if folder is not None
        }
        needs = Needs(
            {package: installed_version(package) for package in SAME_VERSIONS},
            tuple((one["file"], one["bytes"]) for one in files.identity()),
            tuple(leaving.enter_context(_sign(folder)) for folder in folders),
        )
        cluster.check(needs.lacking)
        yield Workers(cluster, source, needs)


@contextmanager
def _sign(folder: Path) -> Iterator[str]:
    """The path of a passing file: whoever sees it sees the folder, and not one of the same name."""
    try:
        sign = tempfile.NamedTemporaryFile(prefix=".flowpatch-sign-", dir=folder)  # noqa: SIM115
    except OSError as error:
        raise StoreWriteError(
            f"Cannot write into '{folder}': {error.strerror}. Check its permissions and space."
        ) from error
    with sign:
        yield sign.name


@contextmanager
def _telling_how_to_go_on(writer: StoreWriter) -> Iterator[None]:
    try:
        yield
    except ClusterError as error:
        kept = writer.safe_days
        advice = (
            f"{kept} days are kept. Go on with them: the same command with --resume, on this or "
            "another cluster, or without one."
            if kept
            else "Nothing is kept: run the command again, here or without a cluster."
        )
        raise type(error)(f"{error} {advice}") from error
