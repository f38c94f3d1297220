"""Parts of a source: chosen by name, and put together with what each of them holds."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from flowpatch.errors import SourceError
from flowpatch.sources.contract import NO_RECORDS, SourcePart, Survey


def chosen_names(names: Collection[str], parts: Sequence[SourcePart], place: str) -> frozenset[str]:
    """The names themselves; `place` names the source in errors.

    Raises:
        SourceError: one is no part's name, or there is none: no part at all would be read as all.
    """
    there = sorted(part.name for part in parts)
    shown = f"{there[0]} to {there[-1]}" if len(there) > 1 else "".join(there) or "the whole table"
    if isinstance(names, str) or not names:
        raise SourceError(f"No part of '{place}' is named. Parts there: {shown}.")
    unknown = sorted(set(names) - set(there))
    if unknown:
        raise SourceError(f"'{place}' has no part '{unknown[0]}'. Parts there: {shown}.")
    return frozenset(names)


def with_surveys(
    parts: Sequence[SourcePart], surveys: Mapping[str, Survey]
) -> tuple[SourcePart, ...]:
    """The parts with their surveys, found by name; a part without any holds no record.

    Raises:
        SourceError: records were counted for something that is no part.
    """
    strange = sorted(set(surveys) - {part.name for part in parts})
    if strange:
        raise SourceError(
            f"Records were counted in '{strange[0]}', which is none of the parts that were asked "
            "for. This is a fault of flowpatch: report it with the message."
        )
    return tuple(replace(part, survey=surveys.get(part.name, NO_RECORDS)) for part in parts)


def sum_of(surveys: Iterable[Survey]) -> Survey:
    """All of them together."""
    return sum(surveys, NO_RECORDS)
