"""What a version remembers of the parts of its source, and which of them are others now."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

from flowpatch.errors import StoreDamagedError
from flowpatch.sources.contract import NO_RECORDS, RecordSource, SourcePart, Survey

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
    before   those that have changed, as they were
    now      those that have changed or come, as they are, with what each holds
    gone     those that are no longer there
    """

    same: tuple[SourcePart, ...]
    before: tuple[SourcePart, ...]
    now: tuple[SourcePart, ...]
    gone: tuple[SourcePart, ...]

    @property
    def present(self) -> tuple[SourcePart, ...]:
        """Every part that is there."""
        return (*self.same, *self.now)

    @property
    def all(self) -> tuple[SourcePart, ...]:
        """Every part that is there, and those that are gone."""
        return (*self.present, *self.gone)


def look_for_changes(
    source: RecordSource, known: Sequence[SourcePart], opened: ExitStack
) -> tuple[PartChanges, RecordSource | None]:
    """What has changed since, and a source of what has come or changed, which alone is surveyed.

    A part of which nobody knows what it holds counts as changed. `opened` closes that source.
    """
    listed = {part.name: part for part in source.parts()}
    same = tuple(part for part in known if _is_same(part, listed.get(part.name)))
    others = listed.keys() - {part.name for part in same}
    fresh = opened.enter_context(closing(source.only(others))) if others else None
    changes = PartChanges(
        same=same,
        before=tuple(part for part in known if part.name in others),
        now=() if fresh is None else fresh.surveyed_parts(),
        gone=tuple(part for part in known if part.name not in listed),
    )
    return changes, fresh


def _is_same(known: SourcePart, listed: SourcePart | None) -> bool:
    return listed is not None and known.identity == listed.identity and known.survey is not None


def total(parts: Iterable[SourcePart]) -> Survey:
    """What all of the parts hold."""
    return sum((part.survey for part in parts if part.survey is not None), NO_RECORDS)
