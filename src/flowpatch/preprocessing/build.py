"""Raw records to a sample store: source -> nodes -> series, block by block -> one commit.

Peak memory is bounded by the stretch of days that is gathered at a time, not by the period.
"""

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import date

import numpy as np
from numpy.typing import NDArray

from flowpatch.errors import RecordError, StoppedByUser
from flowpatch.interruption import Interruption, StopAskedError, noting_interruption
from flowpatch.maxcompute.settings import MaxComputeSettings
from flowpatch.preprocessing.gathering import gather
from flowpatch.preprocessing.settings import PreprocessSettings
from flowpatch.preprocessing.sources import open_source
from flowpatch.progress import say, track
from flowpatch.series.dense import CELL_BYTES, RecordCounts, Scatter, list_causes
from flowpatch.series.nodes import LocatedNodes, locate
from flowpatch.series.quality import Quality, QualityScan
from flowpatch.series.splits import Splits, split_by_ratio
from flowpatch.sources.aggregation import Aggregate
from flowpatch.sources.contract import MANY_RECORDS, RecordSource, Survey
from flowpatch.store.repository import has_version
from flowpatch.store.sample_store import SampleStore, open_store
from flowpatch.store.writer import StoreWriter, check_free
from flowpatch.time_axis import TimeAxis

LONGEST_DAYS = 3660
"""Ten years. One stray record of 1970 must not stretch the axis over half a century."""

GATHER_BYTES = 2**30
"""Memory for the days that are gathered in one pass over the records."""


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
        StoppedByUser: Ctrl-C; nothing was written.
    """
    check_free(settings.store, overwrite=settings.overwrite)
    source = open_source(settings, maxcompute or MaxComputeSettings())
    with noting_interruption() as interruption, closing(source):
        try:
            if keep_if_same and (kept := _same(settings, source)):
                say(f"'{kept.path}' was built from these records as they are: kept as it is")
                return kept
            return _build(settings, source, interruption)
        except StopAskedError:
            raise StoppedByUser("Stopped; nothing was written. Run the command again.") from None


def _build(
    settings: PreprocessSettings, source: RecordSource, interruption: Interruption
) -> SampleStore:
    located = locate(source.read_nodes())
    survey = source.survey()
    axis = _time_axis(settings, survey)
    say(
        f"{survey.records:,} records, {len(located.table):,} nodes, "
        f"{axis.days} days from {str(axis.start)[:10]}, {axis.length:,} steps"
    )
    with StoreWriter(settings.store, axis, located.table, overwrite=settings.overwrite) as writer:
        counts, quality = _write_series(settings, source, located, survey, writer, interruption)
        splits = _splits(settings, quality)
        store = writer.commit(
            recipe=settings.recipe(),
            source={
                **source.describe(),
                "parts": [part.to_json() for part in source.surveyed_parts()],
            },
            input_len=settings.input_len,
            output_len=settings.output_len,
            counts=counts,
            nodes_without_coordinates=located.without_coordinates,
            quality=quality,
            splits=splits,
        )
    say(
        f"{counts.used:,} records used ({_not_used(counts)}), {quality.coverage:.1%} of cells "
        f"observed, {store.bytes_on_disk() / 1e6:,.1f} MB in '{store.path}', "
        f"version {store.version}"
    )
    return store


def _same(settings: PreprocessSettings, source: RecordSource) -> SampleStore | None:
    """The store's newest version, if the same build would give it again."""
    if not has_version(settings.store):
        return None
    store = open_store(settings.store)
    manifest = store.manifest
    recipe = json.loads(json.dumps(settings.recipe()))
    described = {name: value for name, value in manifest.source.items() if name != "parts"}
    same = manifest.recipe == recipe and described == source.describe()
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


def _write_series(
    settings: PreprocessSettings,
    source: RecordSource,
    located: LocatedNodes,
    survey: Survey,
    writer: StoreWriter,
    interruption: Interruption,
) -> tuple[RecordCounts, Quality]:
    """Gathers, looks at and writes the series stretch by stretch; returns what was counted."""
    axis, nodes = writer.axis, len(located.table)
    counts, scan = RecordCounts(), QualityScan(axis, nodes)
    scatter = Scatter(
        min(_stretch_steps(writer, settings.aggregate), axis.length),
        nodes,
        settings.aggregate,
        settings.null_value,
        many=survey.records >= MANY_RECORDS,
    )

    def look_and_write(first: int, values: NDArray[np.float32]) -> None:
        for begin in range(0, len(values), writer.block_steps):
            interruption.raise_if_asked()
            block_values = values[begin : begin + writer.block_steps]
            scan.add(first + begin, block_values)
            writer.write(first + begin, block_values)

    with (
        track("preprocess", total=survey.records, unit="records") as task,
        # The next stretch is read while this one is looked at, hashed, compressed and written.
        ThreadPoolExecutor(1, "writing") as behind,
    ):

        def after_block(records: int) -> None:
            task.advance(records)
            interruption.raise_if_asked()

        writing: Future[None] | None = None
        for first, stop in _stretches(writer, settings.aggregate):
            in_order = settings.aggregate == "last"
            found = source.read_blocks(located.index, axis, first, stop, in_order=in_order)
            gather(found, scatter, after_block)
            values, stretch_counts = scatter.finish(stop - first)
            counts += stretch_counts
            if writing is not None:
                writing.result()
            writing = behind.submit(look_and_write, first, values)
            del values
        if writing is not None:
            writing.result()
    counts += RecordCounts(
        read=survey.records - counts.read,
        without_time=survey.without_time,
        out_of_period=survey.records - survey.without_time - counts.read,
    )
    counts.check_dropped_share(settings.max_dropped_share)
    quality = scan.finish()
    if not quality.observed:
        raise RecordError(
            f"Every value is missing: none of the {counts.read:,} records fills a cell "
            f"({_not_used(counts)}). Check --value-column, --node-columns and --null-value."
        )
    return counts, quality


def _stretch_steps(writer: StoreWriter, aggregate: Aggregate) -> int:
    """Steps of as many whole blocks as fit the memory for gathering."""
    block_bytes = writer.block_steps * len(writer.nodes) * CELL_BYTES[aggregate]
    return max(1, GATHER_BYTES // block_bytes) * writer.block_steps


def _stretches(writer: StoreWriter, aggregate: Aggregate) -> Iterator[tuple[int, int]]:
    """First and stop step of each stretch that is gathered at a time."""
    steps = _stretch_steps(writer, aggregate)
    for first in range(0, writer.axis.length, steps):
        yield first, min(first + steps, writer.axis.length)


def _splits(settings: PreprocessSettings, quality: Quality) -> Splits:
    splits = split_by_ratio(quality.first_step, quality.stop_step, settings.ratios)
    splits.check_windows(settings.input_len, settings.output_len)
    return splits


def _not_used(counts: RecordCounts) -> str:
    chosen = {"out_of_period": counts.out_of_period, "null_value": counts.null_value}
    return list_causes({**counts.dropped, **chosen})
