"""A store brought up to date from its own source: only what is new is read, one version is added.

The new version is what a build of the same period from the source would give. Which days are read
is in `plan.py`, which nodes it has in `node_changes.py`.
"""

from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flowpatch.errors import SettingsError, StoppedByUser
from flowpatch.interruption import Interruption, StopAskedError, noting_interruption
from flowpatch.maxcompute.settings import MaxComputeSettings
from flowpatch.places.place import Place, place_of
from flowpatch.preprocessing.node_changes import NodeChanges, compare_nodes
from flowpatch.preprocessing.parts import (
    PartChanges,
    known_parts,
    look_for_changes,
    total,
    with_parts,
)
from flowpatch.preprocessing.plan import DayPlan, plan_days, remembered_parts
from flowpatch.preprocessing.settings import PreprocessSettings, UpdateSettings
from flowpatch.preprocessing.sources import open_source
from flowpatch.preprocessing.splitting import split_series
from flowpatch.preprocessing.stretches import (
    Gathering,
    account,
    check_observed,
    stopping,
    write_days,
)
from flowpatch.progress import say
from flowpatch.series.dense import COUNTED_BY_DAY
from flowpatch.series.nodes import locate
from flowpatch.sources.contract import RecordSource
from flowpatch.store.draft import Origin
from flowpatch.store.sample_store import SampleStore, open_store
from flowpatch.store.writer import StoreWriter, publish_finished


def update(
    store: str | Path | Place,
    settings: UpdateSettings | None = None,
    maxcompute: MaxComputeSettings | None = None,
) -> SampleStore:
    """Brings a store up to date with the records that it was built from; opens its version.

    Args:
        store: where it is.
        settings: how far, and how.
        maxcompute: how MaxCompute is reached, where the records are there.

    Raises:
        StoreNotFoundError: there is no store, or none that was built from records.
        StoreLockedError: another process writes it.
        StoreDraftError: what is to be resumed is of another update.
        SourceError, MaxComputeError: the records cannot be read.
        PeriodError: the period cannot hold the windows and splits any more.
        StoppedByUser: Ctrl-C; the version that was there is still the current one.
    """
    settings = settings or UpdateSettings()
    place = place_of(store)
    if settings.resume:
        publish_finished(place)
    base = open_store(place)
    recipe = _recipe(base)
    with ExitStack() as opened, noting_interruption() as interruption:
        source = opened.enter_context(
            closing(open_source(_period(recipe, settings), maxcompute or MaxComputeSettings()))
        )
        try:
            news = _look(base, recipe, settings, source, opened)
            if news.is_nothing:
                say(f"'{place}' is up to date: nothing is new since version {base.version}")
                return base
            return _write(base, news, settings, interruption)
        except StopAskedError:
            raise StoppedByUser("Stopped; nothing was written. Run the command again.") from None


@dataclass(frozen=True)
class _News:
    """All that an update knows before it reads a record: `fresh` gives the parts that are new."""

    recipe: PreprocessSettings
    source: RecordSource
    fresh: RecordSource | None
    changes: PartChanges
    nodes: NodeChanges
    plan: DayPlan
    opened: ExitStack
    is_nothing: bool

    def source_of(self, names: frozenset[str]) -> RecordSource | None:
        """A source of some parts; that of the new ones has read some of them already."""
        if not names:
            return None
        if names == {part.name for part in self.changes.fresh}:
            return self.fresh
        return self.opened.enter_context(closing(self.source.only(names)))


def _recipe(base: SampleStore) -> PreprocessSettings:
    recipe = base.manifest.recipe
    if "records" not in recipe:
        raise SettingsError(
            f"'{base.place}' was not built from records but from a sample table. Publish the table "
            "anew and fetch it: flowpatch samples fetch."
        )
    return PreprocessSettings(**{**recipe, "store": base.place.address})


def _period(recipe: PreprocessSettings, settings: UpdateSettings) -> PreprocessSettings:
    """The recipe of the new version, but for days that are dropped; its end is open by default."""
    return recipe.replace(end_date=settings.until)


def _look(
    base: SampleStore,
    recipe: PreprocessSettings,
    settings: UpdateSettings,
    source: RecordSource,
    opened: ExitStack,
) -> _News:
    nodes = compare_nodes(base.nodes, locate(source.read_nodes()), settings.nodes)
    _say_nodes(nodes, settings)
    known = known_parts(base.manifest.source, str(base.place)) if base.ledger else []
    again = base.axis.stop - np.timedelta64(settings.revise, "D") if settings.revise else None
    changes, fresh = look_for_changes(source, known, again, opened)
    if changes.gone:
        say(f"{len(changes.gone)} parts of the source are gone: their days stay as they are")
    is_wider = nodes.located.table.fingerprint() != base.nodes.fingerprint()
    plan = plan_days(
        recipe, settings, base.axis, changes, _without_node(base) if is_wider and nodes.come else ()
    )
    is_nothing = plan.axis == base.axis and not plan.read and not is_wider and not changes.now
    return _News(recipe, source, fresh, changes, nodes, plan, opened, is_nothing)


def _say_nodes(nodes: NodeChanges, settings: UpdateSettings) -> None:
    taken = settings.nodes == "extend"
    for count, what in (
        (
            nodes.come,
            "are new: taken" if taken else "are new: left out (--nodes extend takes them)",
        ),
        (nodes.moved, "have other coordinates: taken" if taken else "have other coordinates: kept"),
        (nodes.gone, "are no longer in the node table: kept"),
    ):
        if count:
            say(f"{count:,} nodes {what}")


def _without_node(base: SampleStore) -> list[np.datetime64]:
    """The days with records whose node was unknown, or had no coordinates."""
    if base.ledger is None:
        return []
    causes = [COUNTED_BY_DAY.index(c) for c in ("unknown_node", "node_without_coordinates")]
    days = np.flatnonzero(base.ledger.day_counts[:, causes].any(axis=1))
    return list(base.axis.start.astype("datetime64[D]") + days)


def _write(
    base: SampleStore, news: _News, settings: UpdateSettings, interruption: Interruption
) -> SampleStore:
    plan, nodes, place = news.plan, news.nodes.located, base.place
    period: dict[str, Any] = {"end_date": settings.until}
    if settings.keep_days is not None:
        period["start_date"] = plan.axis.start.astype("datetime64[D]").item()
    recipe = news.recipe.replace(**period)
    origin = Origin(
        recipe.recipe(),
        news.source.describe(),
        plan.axis.to_json(),
        nodes.table.fingerprint(),
        base.version,
    )
    parts = remembered_parts(news.changes, plan)
    writing = StoreWriter(place, plan.axis, nodes.table, origin, base=base, resume=settings.resume)
    with writing as writer, stopping(writer):
        carried = frozenset(range(plan.axis.days)) - plan.read
        gathering = Gathering(
            recipe, news.source_of(plan.parts), nodes.index, _records(news), carried, "update"
        )
        write_days(gathering, writer, plan.runs(whole=writer.looks_at_all), interruption)
        described = with_parts(origin.source, parts)
        counts = account(writer.counts(), total(parts))
        if writer.is_as_base and counts == base.manifest.counts:
            say(f"'{place}' is up to date: what was read again is as it was")
            return base
        counts.check_dropped_share(recipe.max_dropped_share)
        quality = writer.quality()
        check_observed(quality, counts)
        splits = split_series(recipe, plan.axis, quality, before=base)
        splits.check_windows(base.manifest.input_len, base.manifest.output_len)
        store = writer.commit(
            source=described,
            input_len=base.manifest.input_len,
            output_len=base.manifest.output_len,
            counts=counts,
            nodes_without_coordinates=nodes.without_coordinates,
            splits=splits,
        )
    _say_done(base, store, plan)
    return store


def _records(news: _News) -> int:
    return total(part for part in news.changes.present if part.name in news.plan.parts).records


def _say_done(base: SampleStore, store: SampleStore, plan: DayPlan) -> None:
    dropped = len(plan.dropped)
    came = store.axis.days - base.axis.days + dropped
    say(
        f"{came} days came, {len(plan.read) - came} were read again, {dropped} were dropped: "
        f"{store.axis.days} days to {str(store.axis.stop)[:10]}, "
        f"{store.manifest.quality.coverage:.1%} of cells observed, version {store.version}"
    )
