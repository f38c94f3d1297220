"""Which partitions of a table are read, and which records each of them holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np

from flowpatch.errors import RecordError
from flowpatch.maxcompute.metadata import Partition, TableInfo
from flowpatch.maxcompute.names import column, text
from flowpatch.progress import say
from flowpatch.sources.contract import SourcePart, Survey

SETTLING_S = 2.0
"""A partition written more lately than this may be written again within the same second, and the
service tells no shorter time."""

Chosen = tuple[Partition | None, ...]
"""The partitions to read; one None for a table without any."""


@dataclass(frozen=True)
class Extent:
    """The records of one partition, or of a table without any: how many, from when to when."""

    partition: Partition | None
    survey: Survey

    def reaches(self, begin: np.datetime64, end: np.datetime64) -> bool:
        """Whether any record may lie in begin .. end."""
        first, last = self.survey.first, self.survey.last
        return first is not None and last is not None and bool(first < end and last >= begin)


def choose(
    info: TableInfo, start: date | None, end: date | None, city: tuple[str, str] | None
) -> Chosen:
    """The partitions whose day lies in start .. end and whose city is the one asked for.

    A partition column counts as days where all of its values are written like one. Without such
    a column, or without a column of cities, all partitions are read.

    Args:
        info: the table.
        start: first day.
        end: last day, itself included.
        city: the column of city codes, and the code.

    Raises:
        RecordError: none is left.
    """
    if not info.partition_columns:
        return (None,)
    chosen = _of_period(info, start, end)
    if city and city[0] in info.partition_columns:
        chosen = [partition for partition in chosen if city in partition.values]
    if not chosen:
        specs = [partition.spec for partition in info.partitions]
        there = f"{specs[0]} to {specs[-1]}" if specs else "none"
        raise RecordError(
            f"{info.name.address} has no partition of what was asked for. Partitions there: "
            f"{there}. Set --start-date, --end-date and --adcode."
        )
    return tuple(chosen)


def parts_of(info: TableInfo, chosen: Chosen, now: datetime) -> tuple[SourcePart, ...]:
    """The partitions, or the table without any, with what tells their state, in order of name.

    Where a part was written so lately before `now`, when the table was looked at, that another
    write may not show, or where the service does not tell when, `unsettled` holds `now`: another
    look then takes the part for a changed one.
    """
    found = [
        SourcePart("", _state(info.modified, now, created=info.created, bytes=info.bytes))
        if partition is None
        else SourcePart(partition.spec, _state(partition.modified, now))
        for partition in chosen
    ]
    return tuple(sorted(found, key=lambda part: part.name))


def _state(modified: str | None, now: datetime, **others: Any) -> dict[str, Any]:
    state = {**others, "modified": modified}
    if modified and (now - datetime.fromisoformat(modified)).total_seconds() >= SETTLING_S:
        return state
    return {**state, "unsettled": now.isoformat()}


def newest(info: TableInfo) -> Partition | None:
    """The last partition of a table that has any: each is taken for a whole snapshot.

    Raises:
        RecordError: it has partition columns but no partition.
    """
    if not info.partition_columns:
        return None
    if not info.partitions:
        raise RecordError(f"The node table {info.name.address} has no partition. Check --nodes.")
    found = max(info.partitions, key=lambda partition: partition.values)
    say(f"Nodes are taken from the newest partition of {info.name.address}: {found.spec}")
    return found


def condition(chosen: Sequence[Partition | None]) -> str:
    """The SQL condition that chooses the partitions, `true` for a table without any."""
    partitions = [partition for partition in chosen if partition]
    if not partitions:
        return "true"
    names = [name for name, _ in partitions[0].values]
    if len(names) == 1:
        values = ", ".join(text(partition.values[0][1]) for partition in partitions)
        return f"{column(names[0])} IN ({values})"
    return "(" + " OR ".join(f"({_equal(partition)})" for partition in partitions) + ")"


def _equal(partition: Partition) -> str:
    return " AND ".join(f"{column(name)} = {text(value)}" for name, value in partition.values)


def _of_period(info: TableInfo, start: date | None, end: date | None) -> list[Partition]:
    for position in range(len(info.partition_columns)):
        days = [_as_day(partition.values[position][1]) for partition in info.partitions]
        if all(days):
            return [
                partition
                for partition, day in zip(info.partitions, days, strict=True)
                if day and (start is None or day >= start) and (end is None or day <= end)
            ]
    return list(info.partitions)


def _as_day(value: str) -> date | None:
    try:
        return date.fromisoformat(value) if len(value) in (8, 10) else None
    except ValueError:
        return None
