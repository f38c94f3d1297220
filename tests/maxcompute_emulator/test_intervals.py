"""Intervals in queries, and the client's readers of them."""

import datetime

import pandas as pd
import pytest
from odps import ODPS
from odps.compat import Monthdelta
from warehouse_sql import Sql

from maxcompute_emulator.errors import ServiceError

DAY_TIME, YEAR_MONTH = "interval_day_time", "interval_year_month"


@pytest.mark.parametrize(
    ("expression", "kind", "value"),
    [
        ("interval_day_time('2 1:2:3')", DAY_TIME, {"sec": 176523, "nano": 0}),
        (
            "interval '-3 12:30:11.134512345' day to second",
            DAY_TIME,
            {"sec": -304211, "nano": -134512345},
        ),
        ("interval '90' minute", DAY_TIME, {"sec": 5400, "nano": 0}),
        ("interval_year_month('10-11')", YEAR_MONTH, 131),
        ("interval '-1-2' year to month", YEAR_MONTH, -14),
        ("interval 2 year", YEAR_MONTH, 24),
        (
            "datetime '2024-01-01 10:00:00' - datetime '2024-01-02 00:00:00'",
            DAY_TIME,
            {"sec": -50400, "nano": 0},
        ),
    ],
)
def test_intervals_are_results(sql: Sql, expression: str, kind: str, value: object) -> None:
    assert sql.types(f"select {expression} as x") == [kind]
    assert sql.rows(f"select {expression} as x") == [(value,)]


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("datetime '2024-01-31 10:00:00' + interval '0-1' year to month", "2024-02-29 10:00:00"),
        ("interval '1' day + date '2024-01-01'", "2024-01-02 00:00:00"),
        (
            "datetime '2024-01-01 00:00:00' - interval '1 0:0:1' day to second",
            "2023-12-30 23:59:59",
        ),
        ("datetime '2024-01-01 00:00:00' + interval cast(2 as bigint) hour", "2024-01-01 02:00:00"),
    ],
)
def test_intervals_shift_times(sql: Sql, expression: str, text: str) -> None:
    assert sql.rows(f"select cast({expression} as string) as x") == [(text,)]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("interval_day_time('2 days')", "no interval of days"),
        ("interval '1 2' year to month", "no interval of months"),
        ("interval 'x' day", "'x' is no number of days"),
        ("interval '1 2' day to hour", "INTERVAL from day to hour"),
        ("interval '1' day - date '2024-01-01'", "cannot be taken from an interval"),
        ("date '2024-01-01' + date '2024-01-01'", "two times cannot be added"),
        ("cast(0 as timestamp) - date '2024-01-01'", "difference of TIMESTAMPs"),
    ],
)
def test_other_intervals_are_refused(sql: Sql, expression: str, message: str) -> None:
    with pytest.raises(ServiceError, match=message):
        sql.rows(f"select {expression} as x")


def test_the_client_reads_intervals(odps: ODPS) -> None:
    query = "select interval '0 0:0:1.5' day to second as a, interval '1-1' year to month as b"
    with odps.execute_sql(query).open_reader(tunnel=True) as reader:
        (record,) = list(reader)
    assert list(record.values) == [pd.Timedelta(seconds=1.5), Monthdelta(13)]


def test_times_are_cut_to_text_and_numbers_are_seconds(sql: Sql) -> None:
    assert sql.rows("select trunc_time(datetime '2024-01-02 03:04:05', 'hour') as x") == [
        ("2024-01-02 03:00:00",)
    ]
    seconds = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=5)
    assert sql.rows("select cast(5 as datetime) as x") == [(seconds,)]
    assert sql.types("select current_timestamp_ntz() as x") == ["timestamp_ntz"]
