"""The time axis: steps and instants, the calendar, and days of 23 and 25 hours."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowpatch.errors import SettingsError
from flowpatch.time_axis import ClockChange, TimeAxis, check_step_minutes, check_time_zone

DIVISORS = [minutes for minutes in range(1, 1441) if 1440 % minutes == 0]

axes = st.builds(
    lambda day, days, step: TimeAxis.of_days(np.datetime64(day), days, step),
    st.dates(date(1950, 1, 1), date(2100, 1, 1)),
    st.integers(1, 15),
    st.sampled_from([minutes for minutes in DIVISORS if minutes >= 5]),
)


def changes(zone: str, first: str, days: int, step_minutes: int = 60) -> list[tuple[str, str, str]]:
    """Kind, first and stop instant of each change of the clock."""
    axis = TimeAxis.of_days(np.datetime64(first), days, step_minutes, zone)
    return [
        (c.kind, str(axis.instant_of(c.first_step)), str(axis.instant_of(c.stop_step)))
        for c in axis.clock_changes
    ]


@given(axes)
def test_every_step_and_its_instant_lead_to_each_other(axis: TimeAxis) -> None:
    instants = axis.instants()
    assert len(instants) == axis.length == axis.days * axis.steps_a_day
    assert [axis.step_of(instant) for instant in instants] == list(range(axis.length))
    assert [axis.instant_of(step) for step in range(axis.length)] == list(instants)
    assert (
        axis.instant_of(axis.length)
        == axis.stop
        == instants[-1] + np.timedelta64(axis.step_minutes, "m")
    )


@given(axes, st.integers(-5000, 5000), st.floats(0, 1, exclude_max=True))
def test_a_step_holds_every_instant_up_to_the_next(axis: TimeAxis, step: int, part: float) -> None:
    """Steps before the first are negative: rounding towards zero would join two of them."""
    seconds = int(part * 60 * axis.step_minutes)
    instant = axis.instant_of(step) + np.timedelta64(seconds, "s")
    assert axis.step_of(instant) == step


@given(axes)
def test_time_of_day_and_day_of_week_are_those_of_the_calendar(axis: TimeAxis) -> None:
    instants = [instant.astype(datetime) for instant in axis.instants()]
    assert axis.day_of_week_index().tolist() == [instant.weekday() for instant in instants]
    minutes = [60 * instant.hour + instant.minute for instant in instants]
    assert axis.time_of_day_index().tolist() == [m // axis.step_minutes for m in minutes]
    assert axis.steps_a_week == 7 * axis.steps_a_day


@pytest.mark.parametrize(
    ("day", "weekday"), [("2025-09-19", 4), ("2014-08-01", 4), ("1969-12-31", 2), ("2024-02-29", 3)]
)
def test_known_days_have_their_day_of_week(day: str, weekday: int) -> None:
    axis = TimeAxis.of_days(np.datetime64(day), 1, 1440)
    assert axis.day_of_week_index().tolist() == [weekday]


@given(axes)
def test_an_axis_survives_json(axis: TimeAxis) -> None:
    assert TimeAxis.from_json(axis.to_json()) == axis


def test_berlin_skips_an_hour_in_spring_and_repeats_one_in_autumn() -> None:
    assert changes("Europe/Berlin", "2025-01-01", 365) == [
        ("skipped", "2025-03-30T02:00", "2025-03-30T03:00"),
        ("repeated", "2025-10-26T02:00", "2025-10-26T03:00"),
    ]


def test_auckland_repeats_first_because_its_year_begins_in_summer() -> None:
    assert changes("Pacific/Auckland", "2025-01-01", 365, 30) == [
        ("repeated", "2025-04-06T02:00", "2025-04-06T03:00"),
        ("skipped", "2025-09-28T02:00", "2025-09-28T03:00"),
    ]


def test_a_change_at_midnight_is_found_on_its_own_day() -> None:
    assert changes("America/Sao_Paulo", "2018-02-01", 300) == [
        ("repeated", "2018-02-17T23:00", "2018-02-18T00:00"),
        ("skipped", "2018-11-04T00:00", "2018-11-04T01:00"),
    ]
    assert changes("America/Havana", "2025-11-01", 5) == [
        ("repeated", "2025-11-02T00:00", "2025-11-02T01:00")
    ]


def test_a_whole_skipped_day_is_found() -> None:
    """Samoa went from 29 to 31 December 2011 to change sides of the date line."""
    assert changes("Pacific/Apia", "2011-12-28", 5) == [
        ("skipped", "2011-12-30T00:00", "2011-12-31T00:00")
    ]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai"])
def test_a_clock_that_is_left_alone_has_no_changes(zone: str) -> None:
    assert changes(zone, "2025-01-01", 365) == []


@settings(max_examples=20, deadline=None)
@given(
    zone=st.sampled_from(
        ["Europe/Berlin", "Pacific/Auckland", "America/New_York", "Australia/Lord_Howe",
         "America/Sao_Paulo", "Africa/Casablanca", "Asia/Tehran"]
    ),
    first=st.dates(date(2005, 1, 1), date(2025, 12, 31)),
)  # fmt: skip
def test_changes_are_the_steps_that_the_utc_clock_meets_never_or_twice(
    zone: str, first: date
) -> None:
    axis = TimeAxis.of_days(np.datetime64(first), 40, 30, zone)
    met = dict.fromkeys(range(axis.length), 0)
    clock = datetime(first.year, first.month, first.day, tzinfo=UTC) - timedelta(days=1)
    for _ in range(42 * 48):
        wall = clock.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        step = axis.step_of(np.datetime64(wall))
        if step in met:
            met[step] += 1
        clock += timedelta(minutes=30)
    expected = {"skipped": [], "repeated": []}
    for step, times in met.items():
        if times != 1:
            expected["repeated" if times else "skipped"].append(step)
    found = {"skipped": [], "repeated": []}
    for change in axis.clock_changes:
        found[change.kind] += range(change.first_step, change.stop_step)
    assert found == expected


def test_changes_are_in_order_and_frozen() -> None:
    axis = TimeAxis.of_days(np.datetime64("2025-01-01"), 365, 15, "Europe/Berlin")
    assert axis.clock_changes == (
        ClockChange("skipped", 88 * 96 + 8, 88 * 96 + 12),
        ClockChange("repeated", 298 * 96 + 8, 298 * 96 + 12),
    )


@pytest.mark.parametrize("minutes", DIVISORS)
def test_a_step_that_divides_a_day_is_taken(minutes: int) -> None:
    assert check_step_minutes(minutes) == minutes


@pytest.mark.parametrize(
    ("minutes", "near"), [(7, "6, 8"), (0, "1, 2"), (-5, "1, 2"), (1441, "1440"), (2880, "1440")]
)
def test_a_step_that_does_not_is_refused_with_those_near_it(minutes: int, near: str) -> None:
    with pytest.raises(SettingsError, match=rf"step of {minutes} minutes.*1440.*{near}"):
        check_step_minutes(minutes)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../../etc/passwd", "/etc/passwd", "a\0b"])
def test_an_unknown_or_hostile_zone_is_refused(zone: str) -> None:
    with pytest.raises(SettingsError, match=r"Unknown time zone.*Asia/Shanghai"):
        check_time_zone(zone)


def test_an_axis_checks_itself() -> None:
    with pytest.raises(SettingsError, match="midnight, not at 2025-01-01T01:00"):
        TimeAxis(np.datetime64("2025-01-01T01:00"), 60, 24)
    for length in (0, 23, 25, -24):
        with pytest.raises(SettingsError, match=rf"whole days of 24 steps, not {length}"):
            TimeAxis(np.datetime64("2025-01-01"), 60, length)
    with pytest.raises(SettingsError, match="step of 7 minutes"):
        TimeAxis.of_days(np.datetime64("2025-01-01"), 1, 7)
    with pytest.raises(SettingsError, match="time zone 'X'"):
        TimeAxis.of_days(np.datetime64("2025-01-01"), 1, 5, "X")
