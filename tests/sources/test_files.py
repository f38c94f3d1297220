"""FilesSource: one series from Parquet and CSV, odd names and times, and what bad input gets."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowpatch.errors import ColumnError, SettingsError, SourceError
from flowpatch.series.dense import RecordCounts, Scatter
from flowpatch.series.nodes import locate
from flowpatch.sources.columns import RecordColumns
from flowpatch.sources.files import FilesSource
from flowpatch.time_axis import TimeAxis

AXIS = TimeAxis.of_days(np.datetime64("2025-09-19"), 1, 60)
Columns = Mapping[str, Any]


def write(path: Path, columns: Columns) -> Path:
    """Columns as Parquet or CSV, whichever the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))
    if path.suffix == ".parquet":
        pq.write_table(table, path)
        return path
    connection = duckdb.connect()
    connection.register("written", table)
    connection.sql("SELECT * FROM written").write_csv(str(path))
    return path


def source(records: Path, nodes: Path, **changes: Any) -> FilesSource:
    given = {"node_columns": ("id",), "time_column": "t", "value_column": "v", **changes}
    return FilesSource(str(records), str(nodes), RecordColumns(**given))


def series(
    of: FilesSource, axis: TimeAxis = AXIS, aggregate: str = "sum"
) -> tuple[dict[tuple[int, Any], float], RecordCounts]:
    """(step, label of the node) -> value, and the counts."""
    located = locate(of.read_nodes())
    scatter = Scatter(axis.length, len(located.table), aggregate)
    for block in of.read_blocks(located.index, axis, 0, axis.length, in_order=aggregate == "last"):
        scatter.add(block)
    values, by_day = scatter.finish()
    counts = RecordCounts.of_days(by_day, int((~np.isnan(values)).sum()))
    labels = located.table.labels
    cells = {
        (int(step), labels[node]): float(values[step, node])
        for step, node in np.argwhere(~np.isnan(values))
    }
    return cells, counts


def hours(*values: float) -> list[datetime]:
    return [datetime(2025, 9, 19) + timedelta(hours=value) for value in values]


def nodes_csv(folder: Path, *keys: Any) -> Path:
    columns = {"id": list(keys), "lat": [1.0] * len(keys), "lng": [2.0] * len(keys)}
    return write(folder / "nodes.csv", columns)


@pytest.fixture
def nodes(tmp_path: Path) -> Path:
    return nodes_csv(tmp_path, 1, 2)


RECORDS = {"id": [1, 2, 1, 9], "t": hours(0, 0.5, 23.99, 3), "v": [0.5, 2.0, 3.0, 4.0]}
CELLS = {(0, 1): 0.5, (0, 2): 2.0, (23, 1): 3.0}


# --- where the records lie ------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["parquet", "csv", "csv.gz"])
def test_one_file_gives_its_series(tmp_path: Path, nodes: Path, suffix: str) -> None:
    found, counts = series(source(write(tmp_path / f"r.{suffix}", RECORDS), nodes))
    assert found == CELLS
    assert counts == RecordCounts(read=4, used=3, unknown_node=1)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("place", ["r", "r/**/*.{}", "r/*/p?.{}"])
def test_a_folder_of_partitions_gives_the_same_series(
    tmp_path: Path, nodes: Path, suffix: str, place: str
) -> None:
    for i in range(4):
        part = {name: values[i : i + 1] for name, values in RECORDS.items()}
        write(tmp_path / f"r/ds=2025091{i % 2}/p{i}.{suffix}", part)
    (tmp_path / "r/_SUCCESS").touch()
    write(tmp_path / f"r/_temporary/0/p.{suffix}", RECORDS)
    found, counts = series(source(tmp_path / place.format(suffix), nodes))
    assert found == CELLS
    assert counts.read == 4


def test_a_partition_can_be_the_time_or_the_city(tmp_path: Path, nodes: Path) -> None:
    """Partition values stay text: 0101 is a city code and no number."""
    for city, value in (("0101", 1.0), ("101", 2.0)):
        write(tmp_path / f"r/adcode={city}/ds=20250919/p.parquet", {"id": [1], "v": [value]})
    one = source(tmp_path / "r", nodes, time_column="ds", time_format="%Y%m%d", adcode="0101")
    assert series(one)[0] == {(0, 1): 1.0}


def test_files_with_columns_in_another_order_are_read_by_name(tmp_path: Path, nodes: Path) -> None:
    for suffix in ("csv", "parquet"):
        first = {name: RECORDS[name][:2] for name in ("id", "t", "v")}
        second = {name: RECORDS[name][2:] for name in ("v", "id", "t")}
        write(tmp_path / suffix / f"a.{suffix}", first)
        write(tmp_path / suffix / f"b.{suffix}", second)
        assert series(source(tmp_path / suffix, nodes))[0] == CELLS


def test_a_fraction_survives_in_files_whose_first_holds_integers(
    tmp_path: Path, nodes: Path
) -> None:
    """A day without gaps is often written as integers, the next one as floats."""
    write(tmp_path / "r/a.parquet", {"id": [1], "t": hours(0), "v": pa.array([7], pa.int32())})
    write(tmp_path / "r/b.parquet", {"id": [1], "t": hours(1), "v": [1.5]})
    write(tmp_path / "r/c.parquet", {"id": ["1"], "t": hours(2), "v": ["2.5"]})
    assert series(source(tmp_path / "r", nodes))[0] == {(0, 1): 7.0, (1, 1): 1.5, (2, 1): 2.5}


@pytest.mark.parametrize("lacking", ["id", "t", "v", "adcode"])
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_column_that_one_of_the_files_lacks_is_an_error(
    tmp_path: Path, nodes: Path, lacking: str, suffix: str
) -> None:
    whole = {"id": [1], "t": hours(0), "v": [1.0], "adcode": ["x"]}
    write(tmp_path / f"r/a.{suffix}", whole)
    part = {name: values for name, values in whole.items() if name != lacking}
    write(tmp_path / f"r/b.{suffix}", part)
    with pytest.raises(SourceError, match=f"olumn [\"']{lacking}[\"']"):
        series(source(tmp_path / "r", nodes, adcode="x"))


def test_a_column_that_nobody_asked_for_may_differ_between_files(
    tmp_path: Path, nodes: Path
) -> None:
    write(tmp_path / "r/a.parquet", {**RECORDS, "note": ["x"] * 4, "adcode": [1] * 4})
    write(tmp_path / "r/b.parquet", {"id": [2], "t": hours(5), "v": [1.0], "note": [7]})
    assert series(source(tmp_path / "r", nodes))[0] == {**CELLS, (5, 2): 1.0}


# --- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("record_keys", [[7, 8], ["7", "8"], [7.0, 8.0], [b"7", b"8"]])
@pytest.mark.parametrize("node_keys", [[7, 8], ["7", "8"], [7.0, 8.0], [b"7", b"8"]])
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_whole_numbers_meet_however_they_are_written(
    tmp_path: Path, record_keys: list[Any], node_keys: list[Any], suffix: str
) -> None:
    records = write(
        tmp_path / f"r.{suffix}", {"id": record_keys, "t": hours(0, 1), "v": [1.0, 2.0]}
    )
    table = write(tmp_path / "n.parquet", {"id": node_keys, "lat": [1.0, 1.0], "lng": [2.0, 2.0]})
    assert series(source(records, table))[0] == {(0, 7): 1.0, (1, 8): 2.0}


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("written", ["float", "text"])
def test_a_key_between_two_nodes_is_neither(
    tmp_path: Path, nodes: Path, suffix: str, written: str
) -> None:
    """A cast to an integer rounds 1.6 to 2: the records of another node would be counted in."""
    keys = [1.6, 2.4, 2.0] if written == "float" else ["1.6", "2.4", "2"]
    records = write(tmp_path / f"r.{suffix}", {"id": keys, "t": hours(0, 1, 2), "v": [1.0] * 3})
    found, counts = series(source(records, nodes))
    assert found == {(2, 2): 1.0}
    assert counts.unknown_node == 2


def test_007_is_text_and_another_node_than_7(tmp_path: Path) -> None:
    table = nodes_csv(tmp_path, "007", "7")
    for suffix in ("parquet", "csv"):
        records = write(
            tmp_path / f"r.{suffix}",
            {"id": ["007", "7", "07"], "t": hours(0, 1, 2), "v": [1.0] * 3},
        )
        found, counts = series(source(records, table))
        assert found == {(0, "007"): 1.0, (1, "7"): 1.0}
        assert counts.unknown_node == 1


def test_large_keys_are_told_apart_to_the_last_digit(tmp_path: Path) -> None:
    keys = [2**53, 2**53 + 1, 2**63 - 1]
    table = nodes_csv(tmp_path, *keys)
    for suffix in ("parquet", "csv"):
        records = write(
            tmp_path / f"r.{suffix}", {"id": keys, "t": hours(0, 0, 0), "v": [1.0, 2, 3]}
        )
        assert series(source(records, table))[0] == {(0, key): i + 1 for i, key in enumerate(keys)}


def test_keys_beyond_64_bits_are_text(tmp_path: Path) -> None:
    table = nodes_csv(tmp_path, str(2**64 + 1), "5")
    records = write(tmp_path / "r.csv", {"id": [str(2**64 + 1)], "t": hours(0), "v": [1.0]})
    assert series(source(records, table))[0] == {(0, str(2**64 + 1)): 1.0}


def test_keys_that_begin_with_a_hash_are_keys_and_no_comments(tmp_path: Path) -> None:
    """Left to guess, DuckDB takes such lines of a CSV for comments and drops them silently."""
    keys = ["#1", "# 2", "3"]
    rows = [f"{key},2025-09-19 00:00:00,1" for key in keys]
    (tmp_path / "r.csv").write_text("\n".join(["id,t,v", *rows]) + "\n")
    (tmp_path / "n.csv").write_text("\n".join(["id,lat,lng", *(f"{k},1,2" for k in keys)]) + "\n")
    found, counts = series(source(tmp_path / "r.csv", tmp_path / "n.csv"))
    assert found == {(0, key): 1.0 for key in keys}
    assert counts.read == 3


def test_several_key_columns_of_different_kinds(tmp_path: Path) -> None:
    table = write(
        tmp_path / "n.csv",
        {"a": [1, 1, 2], "b": ["x", "y", "中文"], "lat": [1.0] * 3, "lng": [2.0] * 3},
    )
    columns = {
        "a": [1, 1, 2, 2],
        "b": ["x", "y", "中文", "x"],
        "t": hours(0, 0, 0, 0),
        "v": [1.0, 2.0, 3.0, 4.0],
    }
    for suffix in ("parquet", "csv"):
        of = source(write(tmp_path / f"r.{suffix}", columns), table, node_columns=("a", "b"))
        found, counts = series(of)
        assert found == {(0, "1->x"): 1.0, (0, "1->y"): 2.0, (0, "2->中文"): 3.0}
        assert counts.unknown_node == 1


def test_a_record_without_a_key_is_of_no_known_node(tmp_path: Path, nodes: Path) -> None:
    for suffix in ("parquet", "csv"):
        records = write(
            tmp_path / f"r.{suffix}", {"id": [None, 1], "t": hours(0, 0), "v": [1.0, 2.0]}
        )
        found, counts = series(source(records, nodes))
        assert (found, counts.unknown_node) == ({(0, 1): 2.0}, 1)


def test_a_node_without_a_key_is_an_error(tmp_path: Path) -> None:
    table = nodes_csv(tmp_path, "a", None, "b")
    with pytest.raises(ColumnError, match=r"'id' of the node table is empty in 1 rows. Give every"):
        source(tmp_path / "r.csv", table).read_nodes()


# --- names ----------------------------------------------------------------------------------------

ODD_NAMES = [
    "编号", "flow label", 'say "x"', "it's", "a;b", "x; DROP TABLE r --", "select", "a,b", "Ünï",
    "instant", "value", "key_0", "raw", "node", "n.node", "r", "step", "{x}", "%s", "\\", "part",
    "file", "filename", "shown",
]  # fmt: skip


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@settings(max_examples=25, deadline=None)
@given(names=st.permutations(ODD_NAMES).map(lambda names: names[:5]))
def test_no_column_name_changes_the_query(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, names: list[str]
) -> None:
    """Our own aliases (instant, value, key_0) are among the names, in every role."""
    key, key2, time, value, adcode = names
    folder = tmp_path_factory.mktemp("odd")
    columns = {
        key: [1, 2, 1], key2: ["a", "b", "b"], time: hours(1, 2, 3), value: [5.0, 6.0, 7.0],
        adcode: ["c", "c", "other"],
    }  # fmt: skip
    place = {key: [1, 2], key2: ["a", "b"], "lat": [1.0, 1.0], "lng": [2.0, 2.0]}
    of = source(
        write(folder / f"r.{suffix}", columns), write(folder / f"n.{suffix}", place),
        node_columns=(key, key2), time_column=time, value_column=value,
        adcode="c", adcode_column=adcode,
    )  # fmt: skip
    assert series(of)[0] == {(1, "1->a"): 5.0, (2, "2->b"): 6.0}
    survey = of.survey()
    assert (survey.records, survey.without_time) == (2, 0)


@pytest.mark.parametrize(
    ("latitude", "longitude"), [("lat", "lng"), ("Latitude", "LONGITUDE"), ("LAT", "lon")]
)
def test_usual_names_of_coordinates_are_found(
    tmp_path: Path, latitude: str, longitude: str
) -> None:
    table = write(tmp_path / "n.csv", {"id": [1], latitude: [48.5], longitude: [11.25]})
    found = source(tmp_path / "r.csv", table).read_nodes()
    assert (found.latitude.tolist(), found.longitude.tolist()) == ([48.5], [11.25])


def test_coordinates_that_are_no_degrees_are_none(tmp_path: Path) -> None:
    table = write(
        tmp_path / "n.csv",
        {"id": [1, 2, 3, 4, 5], "y": ["90", "90.1", "", "north", "nan"], "x": ["-180"] * 5},
    )
    of = source(tmp_path / "r.csv", table, latitude_column="y", longitude_column="x")
    assert np.isfinite(of.read_nodes().latitude).tolist() == [True, False, False, False, False]
    assert of.read_nodes().longitude.tolist() == [-180] * 5


# --- time -----------------------------------------------------------------------------------------


def times(
    folder: Path, column: Any, suffix: str = "parquet", **changes: Any
) -> tuple[list[int], int]:
    """Steps of the day in which the records of a time column end up, and how many have no time."""
    count = len(column)
    records = write(folder / f"r.{suffix}", {"id": [1] * count, "t": column, "v": [1.0] * count})
    of = source(records, nodes_csv(folder, 1), **changes)
    axis = TimeAxis.of_days(np.datetime64("2025-09-19"), 1, 1, changes.get("time_zone", "UTC"))
    located = locate(of.read_nodes())
    blocks = of.read_blocks(located.index, axis, 0, axis.length, in_order=False)
    steps = sorted(int(step) for block in blocks for step in block.step)
    return steps, of.survey().without_time


EIGHT = 8 * 60


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize(
    "written",
    [
        "2025-09-19 08:00:00", "2025-09-19T08:00:00", "2025-09-19 08:00", "2025-09-19 08:00:59.999",
        "2025-9-19 8:00",
    ],
)  # fmt: skip
def test_usual_text_is_read_by_itself(tmp_path: Path, suffix: str, written: str) -> None:
    assert times(tmp_path, [written], suffix) == ([EIGHT], 0)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize(
    ("written", "pattern"),
    [
        ("20250919080000", "%Y%m%d%H%M%S"), ("19/09/2025 08h00", "%d/%m/%Y %Hh%M"),
        ("2025年09月19日 08:00", "%Y年%m月%d日 %H:%M"), ("it's 2025-09-19 08", "it's %Y-%m-%d %H"),
    ],
)  # fmt: skip
def test_other_text_is_read_by_its_pattern(
    tmp_path: Path, suffix: str, written: str, pattern: str
) -> None:
    assert times(tmp_path, [written, "x"], suffix, time_format=pattern) == ([EIGHT], 1)


def test_digits_are_read_by_a_pattern_as_numbers_too(tmp_path: Path) -> None:
    """CSV holds them as text, Parquet often as an integer: both are the same instants."""
    found = times(tmp_path, [202509190800, 1], time_format="%Y%m%d%H%M")
    assert found == times(tmp_path, [202509190800, 1], "csv", time_format="%Y%m%d%H%M")
    assert found == ([EIGHT], 1)


def unix(hour: int, zone: timezone = UTC) -> int:
    return int(datetime(2025, 9, 19, hour, tzinfo=zone).timestamp())


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize(("time_format", "factor"), [("unix_s", 1), ("unix_ms", 1000)])
def test_seconds_and_milliseconds_are_instants_of_the_zone(
    tmp_path: Path, suffix: str, time_format: str, factor: int
) -> None:
    column = [unix(0) * factor, None]
    assert times(tmp_path, column, suffix, time_format=time_format, time_zone="Asia/Shanghai") == (
        [EIGHT],
        1,
    )


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_fractions_of_seconds_stay_in_their_step(tmp_path: Path, suffix: str) -> None:
    column = [unix(8) + 59.7, unix(8) + 0.2]
    assert times(tmp_path, column, suffix, time_format="unix_s") == ([EIGHT, EIGHT], 0)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("time_format", ["unix_s", "unix_ms"])
def test_a_number_beyond_the_calendar_is_one_bad_record_and_not_the_end(
    tmp_path: Path, suffix: str, time_format: str
) -> None:
    """Milliseconds taken for seconds are the year 57,000; larger ones overflow a product."""
    good = unix(8) * (1 if time_format == "unix_s" else 1000)
    column = [good, 2**62, -(2**62), good * 1000 * 1000]
    assert times(tmp_path, column, suffix, time_format=time_format) == ([EIGHT], 3)


@pytest.mark.parametrize(
    "written",
    ["infinity", "-infinity", "294000-01-01", "0044-03-15 (BC)", "2025-02-30", "noon", "", "NULL",
     "20250919", "24:00", "杭州"],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_text_that_is_no_instant_is_counted_and_shown(
    tmp_path: Path, suffix: str, written: str
) -> None:
    column = ["2025-09-19 08:00", written]
    assert times(tmp_path, column, suffix) == ([EIGHT], 1)
    survey = source(tmp_path / f"r.{suffix}", tmp_path / "nodes.csv").survey()
    assert survey.first == survey.last == np.datetime64("2025-09-19T08:00")
    # A CSV writes an empty text like a missing one.
    assert survey.time_example == (None if suffix == "csv" and not written else written)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("time_format", [None, "%Y", "unix_s"])
def test_native_instants_of_any_unit_need_no_format(
    tmp_path: Path, unit: str, time_format: str | None
) -> None:
    column = pa.array(hours(8), pa.timestamp(unit))
    assert times(tmp_path, column, time_format=time_format) == ([EIGHT], 0)


def test_a_date_is_its_midnight(tmp_path: Path) -> None:
    assert times(tmp_path, pa.array([date(2025, 9, 19)], pa.date32())) == ([0], 0)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_native_instants_with_a_zone_are_converted_to_ours(tmp_path: Path, unit: str) -> None:
    """Pandas writes ns: read as plain timestamps they would stay in UTC, eight hours off."""
    column = pa.array([datetime(2025, 9, 19, tzinfo=UTC)], pa.timestamp(unit, "Europe/Berlin"))
    assert times(tmp_path, column, time_zone="Asia/Shanghai") == ([EIGHT], 0)


@pytest.mark.parametrize(
    "written",
    ["2025-09-19 00:00:00Z", "2025-09-19T00:00:00+00:00", "2025-09-18 19:00:00-05",
     "2025-09-19 02:00:00 Europe/Berlin", "2025-09-19T08:00:00.000+08:00"],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_text_with_an_offset_is_the_instant_that_it_names(
    tmp_path: Path, suffix: str, written: str
) -> None:
    assert times(tmp_path, [written], suffix, time_zone="Asia/Shanghai") == ([EIGHT], 0)


def test_a_pattern_with_an_offset_is_the_instant_that_it_names(tmp_path: Path) -> None:
    found = times(
        tmp_path, ["20250919 0200 +0200"], time_format="%Y%m%d %H%M %z", time_zone="Asia/Shanghai"
    )
    assert found == ([EIGHT], 0)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize(
    ("zone", "day", "change", "hours_of_day", "kind"),
    [
        ("Europe/Berlin", "2025-03-30", "2025-03-30T01:00", 23, "skipped"),
        ("Europe/Berlin", "2025-10-26", "2025-10-26T01:00", 25, "repeated"),
        ("Pacific/Auckland", "2025-09-28", "2025-09-27T14:00", 23, "skipped"),
        ("Pacific/Auckland", "2025-04-06", "2025-04-05T14:00", 25, "repeated"),
    ],
)
def test_days_of_23_and_25_hours_leave_a_gap_or_share_their_steps(
    tmp_path: Path, nodes: Path, suffix: str, zone: str, day: str, change: str,
    hours_of_day: int, kind: str,
) -> None:  # fmt: skip
    """One record at each hour of the absolute clock, for two days around the change."""
    first = np.datetime64(change) - np.timedelta64(30, "h")
    instants = [
        (first + np.timedelta64(hour, "h")).astype(datetime).replace(tzinfo=UTC)
        for hour in range(60)
    ]
    column = pa.array(instants, pa.timestamp("ms", "UTC"))
    records = write(tmp_path / f"r.{suffix}", {"id": [1] * 60, "t": column, "v": [1.0] * 60})
    axis = TimeAxis.of_days(np.datetime64(day), 1, 60, zone)
    found, counts = series(source(records, nodes, time_zone=zone), axis)
    (changed,) = axis.clock_changes
    assert (changed.kind, changed.stop_step - changed.first_step) == (kind, 1)
    expected = {(step, 1): 1.0 for step in range(24)}
    if kind == "skipped":
        del expected[changed.first_step, 1]
    else:
        expected[changed.first_step, 1] = 2.0
    assert found == expected
    assert (counts.used, counts.repeated) == (hours_of_day, hours_of_day - len(expected))


def test_last_takes_the_latest_instant_within_a_step(tmp_path: Path, nodes: Path) -> None:
    columns = {"id": [1] * 3, "t": hours(0.9, 0.1, 0.5), "v": [1.0, 3.0, 2.0]}
    for suffix in ("parquet", "csv"):
        of = source(write(tmp_path / f"r.{suffix}", columns), nodes)
        assert series(of, aggregate="last")[0] == {(0, 1): 1.0}


# --- values and filters ---------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_what_is_no_number_is_counted(tmp_path: Path, nodes: Path, suffix: str) -> None:
    written = ["1", "", None, "nan", "inf", "-inf", "1e300", "many", "0.1", "-2"]
    count = len(written)
    columns = {"id": [1] * count, "t": hours(*range(count)), "v": written}
    found, counts = series(source(write(tmp_path / f"r.{suffix}", columns), nodes))
    assert found == {(0, 1): 1.0, (8, 1): float(np.float32(0.1)), (9, 1): -2.0}
    assert counts == RecordCounts(read=count, used=3, not_a_number=7)


def test_native_numbers_of_every_kind_are_read(tmp_path: Path, nodes: Path) -> None:
    for kind in (pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.decimal128(9, 2)):
        column = pa.array([1, None], pa.int8()).cast(kind)
        columns = {"id": [1, 1], "t": hours(0, 1), "v": column}
        found, counts = series(source(write(tmp_path / "r.parquet", columns), nodes))
        assert (found, counts.not_a_number) == ({(0, 1): 1.0}, 1), kind
    floats = pa.array([float("nan"), float("inf"), 1e300])
    columns = {"id": [1] * 3, "t": hours(0, 1, 2), "v": floats}
    found, counts = series(source(write(tmp_path / "r.parquet", columns), nodes))
    assert (found, counts.not_a_number) == ({}, 3)


def test_a_city_code_filters_records_and_nodes(tmp_path: Path) -> None:
    table = write(
        tmp_path / "n.csv",
        {"id": [1, 2], "adcode": ["330100", "0101"], "lat": [1.0, 1.0], "lng": [2.0, 2.0]},
    )
    for codes in ([330100, 310000], ["330100", "310000"]):
        columns = {"id": [1, 1], "t": hours(0, 1), "v": [1.0, 2.0], "adcode": codes}
        for suffix in ("parquet", "csv"):
            of = source(write(tmp_path / f"r.{suffix}", columns), table, adcode="330100")
            assert series(of) == ({(0, 1): 1.0}, RecordCounts(read=1, used=1))
            assert of.survey().records == 1
            assert of.read_nodes().keys[0].tolist() == [1]


def test_a_node_table_without_cities_is_all_of_one(tmp_path: Path, nodes: Path) -> None:
    records = write(tmp_path / "r.parquet", {**RECORDS, "adcode": ["a", "b", "a", "a"]})
    assert series(source(records, nodes, adcode="a"))[0] == {(0, 1): 0.5, (23, 1): 3.0}


@pytest.mark.parametrize(
    "hostile", ["' OR '1'='1", "a' OR true --", "'; DROP TABLE r; --", "%", ""]
)
def test_a_hostile_city_code_is_a_city_that_is_not_there(
    tmp_path: Path, nodes: Path, hostile: str
) -> None:
    records = write(tmp_path / "r.parquet", {**RECORDS, "adcode": ["a"] * 3 + ["b"]})
    survey = source(records, nodes, adcode=hostile).survey()
    assert (survey.records, survey.first) == (0, None)
    assert records.exists()


def test_a_city_code_is_met_as_it_is_written(tmp_path: Path, nodes: Path) -> None:
    hostile = "it's; --"
    records = write(tmp_path / "r.parquet", {**RECORDS, "adcode": [hostile] * 3 + ["b"]})
    assert source(records, nodes, adcode=hostile).survey().records == 3


# --- the survey and the stretch -------------------------------------------------------------------


def test_the_survey_counts_all_and_bounds_what_has_a_time(tmp_path: Path, nodes: Path) -> None:
    columns = {"id": [1, 9, None], "t": [*hours(5, 3), None], "v": [None, 1.0, 1.0]}
    for suffix in ("parquet", "csv"):
        survey = source(write(tmp_path / f"r.{suffix}", columns), nodes).survey()
        assert (survey.records, survey.without_time) == (3, 1)
        assert (survey.first, survey.last) == tuple(np.datetime64(t, "ms") for t in hours(3, 5))


@pytest.mark.parametrize("kind", [pa.timestamp("s"), pa.timestamp("us"), pa.date32(), pa.string()])
def test_a_survey_by_statistics_is_that_of_a_scan(
    tmp_path: Path, nodes: Path, kind: pa.DataType
) -> None:
    instants = pa.array([*hours(-30, 5, 11.5), None, None, *hours(700)], pa.timestamp("us"))
    columns = {"id": [1] * 6, "t": instants.cast(kind, safe=False), "v": [1.0] * 6}
    for with_statistics in (True, False):
        path = tmp_path / f"{with_statistics}.parquet"
        pq.write_table(pa.table(columns), path, row_group_size=2, write_statistics=with_statistics)
        of = source(path, nodes)
        told = of._relation.surveys_by_statistics(of._record_files.sql_paths)
        assert (told is not None) == (with_statistics and kind != pa.string())
        assert told in (None, of._relation.surveys())
        assert of.survey() == of._relation.survey()


def test_a_stretch_holds_its_first_instant_and_not_its_last(tmp_path: Path, nodes: Path) -> None:
    columns = {"id": [1] * 4, "t": hours(1.999, 2, 3.999, 4), "v": [1.0, 2.0, 4.0, 8.0]}
    of = source(write(tmp_path / "r.parquet", columns), nodes)
    index = locate(of.read_nodes()).index
    blocks = list(of.read_blocks(index, AXIS, 2, 4, in_order=True))
    placed = sorted(
        (int(s), float(v)) for b in blocks for s, v in zip(b.step, b.value, strict=True)
    )
    assert placed == [(0, 2.0), (1, 4.0)]
    assert {type(b.instant_ms) for b in blocks} == {np.ndarray}


def test_it_describes_files_and_sizes(tmp_path: Path, nodes: Path) -> None:
    records = write(tmp_path / "r.parquet", RECORDS)
    described = source(records, nodes).describe()
    assert described["records"][0]["file"] == str(records)
    assert described["records"][0]["bytes"] == records.stat().st_size
    assert described["nodes"][0]["file"] == str(nodes)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "flag"),
    [
        ({"node_columns": ("id", "nope")}, "--node-columns"),
        ({"time_column": "nope"}, "--time-column"),
        ({"value_column": "nope"}, "--value-column"),
        ({"adcode": "1", "adcode_column": "nope"}, "--adcode-column"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_missing_column_of_the_records_is_named_with_those_there(
    tmp_path: Path, nodes: Path, suffix: str, setting: dict[str, Any], flag: str
) -> None:
    of = source(write(tmp_path / f"r.{suffix}", RECORDS), nodes, **setting)
    with pytest.raises(ColumnError) as caught:
        of.survey()
    message = str(caught.value)
    assert "No column 'nope' in the records" in message
    assert "Columns there: id, t, v." in message
    assert flag in message


@pytest.mark.parametrize(
    ("setting", "missing", "flag"),
    [
        ({"node_columns": ("nope",)}, "nope", "--node-columns"), ({}, "lat", "--lat-column"),
        ({"latitude_column": "y"}, "lng", "--lng-column"),
        ({"latitude_column": "nope"}, "nope", "--lat-column"),
        ({"latitude_column": "y", "longitude_column": "nope"}, "nope", "--lng-column"),
    ],
)  # fmt: skip
def test_a_missing_column_of_the_node_table_is_named_with_those_there(
    tmp_path: Path, setting: dict[str, Any], missing: str, flag: str
) -> None:
    table = write(tmp_path / "n.csv", {"id": [1], "y": [1.0], "x": [2.0]})
    with pytest.raises(ColumnError) as caught:
        source(tmp_path / "r.csv", table, **setting).read_nodes()
    message = str(caught.value)
    assert f"No column '{missing}' in the node table" in message
    assert "Columns there: id, y, x." in message
    assert flag in message


@pytest.mark.parametrize("column", [[1758240000], [1.5], [True]])
def test_a_number_is_no_time_and_the_ways_out_are_named(
    tmp_path: Path, nodes: Path, column: list[Any]
) -> None:
    records = write(tmp_path / "r.parquet", {"id": [1], "t": column, "v": [1.0]})
    with pytest.raises(
        ColumnError, match=r"Column 't' of .* not a time.*unix_s.*Columns there: id"
    ):
        source(records, nodes).survey()


@pytest.mark.parametrize("pattern", ["%Q", "%"])
def test_a_pattern_that_is_none_is_misuse(tmp_path: Path, nodes: Path, pattern: str) -> None:
    records = write(tmp_path / "r.csv", RECORDS)
    with pytest.raises(SettingsError, match=f"Bad --time-format '{pattern}'.*strptime.*unix_s"):
        source(records, nodes, time_format=pattern).survey()


def test_a_truncated_parquet_file_is_named(tmp_path: Path, nodes: Path) -> None:
    records = write(tmp_path / "r.parquet", RECORDS)
    records.write_bytes(records.read_bytes()[:-20])
    with pytest.raises(SourceError, match=r"Cannot read '.*r.parquet'"):
        source(records, nodes).survey()


def test_a_parquet_file_with_damaged_pages_is_named(tmp_path: Path, nodes: Path) -> None:
    columns = {
        "id": [1] * 5000,
        "t": hours(*range(5000)),
        "v": np.random.default_rng(1).random(5000),
    }
    records = write(tmp_path / "r.parquet", columns)
    content = bytearray(records.read_bytes())
    content[4 : len(content) // 2] = b"\xff" * (len(content) // 2 - 4)
    records.write_bytes(content)
    with pytest.raises(SourceError, match=r"Cannot read '.*r.parquet'"):
        series(source(records, nodes))


def test_a_csv_of_another_encoding_says_so(tmp_path: Path, nodes: Path) -> None:
    (tmp_path / "r.csv").write_bytes("id,t,v\n杭州,2025-09-19 08:00,1\n".encode("gbk"))
    with pytest.raises(SourceError, match=r"Cannot read '.*r.csv'.*utf-8"):
        source(tmp_path / "r.csv", nodes).survey()


def test_a_line_of_a_csv_with_too_few_fields_is_named(tmp_path: Path, nodes: Path) -> None:
    lines = ["id,t,v"] + ["1,2025-09-19 08:00:00,1"] * 30_000 + ["1,2025-09-19 08:00:00"]
    (tmp_path / "r.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(SourceError, match=r"Line: 30002.*Expected Number of Columns: 3"):
        source(tmp_path / "r.csv", nodes).survey()


def test_an_empty_csv_has_no_column(tmp_path: Path, nodes: Path) -> None:
    (tmp_path / "r.csv").touch()
    with pytest.raises(ColumnError, match="No column 'id'"):
        source(tmp_path / "r.csv", nodes).survey()


def test_semicolons_and_a_byte_order_mark_are_understood(tmp_path: Path, nodes: Path) -> None:
    lines = ["\ufeffid;t;v", "1;2025-09-19 08:00;1", "2;2025-09-19 09:00;2"]
    (tmp_path / "r.csv").write_text("\n".join(lines), encoding="utf-8")
    assert series(source(tmp_path / "r.csv", nodes))[0] == {(8, 1): 1.0, (9, 2): 2.0}
