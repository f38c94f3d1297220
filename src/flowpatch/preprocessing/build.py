"""Raw records to a sample store: source -> nodes -> series -> one commit.

How the series comes out of the records is in `stretches.py`, by several processes in
`spreading.py`.
"""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date
from typing import TYPE_CHECKING

import numpy as np

from flowpatch.errors import RecordError, StoppedByUser
from flowpatch.interruption import Interruption, StopAskedError, noting_interruption
from flowpatch.maxcompute.settings import MaxComputeSettings
from flowpatch.places.place import Place, place_of
from flowpatch.preprocessing.parts import with_parts, without_parts
from flowpatch.preprocessing.settings import PreprocessSettings
from flowpatch.preprocessing.sources import open_source
from flowpatch.preprocessing.splitting import split_series
from flowpatch.preprocessing.stretches import (
    Gathering,
    Run,
    account,
    check_observed,
    not_used,
    stopping,
    write_days,
)
from flowpatch.progress import say
from flowpatch.series.nodes import locate
from flowpatch.sources.contract import RecordSource, Survey
from flowpatch.sources.files import FilesSource
from flowpatch.store.draft import Origin
from flowpatch.store.repository import has_version
from flowpatch.store.sample_store import SampleStore, open_store
from flowpatch.store.writer import StoreWriter, check_free, publish_finished
from flowpatch.time_axis import TimeAxis

if TYPE_CHECKING:
    from flowpatch.preprocessing.spreading import Workers

LONGEST_DAYS = 3660
"""Ten years. One stray record of 1970 must not stretch the axis over half a century."""


def preprocess(
    settings: PreprocessSettings,
    maxcompute: MaxComputeSettings | None = None,
    *,
    keep_if_same: bool = False,
) -> SampleStore:
    """Builds a sample store from raw records and opens it.

    Args:
        settings: how.
        maxcompute: how MaxCompute is reached, where the records are there.
        keep_if_same: a store that was built by the same settings from records that have not
            changed since is opened as it is.

    Raises:
        SourceError: the records or the node table are missing or unfit.
        PeriodError: the period cannot hold the windows and splits.
        MaxComputeError: the records are in MaxCompute, which refused them or did not answer.
        StoreError: the store exists, is being written, or cannot be written.
        ClusterError: the workers are not there, not fit, or went away.
        MissingExtraError: what reaches the records, the store or the workers is not installed.
        StoppedByUser: Ctrl-C; whole days that were written are kept for `resume`.
    """
    place = place_of(settings.store)
    if settings.resume:
        publish_finished(place)
    keep_if_same = keep_if_same or settings.resume
    check_free(place, overwrite=settings.overwrite or keep_if_same)
    source = open_source(settings, maxcompute or MaxComputeSettings())
    with noting_interruption() as interruption, closing(source):
        if keep_if_same and (kept := _same(settings, place, source)):
            say(f"'{place}' was built from these records as they are: kept as it is")
            return kept
        check_free(place, overwrite=settings.overwrite)
        try:
            with _workers(settings, place, source) as workers:
                return _build(settings, place, source, workers, interruption)
        except StopAskedError:
            raise StoppedByUser("Stopped; nothing was written. Run the command again.") from None


@contextmanager
def _workers(
    settings: PreprocessSettings, place: Place, source: RecordSource
) -> Iterator["Workers | None"]:
    """The cluster that builds; None where this process does."""
    if not settings.on_cluster or not isinstance(source, FilesSource):
        yield None
        return
    # Imported here: a build in one process needs none of it.
    from flowpatch.preprocessing.spreading import open_workers

    with open_workers(settings, source, place) as workers:
        yield workers


def _build(
    settings: PreprocessSettings,
    place: Place,
    source: RecordSource,
    workers: "Workers | None",
    interruption: Interruption,
) -> SampleStore:
    located = locate(source.read_nodes())
    survey = source.survey()
    axis = _time_axis(settings, survey)
    say(
        f"{survey.records:,} records, {len(located.table):,} nodes, "
        f"{axis.days} days from {str(axis.start)[:10]}, {axis.length:,} steps"
    )
    origin = Origin(
        settings.recipe(),
        source.describe(),
        axis.to_json(),
        located.table.fingerprint(),
        base=None,
    )
    # Ahead of the reading: what changes meanwhile is read again by the next update.
    described = with_parts(origin.source, source.surveyed_parts())
    writing = StoreWriter(
        place, axis, located.table, origin, overwrite=settings.overwrite, resume=settings.resume
    )
    with writing as writer, stopping(writer):
        if settings.resume:
            say(f"{writer.safe_days} of {axis.days} days are safe already")
        gathering = Gathering(settings, source, located.index, survey.records)
        if workers is None:
            write_days(gathering, writer, [Run(0, axis.days)], interruption)
        else:
            workers.write_days(gathering, writer, interruption)
        counts = account(writer.counts(), survey)
        counts.check_dropped_share(settings.max_dropped_share)
        quality = writer.quality()
        check_observed(quality, counts)
        splits = split_series(settings, axis, quality)
        splits.check_windows(settings.input_len, settings.output_len)
        store = writer.commit(
            source=described,
            input_len=settings.input_len,
            output_len=settings.output_len,
            counts=counts,
            nodes_without_coordinates=located.without_coordinates,
            splits=splits,
        )
    say(
        f"{counts.used:,} records used ({not_used(counts)}), {quality.coverage:.1%} of cells "
        f"observed, {store.bytes_on_disk() / 1e6:,.1f} MB in '{store.place}', "
        f"version {store.version}"
    )
    return store


def _same(settings: PreprocessSettings, place: Place, source: RecordSource) -> SampleStore | None:
    """The store's current version, if the same build would give it again."""
    if not has_version(place):
        return None
    store = open_store(place)
    recipe = json.loads(json.dumps(settings.recipe()))
    same = store.manifest.recipe == recipe and (
        without_parts(store.manifest.source) == source.describe()
    )
    return store if same else None


def _time_axis(settings: PreprocessSettings, survey: Survey) -> TimeAxis:
    """Whole days: those asked for, or those of the first and last record."""
    if survey.first is None or survey.last is None:
        if not survey.records:
            raise RecordError(
                f"'{settings.records}' holds no record{_of_city(settings)}. Check --records."
            )
        raise RecordError(
            f"No instant of the {survey.records:,} records in '{settings.records}' can be read, "
            f"such as '{survey.time_example}' in column '{settings.time_column}'. Give "
            "--time-format, such as %Y%m%d%H%M%S, or unix_s or unix_ms for numbers."
        )
    first = _day(settings.start_date, survey.first)
    last = _day(settings.end_date, survey.last)
    stop = last + np.timedelta64(1, "D")
    if survey.last < first or survey.first >= stop:
        raise RecordError(
            f"No record in the period {first} to {last}: the records run from {survey.first} to "
            f"{survey.last}. Set --start-date and --end-date within that."
        )
    days = int((stop - first).astype(int))
    if days > LONGEST_DAYS:
        raise RecordError(
            f"The period {first} to {last} is {days:,} days, more than {LONGEST_DAYS:,}: a few "
            "records with a wrong year do that. Set --start-date and --end-date."
        )
    return TimeAxis.of_days(first, days, settings.step_minutes, settings.time_zone)


def _of_city(settings: PreprocessSettings) -> str:
    return f" with {settings.adcode_column} = '{settings.adcode}'" if settings.adcode else ""


def _day(asked: date | None, found: np.datetime64) -> np.datetime64:
    return found.astype("datetime64[D]") if asked is None else np.datetime64(asked, "D")
