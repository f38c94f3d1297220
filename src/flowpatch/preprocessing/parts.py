"""What a version remembers of the parts of its source, and which of them are others now."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowpatch.errors import StoreDamagedError
from flowpatch.sources.contract import RecordSource, SourcePart, Survey
from flowpatch.sources.parts import sum_of

PARTS = "parts"
"""The key of a manifest's source under which they are kept."""


def with_parts(source: Mapping[str, Any], parts: Iterable[SourcePart]) -> dict[str, Any]:
    """The description of a source, with its parts."""
    return {**source, PARTS: [part.to_json() for part in parts]}


def without_parts(source: Mapping[str, Any]) -> dict[str, Any]:
    """The description of a source alone."""
    return {name: value for name, value in source.items() if name != PARTS}


def known_parts(source: Mapping[str, Any], place: str) -> list[SourcePart]:
    """The parts that a manifest remembers; none where an older flowpatch wrote it.

    Raises:
        StoreDamagedError: what it remembers are no parts.
    """
    try:
        return [SourcePart.from_json(content) for content in source.get(PARTS, ())]
    except (KeyError, TypeError, ValueError) as error:
        raise StoreDamagedError(f"The manifest of '{place}' is damaged: {error!r}.") from error


@dataclass(frozen=True)
class PartChanges:
    """The parts of a source beside those that a version was made from.

    same     as they were
    again    as they were, it seems, but to be read again: with what each holds now
    before   those that have changed, as they were
    now      those that have changed or come, as they are, with what each holds
    gone     those that are no longer there
    """

    same: tuple[SourcePart, ...]
    again: tuple[SourcePart, ...]
    before: tuple[SourcePart, ...]
    now: tuple[SourcePart, ...]
    gone: tuple[SourcePart, ...]

    @property
    def present(self) -> tuple[SourcePart, ...]:
        """Every part that is there."""
        return (*self.same, *self.fresh)

    @property
    def fresh(self) -> tuple[SourcePart, ...]:
        """Every part that was surveyed now."""
        return (*self.again, *self.now)

    @property
    def all(self) -> tuple[SourcePart, ...]:
        """Every part that is there, and those that are gone."""
        return (*self.present, *self.gone)


def look_for_changes(
    source: RecordSource,
    known: Sequence[SourcePart],
    again: np.datetime64 | None,
    opened: ExitStack,
) -> tuple[PartChanges, RecordSource | None]:
    """What has changed since, and a source of what is fresh, which alone is surveyed.

    A part of which nobody knows what it holds counts as changed; one with records from the instant
    `again` on, where one is given, is read again. `opened` closes the source.
    """
    listed = {part.name: part for part in source.parts()}
    same = tuple(part for part in known if _is_same(part, listed.get(part.name)))
    others = listed.keys() - {part.name for part in same}
    doubted = {part.name for part in same if part.survey and _reaches(part.survey, again)}
    wanted = others | doubted
    fresh = opened.enter_context(closing(source.only(wanted))) if wanted else None
    surveyed = () if fresh is None else fresh.surveyed_parts()
    changes = PartChanges(
        same=tuple(part for part in same if part.name not in doubted),
        again=tuple(part for part in surveyed if part.name in doubted),
        before=tuple(part for part in known if part.name in others),
        now=tuple(part for part in surveyed if part.name in others),
        gone=tuple(part for part in known if part.name not in listed),
    )
    return changes, fresh


def _is_same(known: SourcePart, listed: SourcePart | None) -> bool:
    return listed is not None and known.identity == listed.identity and known.survey is not None


def _reaches(survey: Survey, instant: np.datetime64 | None) -> bool:
    return instant is not None and survey.last is not None and bool(survey.last >= instant)


def total(parts: Iterable[SourcePart]) -> Survey:
    """What all of the parts hold."""
    return sum_of(part.survey for part in parts if part.survey is not None)
