"""CSV files read by compiled loops: the same records as DuckDB reads, whatever the lines hold."""

import os
import signal
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowpatch.errors import SourceError
from flowpatch.interruption import StopAskedError, noting_interruption
from flowpatch.series.nodes import locate
from flowpatch.sources import files, plain_csv, put_aside
from flowpatch.sources.columns import RecordColumns
from flowpatch.sources.contract import Survey
from flowpatch.sources.files import FilesSource
from flowpatch.sources.plain_csv import PlainCsv
from flowpatch.time_axis import TimeAxis

AXIS = TimeAxis.of_days(np.datetime64("2025-02-27"), 3, 5)
NODES = [7, 8, -9, 0, 123456789012345678, 2**63 - 1]
GOOD = ("7", "2025-02-28 08:00:00", "1.5")

KEYS = [
    *map(str, NODES), "007", "-0", "+7", " 7", "7 ", "7.0", "7.6", "7e0", "", "x", "1_0", "-",
    "9999999999999999999", "0x7", '"7"', "'7'", "七", "NULL", "#7",
]  # fmt: skip
INSTANTS = [
    "2025-02-28 23:59:59", "2025-02-28T00:00:00", "2025-02-29 00:00:00", "2024-02-29 00:00:00",
    "2025-02-30 00:00:00", "1900-02-29 00:00:00", "2000-02-29 12:00:00", "2025-04-31 00:00:00",
    "2025-02-28 24:00:00", "2025-02-28 08:60:00", "2025-02-28 08:00:60", "2025-02-28 08:00",
    "2025-2-28 8:00:00", "2025-02-28 08:00:00.999", "2025-02-28 08:00:00Z", "1970-01-01 00:00:00",
    "2025-02-28 08:00:00+08", "2025-02-28 08:00:00 Europe/Berlin", "0001-01-01 00:00:00",
    "0000-01-01 00:00:00", "9999-12-31 23:59:59", "2025-13-01 00:00:00", "2025-00-01 00:00:00",
    "2025-01-00 00:00:00", "2025/02/28 08:00:00", " 2025-02-28 08:00:00", "2025-02-28  8:00:00",
    "2025-02-28_08:00:00", "-025-02-28 08:00:00", "2025-02-28", "infinity", "", "noon",
    '"2025-02-28 08:00:00"', "2025-02-28 08:00:0:", "1969-12-31 23:59:59",
]  # fmt: skip
VALUES = [
    "0", "-0", "3", "-3", "00003", "", "nan", "inf", "-inf", "1e3", "1E-3", ".5", "5.", "+5", " 5",
    "5 ", "-", "-.5", "1.2.3", "1,5", "16777217", "16777219", "9007199254740993", "0.1", "-12.345",
    "16777217.0000", "1.000000059604644775390625", "1.00000005960464477", "0.00000000000000001",
    "99999999999999999", "123456789012345678901234567890", "1e300", "1_000", "many", "0.30000001",
    '"5"', "5%", "NULL",
]  # fmt: skip


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled loops from the first byte on, and chunks of a few lines."""
    monkeypatch.setattr(files, "COPY_BYTES", 0)
    monkeypatch.setattr(files, "PLAIN_BYTES", 0)
    monkeypatch.setattr(plain_csv, "CHUNK_BYTES", 300)


def write_nodes(folder: Path, keys: Sequence[object] = NODES) -> Path:
    lines = [f"{key},{key},{'' if key == 8 else 1},2" for key in keys]
    path = folder / "nodes.csv"
    path.write_text("\n".join(["id,to,lat,lng", *lines]) + "\n")
    return path


def open_source(
    place: Path, nodes: Path, node_columns: tuple[str, ...] = ("id",), **changes: Any
) -> FilesSource:
    columns = RecordColumns(
        node_columns=node_columns,
        time_column="t",
        value_column="v",
        time_zone="Asia/Shanghai",
        **changes,
    )
    return FilesSource(str(place), str(nodes), columns, scratch=nodes.parent)


Records = list[tuple[int, int, int, int]]


def read(of: FilesSource, in_order: bool) -> tuple[Survey | str, Records, bool]:
    """The survey, all records of two stretches, and whether they were read by compiled loops.

    Where the source cannot be read, that comes in place of the survey. Which of several bad lines
    or instants DuckDB shows is by chance.
    """
    with closing(of):
        index = locate(of.read_nodes()).index
        try:
            survey = of.survey()
            survey = replace(survey, time_example=survey.time_example and "one")
            found = [
                (first + step, node, value, instant)
                for first, stop in ((0, 300), (300, AXIS.length))
                for block in of.read_blocks(index, AXIS, first, stop, in_order=in_order)
                for step, node, value, instant in zip(
                    block.step.tolist(),
                    block.node.tolist(),
                    np.where(np.isnan(block.value), np.float32(np.nan), block.value)
                    .view(np.int32)
                    .tolist(),
                    (block.step if block.instant_ms is None else block.instant_ms).tolist(),
                    strict=True,
                )
            ]
        except SourceError:
            return "an error", [], False
        return survey, sorted(found), isinstance(of._readable, PlainCsv)


def read_carefully(of: FilesSource, in_order: bool) -> tuple[Survey | str, Records]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "COPY_BYTES", 2**60)
        return read(of, in_order)[:2]


ROWS = st.lists(
    st.one_of(
        st.just(GOOD),
        st.tuples(st.just("7"), st.sampled_from(INSTANTS), st.just("1")),
        st.tuples(st.sampled_from(KEYS), st.just(GOOD[1]), st.just("1")),
        st.tuples(st.just("7"), st.just(GOOD[1]), st.sampled_from(VALUES)),
        st.tuples(
            st.sampled_from(KEYS),
            st.datetimes().map(lambda t: f"{t:%Y-%m-%d %H:%M:%S}".rjust(19, "0")),
            st.decimals(allow_nan=False, allow_infinity=False, places=4).map(str),
        ),
        st.tuples(st.just("7"), st.just(GOOD[1]), st.from_regex(r"-?\d{1,12}(\.\d{1,12})?\Z")),
        st.tuples(st.just("7"), st.just(GOOD[1]), st.floats(width=32).map(repr)),
    ),
    max_size=30,
)


@pytest.mark.usefixtures("always")
@settings(max_examples=60, deadline=None)
@given(
    rows=ROWS,
    order=st.permutations(["id", "to", "t", "v", "note"]),
    delimiter=st.sampled_from([",", ",", ",", ";", "\t", "|"]),
    line_end=st.sampled_from(["\n", "\n", "\r\n"]),
    note=st.sampled_from(["", "x", "é 杭", "it's", 'say "x"', "-"]),
    keys=st.sampled_from([("id",), ("id", "to")]),
    strange=st.lists(st.sampled_from(["", "7", " ", "\r", ",,,,,,", '"', "7\r"]), max_size=1),
    ended=st.booleans(),
    cut=st.booleans(),
    in_order=st.booleans(),
)
@example(
    rows=[("7", GOOD[1], value) for value in VALUES], order=["id", "to", "t", "v", "note"],
    delimiter=";", line_end="\n", note="", keys=("id",), strange=[], ended=True, cut=False,
    in_order=False,
)  # fmt: skip
@example(
    rows=[("7", instant, "1") for instant in INSTANTS], order=["v", "t", "id", "note", "to"],
    delimiter=",", line_end="\r\n", note="x", keys=("id",), strange=[""], ended=False, cut=True,
    in_order=True,
)  # fmt: skip
@example(
    rows=[(key, GOOD[1], "1") for key in KEYS], order=["t", "id", "to", "note", "v"],
    delimiter=",", line_end="\n", note="x", keys=("id", "to"), strange=[], ended=False, cut=True,
    in_order=False,
)  # fmt: skip
def test_it_reads_what_duckdb_reads(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]], order: list[str],
    delimiter: str, line_end: str, note: str, keys: tuple[str, ...], strange: list[str],
    ended: bool, cut: bool, in_order: bool,
) -> None:  # fmt: skip
    """Plain and odd lines mixed, columns in any order, in one file or two."""
    folder = tmp_path_factory.mktemp("csv")
    lines = []
    for key, instant, value in [*[GOOD] * 40, *rows, GOOD]:
        fields = {"id": key, "to": key, "t": instant, "v": value, "note": note}
        lines.append(delimiter.join(fields[name] for name in order))
    lines[50:50] = strange
    parts = [lines[:45], lines[45:]] if cut else [lines]
    (folder / "r").mkdir()
    for i, part in enumerate(parts):
        written = line_end.join([delimiter.join(order), *part]) + line_end * ended
        (folder / f"r/{i}.csv").write_bytes(written.encode())
    nodes = write_nodes(folder)
    expected = read_carefully(open_source(folder / "r", nodes, keys), in_order)
    assert read(open_source(folder / "r", nodes, keys), in_order)[:2] == expected
    assert {path.name for path in folder.iterdir()} == {"r", "nodes.csv"}


def write_lines(folder: Path, lines: Sequence[str], line_end: str = "\n") -> Path:
    path = folder / "r.csv"
    path.write_bytes(line_end.join(["id,t,v", *lines, ""]).encode())
    return path


PLAIN = ["7,2025-02-28 08:00:00,1.25", "8,2025-02-27T00:00:00,", "5,2024-02-29 23:59:59,-3"] * 50
ODD = ["7,2025-02-28 08:00:00Z,1", "7.0,2025-02-28 08:00:00,1e3", "", "7,noon,1"]


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("odd", [[], ODD])
def test_plain_files_are_read_by_compiled_loops(
    tmp_path: Path, line_end: str, odd: list[str]
) -> None:
    """The comparison above would mean nothing otherwise."""
    nodes = write_nodes(tmp_path)
    place = write_lines(tmp_path, [*PLAIN, *odd, *PLAIN], line_end)
    survey, found, compiled = read(open_source(place, nodes), in_order=True)
    assert compiled
    assert (survey, found) == read_carefully(open_source(place, nodes), in_order=True)
    assert isinstance(survey, Survey)
    assert survey.records == 300 + 3 * bool(odd)
    assert survey.time_example == ("one" if odd else None)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(
    ("lines", "changes"),
    [
        ([*PLAIN, '"7",2025-02-28 08:00:00,1'], {}), (PLAIN, {"adcode": "1", "adcode_column": "v"}),
        (PLAIN, {"time_format": "%Y-%m-%d %H:%M:%S"}), ([*PLAIN, "x" * 400], {}),
        ([*PLAIN, "7,2025-02-28 08:00:00,1\r"], {}), ([*PLAIN, "7,2025-02-28 08:00:00,1,1"], {}),
        ([*PLAIN, "7,2025-02-28 08:00:00,\udcff".encode("utf-8", "surrogateescape")], {}),
    ],
)  # fmt: skip
def test_files_that_are_not_plain_are_left_to_duckdb(
    tmp_path: Path, lines: list[str | bytes], changes: dict[str, Any]
) -> None:
    nodes = write_nodes(tmp_path)
    place = tmp_path / "r.csv"
    encoded = [line if isinstance(line, bytes) else line.encode() for line in lines]
    place.write_bytes(b"\n".join([b"id,t,v", *encoded]))
    *found, compiled = read(open_source(place, nodes, **changes), in_order=False)
    assert not compiled
    assert tuple(found) == read_carefully(open_source(place, nodes, **changes), in_order=False)


@pytest.mark.usefixtures("always")
def test_a_column_that_is_a_folder_is_left_to_duckdb(tmp_path: Path) -> None:
    nodes = write_nodes(tmp_path)
    (tmp_path / "r/id=8").mkdir(parents=True)
    place = write_lines(tmp_path / "r/id=8", PLAIN)
    *found, compiled = read(open_source(place, nodes), in_order=False)
    assert not compiled
    assert tuple(found) == read_carefully(open_source(place, nodes), in_order=False)


@pytest.mark.usefixtures("always")
def test_many_odd_lines_are_left_to_duckdb_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plain_csv, "_SHARE_FROM", 1)
    nodes = write_nodes(tmp_path)
    place = write_lines(tmp_path, [*PLAIN, *ODD * 10])
    *found, compiled = read(open_source(place, nodes), in_order=False)
    assert not compiled
    assert "lines hold unusual keys, instants or values" in capsys.readouterr().err
    assert tuple(found) == read_carefully(open_source(place, nodes), in_order=False)
    assert {path.name for path in tmp_path.iterdir()} == {"r.csv", "nodes.csv"}


@pytest.mark.usefixtures("always")
def test_a_full_disk_is_an_error_that_says_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(of: put_aside.PutAside, added: put_aside.DayRows, part: str) -> None:
        of._file.close()
        of._file = open("/dev/full", "wb", buffering=0)  # noqa: PTH123, SIM115
        add(of, added, part)

    if not Path("/dev/full").exists():
        pytest.skip("this system has no device that is always full")
    add = put_aside.PutAside.add
    monkeypatch.setattr(put_aside.PutAside, "add", full)
    of = open_source(write_lines(tmp_path, PLAIN), write_nodes(tmp_path))
    with pytest.raises(SourceError, match=r"Cannot put records aside in .*No space left.*12 bytes"):
        of.survey()
    of.close()
    assert {path.name for path in tmp_path.iterdir()} == {"r.csv", "nodes.csv"}


@pytest.mark.usefixtures("always")
def test_a_stop_leaves_nothing_behind(tmp_path: Path) -> None:
    of = open_source(write_lines(tmp_path, PLAIN * 10), write_nodes(tmp_path))
    with noting_interruption(), closing(of):
        of.read_nodes()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(StopAskedError):
            of.survey()
    assert {path.name for path in tmp_path.iterdir()} == {"r.csv", "nodes.csv"}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.from_regex(r"\A-?\d{1,18}(\.\d{1,18})?\Z"), min_size=1, max_size=20))
def test_values_are_the_nearest_float32(
    tmp_path_factory: pytest.TempPathFactory, written: list[str]
) -> None:
    """Equal to the last bit to what DuckDB casts; digits too many for that are odd."""
    folder = tmp_path_factory.mktemp("values")
    path = folder / "v"
    path.write_text("\n".join(written) + "\n")
    data = np.frombuffer(path.read_bytes() + b"\n\n", dtype=np.uint8)
    count = len(written)
    one, two, instant_s = np.empty((3, count), dtype=np.int64)
    value, odd = np.empty(count, dtype=np.float32), np.empty((count, 2), dtype=np.int64)
    plain, odds = plain_csv.parse(
        data, len(data) - 2, ord(","), False, np.array([plain_csv.VALUE]), one, two, instant_s,
        value, odd,
    )  # fmt: skip
    odd_lines = {data[begin : stop - 1].tobytes().decode() for begin, stop in odd[:odds].tolist()}
    read_plainly = [text for text in written if text not in odd_lines]
    assert len(read_plainly) == plain
    expected = [
        duckdb.execute("SELECT TRY_CAST(? AS FLOAT)", [text]).fetchall()[0][0]
        for text in read_plainly
    ]
    assert value[:plain].tolist() == expected


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("second", ['"7",2025-02-28 08:00:00,1', "7;2025-02-28 08:00:00;1"])
def test_a_second_file_of_another_dialect_is_left_to_duckdb(tmp_path: Path, second: str) -> None:
    nodes = write_nodes(tmp_path)
    for name, lines in (("a", PLAIN), ("b", [second] * 30)):
        (tmp_path / f"r/{name}").mkdir(parents=True)
        write_lines(tmp_path / f"r/{name}", lines)
    *found, compiled = read(open_source(tmp_path / "r", nodes), in_order=False)
    assert not compiled
    assert tuple(found) == read_carefully(open_source(tmp_path / "r", nodes), in_order=False)
