"""What an update has to do: which days are read anew, from which parts of the source.

    part came or changed     the days that it holds, and those that it held
    day of the new period    that the store does not have
    --revise DAYS            the last days
    a node came (extend)     days with records that had no node until now

A part that is gone takes nothing with it: its days stay as they are.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from flowpatch.errors import RecordError, SettingsError
from flowpatch.preprocessing.parts import PartChanges, total
from flowpatch.preprocessing.settings import PreprocessSettings, UpdateSettings
from flowpatch.preprocessing.stretches import Run
from flowpatch.sources.contract import SourcePart
from flowpatch.time_axis import TimeAxis

DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class DayPlan:
    """Days count from the first of the new `axis`; days that are dropped are below 0.

    `read` are the days that are gathered anew, `parts` the names of the parts that hold records of
    them, and `dropped` how many days at the beginning the new version no longer has.
    """

    axis: TimeAxis
    read: frozenset[int]
    parts: frozenset[str]
    dropped: int

    def runs(self, *, whole: bool) -> list[Run]:
        """Days that are looked at, one after another: all of them, or those read and dropped."""
        if whole:
            return [Run(0, self.axis.days)]
        return runs_of(self.read | set(range(-self.dropped, 0)))


def plan_days(
    recipe: PreprocessSettings,
    settings: UpdateSettings,
    axis: TimeAxis,
    changes: PartChanges,
    without_node: Collection[np.datetime64],
) -> DayPlan:
    """The days of the new axis, and those of them that must be read.

    Args:
        recipe: how the store was built.
        settings: how it is updated.
        axis: that of the version that there is.
        changes: what is new about the parts of the source.
        without_node: days whose records may have a node now.

    Raises:
        RecordError: no record has a readable instant, or none lies in the period.
        SettingsError: the period ends before the version does.
    """
    new_axis = _new_axis(recipe, settings, axis, changes)
    first = new_axis.start.astype("datetime64[D]")
    there = _days_between(axis.start, axis.stop - np.timedelta64(1, "m"), first)
    wanted = set(range(new_axis.days))
    is_unknown = any(part.survey is None for part in changes.before)
    changed = wanted if is_unknown else _days_of((*changes.before, *changes.now), first)
    last = set(range(new_axis.days - settings.revise, new_axis.days))
    nodes = {int((day - first) / DAY) for day in without_node}
    # What only a part holds that is gone would be lost.
    kept = _days_of(changes.gone, first) - _days_of(changes.present, first)
    read = (changed | last | nodes | (wanted - there)) & wanted - (kept & there)
    return DayPlan(
        axis=new_axis,
        read=frozenset(read),
        parts=frozenset(part.name for part in changes.present if _days_of((part,), first) & read),
        dropped=sum(day < 0 for day in there),
    )


def runs_of(days: Iterable[int]) -> list[Run]:
    """Days in runs of neighbours."""
    runs: list[Run] = []
    for day in sorted(days):
        if runs and runs[-1].stop == day:
            runs[-1] = Run(runs[-1].first, day + 1)
        else:
            runs.append(Run(day, day + 1))
    return runs


def remembered_parts(changes: PartChanges, plan: DayPlan) -> list[SourcePart]:
    """The parts that the new version is made from: those gone too while any of it is left."""
    first = plan.axis.start.astype("datetime64[D]")
    wanted = set(range(plan.axis.days))
    left = [part for part in changes.gone if _days_of((part,), first) & wanted - plan.read]
    return sorted((*changes.present, *left), key=lambda part: part.name)


def _new_axis(
    recipe: PreprocessSettings, settings: UpdateSettings, axis: TimeAxis, changes: PartChanges
) -> TimeAxis:
    survey = total(changes.all)
    if survey.first is None or survey.last is None:
        raise RecordError(
            f"'{recipe.records}' holds no record with a readable instant any more. Check it, or "
            "build the store anew."
        )
    first = survey.first.astype("datetime64[D]")
    if recipe.start_date is not None:
        first = np.datetime64(recipe.start_date, "D")
    last_there = (axis.stop - np.timedelta64(1, "m")).astype("datetime64[D]")
    last = max(survey.last.astype("datetime64[D]"), last_there)
    if settings.until is not None:
        last = np.datetime64(settings.until, "D")
        if last < last_there:
            raise SettingsError(
                f"--until {last} lies before {last_there}, the store's last day, and an update "
                "takes none away. Give a later day, or go back: flowpatch samples rollback."
            )
    if settings.keep_days is not None:
        first = max(first, last - (settings.keep_days - 1) * DAY)
    days = int((last + DAY - first) / DAY)
    return TimeAxis.of_days(first, days, axis.step_minutes, axis.time_zone)


def _days_of(parts: Iterable[SourcePart], first_day: np.datetime64) -> set[int]:
    """Every day between the first and the last record of each part."""
    found: set[int] = set()
    for part in parts:
        survey = part.survey
        if survey is not None and survey.first is not None and survey.last is not None:
            found |= _days_between(survey.first, survey.last, first_day)
    return found


def _days_between(first: np.datetime64, last: np.datetime64, first_day: np.datetime64) -> set[int]:
    begin, end = (int((one.astype("datetime64[D]") - first_day) / DAY) for one in (first, last))
    return set(range(begin, end + 1))
