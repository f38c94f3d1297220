"""The time axis of a series: every step of whole days, in local wall-clock time.

    step          0        1        2                      length
    instant     start   +step_min  ...                      stop
                  |--------|--------|--- ... ---|--------|----|
                  00:00 of the first day          24:00 of the last day

Instants are local wall-clock time, so a day always has the same number of steps and "the same
time last week" is a fixed number of steps away. Where the clock is put forward, the skipped hour
is a gap; where it is put back, both passes of the repeated hour share their steps. The named zone
says where that happens (`clock_changes`). Splits and windows are left to other files.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

from flowpatch.errors import SettingsError

MINUTES_A_DAY = 1440
DAYS_A_WEEK = 7

Instants = NDArray[np.datetime64]


@dataclass(frozen=True)
class ClockChange:
    """A stretch of wall-clock steps that a change of the clock skips or repeats."""

    kind: Literal["skipped", "repeated"]
    first_step: int
    stop_step: int


@dataclass(frozen=True)
class TimeAxis:
    """`length` steps of `step_minutes` from `start` (a local midnight), in the zone `time_zone`.

    Raises:
        SettingsError: the step does not divide a day, or the zone is unknown.
    """

    start: np.datetime64
    step_minutes: int
    length: int
    time_zone: str = "UTC"

    def __post_init__(self) -> None:
        check_step_minutes(self.step_minutes)
        check_time_zone(self.time_zone)
        start = self.start.astype("datetime64[m]")
        if start != start.astype("datetime64[D]"):
            raise SettingsError(f"A time axis starts at midnight, not at {start}.")
        if self.length < 1 or self.length % self.steps_a_day:
            raise SettingsError(
                f"A time axis holds whole days of {self.steps_a_day} steps, not {self.length}."
            )
        object.__setattr__(self, "start", start)

    @classmethod
    def of_days(
        cls, first_day: np.datetime64, days: int, step_minutes: int, time_zone: str = "UTC"
    ) -> "TimeAxis":
        """The axis of `days` whole days from `first_day`."""
        check_step_minutes(step_minutes)
        midnight = first_day.astype("datetime64[D]").astype("datetime64[m]")
        return cls(midnight, step_minutes, days * MINUTES_A_DAY // step_minutes, time_zone)

    @property
    def steps_a_day(self) -> int:
        """Steps in one day."""
        return MINUTES_A_DAY // self.step_minutes

    @property
    def steps_a_week(self) -> int:
        """Steps in one week."""
        return DAYS_A_WEEK * self.steps_a_day

    @property
    def days(self) -> int:
        """Whole days."""
        return self.length // self.steps_a_day

    @property
    def stop(self) -> np.datetime64:
        """The instant after the last step."""
        return self.instant_of(self.length)

    def instant_of(self, step: int) -> np.datetime64:
        """The instant at which a step begins."""
        return self.start + np.timedelta64(step * self.step_minutes, "m")

    def step_of(self, instant: np.datetime64) -> int:
        """The step that holds an instant; may lie outside 0 .. length."""
        seconds = (instant.astype("datetime64[s]") - self.start.astype("datetime64[s]")).astype(int)
        return int(seconds // (60 * self.step_minutes))

    def instants(self) -> Instants:
        """(length,) instants at which the steps begin."""
        return self.start + np.arange(self.length) * np.timedelta64(self.step_minutes, "m")

    def time_of_day_index(self) -> NDArray[np.int64]:
        """(length,) step of the day, 0 at midnight."""
        return np.arange(self.length, dtype=np.int64) % self.steps_a_day

    def day_of_week_index(self) -> NDArray[np.int64]:
        """(length,) day of the week from the calendar, 0 on Monday."""
        day = np.arange(self.length, dtype=np.int64) // self.steps_a_day
        return (self.first_weekday + day) % DAYS_A_WEEK

    @property
    def first_weekday(self) -> int:
        """Day of the week of the first step, 0 on Monday."""
        # 1970-01-01, day 0 of datetime64, was a Thursday: index 3.
        return (int(self.start.astype("datetime64[D]").astype(int)) + 3) % DAYS_A_WEEK

    @cached_property
    def clock_changes(self) -> tuple[ClockChange, ...]:
        """Steps that the zone's clock skips or repeats, in order."""
        zone = ZoneInfo(self.time_zone)
        changes = []
        for day in range(self.days):
            first = day * self.steps_a_day
            midnight = self.instant_of(first).astype(datetime)
            offset = midnight.replace(tzinfo=zone).utcoffset()
            if offset != (midnight + timedelta(days=1)).replace(tzinfo=zone).utcoffset():
                changes += self._changes_of_day(first, zone)
        return tuple(changes)

    def _changes_of_day(self, first: int, zone: ZoneInfo) -> list[ClockChange]:
        # The two readings of a wall-clock instant (PEP 495: fold 0 and 1) differ just where the
        # clock jumps: the first is ahead in a repeated hour, behind in a skipped one.
        kinds = []
        for step in range(first, first + self.steps_a_day):
            instant = self.instant_of(step).astype(datetime)
            before, after = (
                instant.replace(tzinfo=zone, fold=fold).utcoffset() or timedelta()
                for fold in (0, 1)
            )
            kinds.append("repeated" if before > after else "skipped" if before < after else None)
        changes: list[ClockChange] = []
        for kind in ("skipped", "repeated"):
            steps = [first + offset for offset, found in enumerate(kinds) if found == kind]
            if steps:
                changes.append(ClockChange(kind, steps[0], steps[-1] + 1))
        return changes

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return {
            "start": str(self.start),
            "stop": str(self.stop),
            "step_minutes": self.step_minutes,
            "length": self.length,
            "time_zone": self.time_zone,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "TimeAxis":
        """The axis that `to_json` described."""
        return cls(
            np.datetime64(content["start"], "m"),
            content["step_minutes"],
            content["length"],
            content["time_zone"],
        )


def check_step_minutes(step_minutes: int) -> int:
    """The step itself, if it divides a day.

    Raises:
        SettingsError: it does not.
    """
    if step_minutes < 1 or MINUTES_A_DAY % step_minutes:
        divisors = [d for d in range(1, MINUTES_A_DAY + 1) if MINUTES_A_DAY % d == 0]
        nearest = sorted(divisors, key=lambda d: abs(d - step_minutes))[:4]
        raise SettingsError(
            f"A step of {step_minutes} minutes does not divide a day of {MINUTES_A_DAY}. "
            f"Near it: {', '.join(map(str, sorted(nearest)))}."
        )
    return step_minutes


def check_time_zone(name: str) -> str:
    """The name itself, if the time-zone database knows it.

    Raises:
        SettingsError: it does not.
    """
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise SettingsError(
            f"Unknown time zone '{name}'. Give a name such as Asia/Shanghai, Europe/Berlin or UTC."
        ) from None
    return name
