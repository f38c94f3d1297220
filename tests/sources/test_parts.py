"""Parts of a source: every engine names them, counts each, and reads those asked for alone."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowpatch.errors import SourceError
from flowpatch.maxcompute.metadata import Partition, TableInfo
from flowpatch.maxcompute.names import TableName
from flowpatch.preprocessing.build import preprocess
from flowpatch.preprocessing.settings import PreprocessSettings
from flowpatch.series.nodes import locate
from flowpatch.sources import files, maxcompute_partitions, plain_csv
from flowpatch.sources.columns import RecordColumns
from flowpatch.sources.contract import (
    NO_RECORDS,
    CellBlock,
    RecordPart,
    RecordSource,
    SourcePart,
    Survey,
)
from flowpatch.sources.files import FilesSource
from flowpatch.sources.maxcompute import MaxComputeSource
from flowpatch.sources.maxcompute_partitions import parts_of
from flowpatch.sources.plain_csv import PlainCsv
from flowpatch.store.sample_store import SampleStore
from flowpatch.time_axis import TimeAxis
from maxcompute_city import Service

AXIS = TimeAxis.of_days(np.datetime64("2025-09-19"), 6, 30)
NODES = [1, 2, 3]
Row = tuple[int, datetime | None, int | None]
"""Key, instant, value; None where the record has none."""
CITY, OTHER_CITY = "110000", "120000"


def rows_of(day: int, count: int, seed: int) -> list[Row]:
    """Records of a day and, a few, of the next one; some without an instant or a value."""
    generator = np.random.default_rng(seed)
    begin = datetime(2025, 9, 19) + timedelta(days=day)
    minutes = generator.integers(0, 26 * 60, count)
    keys = generator.choice([*NODES, 9], count)
    return [
        (
            int(keys[i]),
            None if i % 13 == 5 else begin + timedelta(minutes=int(minutes[i])),
            None if i % 17 == 3 else int(generator.integers(0, 50)),
        )
        for i in range(count)
    ]


PARTS = {
    "20250919": rows_of(0, 60, 1),
    "20250920": rows_of(1, 45, 2),
    "20250921": [],
    "20250922": [(1, None, 3), (2, None, 4)],
    "20250923": rows_of(4, 30, 3),
}
NEW_ROWS = rows_of(1, 33, 9)
CHANGED = "20250920"


def counted(rows: Iterable[Row]) -> Survey:
    """What a survey should find, by a plain count."""
    rows = list(rows)
    instants = [np.datetime64(instant, "ms") for _, instant, _ in rows if instant is not None]
    return Survey(
        len(rows),
        len(rows) - len(instants),
        min(instants, default=None),
        max(instants, default=None),
    )


def shorn(survey: Survey | None) -> Survey:
    """Without the example: what it is depends on how instants are written."""
    assert survey is not None
    return replace(survey, time_example=None)


Cells = dict[tuple[int, int], tuple[float, int]]


def cells_of(*sources: RecordSource) -> Cells:
    """(step, node) -> sum and number of the values, over all of the sources together."""
    cells: Cells = {}
    for source in sources:
        with closing(source):
            index = locate(source.read_nodes()).index
            for first, stop in ((0, 96), (96, AXIS.length)):
                for found in source.read_blocks(index, AXIS, first, stop, in_order=False):
                    for block in found.read() if isinstance(found, RecordPart) else (found,):
                        used = np.isfinite(block.value).astype(int)
                        if isinstance(block, CellBlock):
                            used = block.used
                        for step, node, value, count in zip(
                            block.step, block.node, np.nan_to_num(block.value), used, strict=True
                        ):
                            if node < 0:
                                continue
                            place = (first + int(step), int(node))
                            old, before = cells.get(place, (0.0, 0))
                            cells[place] = (old + float(value), before + int(count))
    return {place: (value, count) for place, (value, count) in cells.items() if count}


def cells_in(rows: Iterable[Row]) -> Cells:
    """What `cells_of` should find."""
    cells: Cells = {}
    start = datetime(2025, 9, 19)
    for key, instant, value in rows:
        if key in NODES and instant is not None and value is not None:
            place = (int((instant - start) / timedelta(minutes=30)), NODES.index(key))
            old, before = cells.get(place, (0.0, 0))
            cells[place] = (old + value, before + 1)
    return cells


@dataclass
class Place:
    """Records in parts: `rows` those of each part, by its name; `write` puts others there."""

    open: Callable[[], RecordSource]
    rows: dict[str, list[Row]]
    write: Callable[[str, list[Row]], None]
    changed: str
    spoil_others: Callable[[str], None]
    """Makes every part but one unreadable, or makes sure in the end that it was not read."""


class PartsTests:
    """What every engine must do; subclasses give the place."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        raise NotImplementedError

    def test_every_part_is_named_in_order_and_nothing_is_surveyed(self, place: Place) -> None:
        with closing(place.open()) as source:
            parts = source.parts()
        assert [part.name for part in parts] == sorted(place.rows)
        assert {part.survey for part in parts} == {None}
        assert all(part.identity for part in parts)

    def test_each_part_holds_what_a_plain_count_finds(self, place: Place) -> None:
        with closing(place.open()) as source:
            found = {part.name: shorn(part.survey) for part in source.surveyed_parts()}
            assert found == {name: counted(rows) for name, rows in place.rows.items()}
            states = [(part.name, part.identity) for part in source.surveyed_parts()]
            assert states == [(part.name, part.identity) for part in source.parts()]

    def test_the_survey_is_the_sum_of_the_parts(self, place: Place) -> None:
        with closing(place.open()) as source:
            surveys = [part.survey for part in source.surveyed_parts()]
            assert sum(filter(None, surveys), NO_RECORDS) == source.survey()
            everything = [row for rows in place.rows.values() for row in rows]
            assert shorn(source.survey()) == counted(everything)

    def test_only_the_part_that_was_written_has_another_state(self, place: Place) -> None:
        with closing(place.open()) as source:
            before = {part.name: part.identity for part in source.surveyed_parts()}
            place.write(place.changed, NEW_ROWS)
            now = {part.name: part.identity for part in source.parts()}
            assert now == before, "the state is that from before reading"
        with closing(place.open()) as source:
            after = {part.name: part.identity for part in source.parts()}
            found = {part.name: shorn(part.survey) for part in source.surveyed_parts()}
        assert {name for name in after if after[name] != before[name]} == {place.changed}
        assert found[place.changed] == counted(NEW_ROWS)

    def test_an_unchanged_source_has_the_same_state(self, place: Place) -> None:
        with closing(place.open()) as one, closing(place.open()) as two:
            one.survey()
            assert one.parts() == two.parts()
            assert one.surveyed_parts() == two.surveyed_parts()

    def test_one_part_alone_is_that_part(self, place: Place) -> None:
        for name in place.rows:
            with closing(place.open()) as source, closing(source.only([name])) as alone:
                (part,) = alone.surveyed_parts()
                assert (part.name, shorn(part.survey)) == (name, counted(place.rows[name]))
                assert shorn(alone.survey()) == counted(place.rows[name])
                state = {each.name: each.identity for each in source.parts()}
                assert part.identity == state[name]
                assert alone.only([name]).parts() == alone.parts()

    def test_the_parts_hold_the_records_of_the_whole(self, place: Place) -> None:
        everything = [row for rows in place.rows.values() for row in rows]
        assert cells_of(place.open()) == cells_in(everything)
        names = sorted(place.rows)
        source = place.open()
        halves = [source.only(names[::2])]
        halves += [source.only(set(names[1::2]))] if names[1::2] else []
        source.close()
        assert cells_of(*halves) == cells_in(everything)

    def test_what_is_not_asked_for_is_not_read(self, place: Place) -> None:
        with closing(place.open()) as source:
            alone = source.only([place.changed])
        place.spoil_others(place.changed)
        assert shorn(alone.survey()) == counted(place.rows[place.changed])
        assert cells_of(alone) == cells_in(place.rows[place.changed])
        place.spoil_others(place.changed)

    def test_a_source_outlives_what_was_restricted_from_it(self, place: Place) -> None:
        with closing(place.open()) as source:
            source.survey()
            alone = source.only([place.changed])
            assert cells_of(alone) == cells_in(place.rows[place.changed])
            everything = [row for rows in place.rows.values() for row in rows]
            assert cells_of(source) == cells_in(everything)

    @pytest.mark.parametrize("names", [["no such part"], [], "", "20250920"])
    def test_a_part_that_is_not_there_is_refused(self, place: Place, names: Sequence[str]) -> None:
        with closing(place.open()) as source:
            with pytest.raises(SourceError, match="Parts there"):
                source.only(names)
            with pytest.raises(SourceError, match="has no part 'zz'"):
                source.only([place.changed, "zz"])

    def test_parts_pass_through_json(self, place: Place) -> None:
        with closing(place.open()) as source:
            for part in (*source.parts(), *source.surveyed_parts()):
                assert SourcePart.from_json(json.loads(json.dumps(part.to_json()))) == part


# --- files ----------------------------------------------------------------------------------------

Writer = Callable[[Path, list[Row]], None]


class FilesTests(PartsTests):
    """Parts that are files, `suffix` and `writer` those of the subclass."""

    suffix = "parquet"
    changes: ClassVar[dict[str, Any]] = {}

    def write_file(self, path: Path, rows: list[Row]) -> None:
        raise NotImplementedError

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        nodes = [f"{key},1,2" for key in NODES]
        (tmp_path / "nodes.csv").write_text("\n".join(["id,lat,lng", *nodes]) + "\n")
        folder = tmp_path / "records"
        rows = {}
        for day, of_day in PARTS.items():
            path = folder / f"ds={day}" / f"part.{self.suffix}"
            path.parent.mkdir(parents=True)
            self.write_file(path, of_day)
            rows[str(path)] = of_day
        columns = RecordColumns(
            node_columns=("id",), time_column="t", value_column="v", **self.changes
        )

        def spoil_others(name: str) -> None:
            for other in set(rows) - {name}:
                Path(other).write_bytes(b"\xff\xfe no record \x00")

        return Place(
            lambda: FilesSource(str(folder), str(tmp_path / "nodes.csv"), columns, tmp_path),
            rows,
            lambda name, other: self.write_file(Path(name), other),
            str(folder / f"ds={CHANGED}" / f"part.{self.suffix}"),
            spoil_others,
        )

    def test_no_engine_is_needed_to_name_the_parts(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail() -> duckdb.DuckDBPyConnection:
            raise AssertionError("a file is opened")

        monkeypatch.setattr(files, "connect", fail)
        assert len(place.open().parts()) == len(place.rows)
        assert len(place.open().only([place.changed]).parts()) == 1

    def test_a_file_that_went_away_is_missed(self, place: Place) -> None:
        with closing(place.open()) as source:
            alone = source.only([place.changed])
            Path(place.changed).unlink()
            with pytest.raises(SourceError, match="has no part"):
                alone.survey()


def table(rows: list[Row], kind: pa.DataType) -> pa.Table:
    instants = pa.array([instant for _, instant, _ in rows], pa.timestamp("ms"))
    if pa.types.is_string(kind):
        texts = [str(instant) if instant else "noon" for _, instant, _ in rows]
        column = pa.array(texts, kind)
    elif kind.tz is not None:
        column = pa.compute.assume_timezone(instants, "Asia/Shanghai").cast(kind)
    else:
        column = instants.cast(kind)
    keys, values = ([row[place] for row in rows] for place in (0, 2))
    return pa.table({"id": pa.array(keys, pa.int64()), "t": column, "v": pa.array(values, "int32")})


class TestParquet(FilesTests):
    """By statistics."""

    def write_file(self, path: Path, rows: list[Row]) -> None:
        pq.write_table(table(rows, pa.timestamp("ms")), path, row_group_size=20)


class TestRowGroups(TestParquet):
    """By statistics, then in row groups by threads."""

    @pytest.fixture(autouse=True)
    def _many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "MANY_RECORDS", 0)


class TestParquetWithoutStatistics(FilesTests):
    """By a scan."""

    def write_file(self, path: Path, rows: list[Row]) -> None:
        pq.write_table(table(rows, pa.timestamp("us")), path, write_statistics=False)


class TestParquetOfAnotherZone(FilesTests):
    """By a scan: the first instant by one clock need not be the first by another."""

    changes: ClassVar = {"time_zone": "Asia/Shanghai"}

    def write_file(self, path: Path, rows: list[Row]) -> None:
        pq.write_table(table(rows, pa.timestamp("ms", "UTC")), path)


class TestParquetOfACity(FilesTests):
    """By a scan, without the records of another city."""

    changes: ClassVar = {"adcode": CITY, "adcode_column": "city"}

    def write_file(self, path: Path, rows: list[Row]) -> None:
        strangers: list[Row] = [(1, datetime(2025, 9, 18), 1), (1, None, 1)]
        found = table([*strangers, *rows], pa.timestamp("ms"))
        cities = pa.array([OTHER_CITY] * len(strangers) + [CITY] * len(rows))
        pq.write_table(found.append_column("city", cities), path)


class TestParquetOfText(FilesTests):
    """Through a typed copy."""

    def write_file(self, path: Path, rows: list[Row]) -> None:
        pq.write_table(table(rows, pa.string()), path)

    @pytest.fixture(autouse=True)
    def _always(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "COPY_BYTES", 0)


class TestCsv(FilesTests):
    """By a scan of all files."""

    suffix = "csv"

    def write_file(self, path: Path, rows: list[Row]) -> None:
        lines = [
            f"{key},{instant or 'noon'},{'' if value is None else value}"
            for key, instant, value in rows
        ]
        path.write_text("\n".join(["id,t,v", *lines]) + "\n")


class TestCompressedCsv(TestCsv):
    """By a scan of all files."""

    suffix = "csv.gz"

    def write_file(self, path: Path, rows: list[Row]) -> None:
        super().write_file(path, rows)
        duckdb.sql(
            f"SELECT * FROM read_csv('{path}', all_varchar = true, compression = 'none', "
            "header = true)"
        ).write_csv(f"{path}.new", compression="gzip")
        Path(f"{path}.new").replace(path)


class TestCopiedCsv(TestCsv):
    """Through a typed copy."""

    @pytest.fixture(autouse=True)
    def _always(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "COPY_BYTES", 0)


class TestPlainCsv(TestCsv):
    """By compiled loops; lines without an instant are odd ones."""

    @pytest.fixture(autouse=True)
    def _always(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "COPY_BYTES", 0)
        monkeypatch.setattr(files, "PLAIN_BYTES", 0)
        monkeypatch.setattr(plain_csv, "CHUNK_BYTES", 300)

    def test_it_is_read_by_compiled_loops(self, place: Place) -> None:
        """The tests above would mean nothing otherwise."""
        with closing(place.open()) as source:
            assert isinstance(source, FilesSource)
            source.survey()
            assert isinstance(source._readable, PlainCsv)
            assert source._readable._odd is not None

    def test_every_file_may_have_an_odd_line(self, place: Place, tmp_path: Path) -> None:
        """More files than a process may hold open."""
        folder = tmp_path / "many"
        folder.mkdir()
        rows = rows_of(0, 7, 5)
        for i in range(1500):
            self.write_file(folder / f"{i}.csv", rows)
        with closing(replace(place.open(), records=str(folder))) as source:
            found = source.surveyed_parts()
            assert isinstance(source._readable, PlainCsv)
        assert len(found) == 1500
        assert {shorn(part.survey) for part in found} == {counted(rows)}


class TestFilesOfCities(TestParquet):
    """The city is a folder: files of another one are parts without records."""

    changes: ClassVar = {"adcode": CITY}

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        (tmp_path / "nodes.csv").write_text("id,lat,lng\n1,1,2\n2,1,2\n3,1,2\n")
        rows: dict[str, list[Row]] = {}
        for city in (OTHER_CITY, CITY):
            for day, of_day in PARTS.items():
                path = tmp_path / f"records/adcode={city}/{day}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                self.write_file(path, of_day)
                rows[str(path)] = of_day if city == CITY else []
        columns = RecordColumns(
            node_columns=("id",), time_column="t", value_column="v", adcode=CITY
        )
        changed = str(tmp_path / f"records/adcode={CITY}/{CHANGED}.parquet")

        def spoil_others(name: str) -> None:
            for other in set(rows) - {name}:
                Path(other).write_bytes(b"no Parquet")

        return Place(
            lambda: FilesSource(
                str(tmp_path / "records"), str(tmp_path / "nodes.csv"), columns, tmp_path
            ),
            rows,
            lambda name, other: self.write_file(Path(name), other),
            changed,
            spoil_others,
        )


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(("copy_bytes", "plain_bytes"), [(2**60, 2**60), (0, 2**60), (0, 0)])
def test_no_name_of_a_file_or_column_changes_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, copy_bytes: int, plain_bytes: int
) -> None:
    """DuckDB gives names back as they are, whatever a pattern or SQL would make of them."""
    monkeypatch.setattr(files, "COPY_BYTES", copy_bytes)
    monkeypatch.setattr(files, "PLAIN_BYTES", plain_bytes)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nodes.csv").write_text("file,lat,lng\n1,1,2\n")
    names = ["a[1]", "a1", "it's", 'say "x"', "a*b", "a?", "é 杭 #", "x=y", "{a,b}", "A1", "%s"]
    scratch = tmp_path / "r/../s[1] 'x'"
    folder = Path("r/../r dir/./ds='x'")
    folder.mkdir(parents=True)
    scratch.mkdir()
    for i, name in enumerate(names):
        instants = [str(datetime(2025, 9, 19, hour)) for hour in range(i + 1)] + ["noon"]
        count = len(instants)
        # Columns with names of our own.
        columns = {"file": [1] * count, "File_": instants, "part": [1] * count}
        path = folder / f"{name}.{suffix}"
        if suffix == "parquet":
            pq.write_table(pa.table(columns), path)
        else:
            lines = [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
            path.write_text("\n".join([",".join(columns), *lines]) + "\n")
    columns_meant = RecordColumns(node_columns=("file",), time_column="File_", value_column="part")
    for records in ("r dir", str(tmp_path / "r/../r dir"), "./r dir//*/*"):
        with closing(FilesSource(records, "nodes.csv", columns_meant, scratch)) as source:
            found = {Path(part.name).stem: part.survey for part in source.surveyed_parts()}
            assert [part.name for part in source.parts()] == sorted(
                part["file"] for part in source.describe()["records"]
            )
        for i, name in enumerate(names):
            survey = found[name]
            assert survey is not None
            assert (survey.records, survey.without_time) == (i + 2, 1)
            assert survey.last == np.datetime64("2025-09-19", "ms") + np.timedelta64(i, "h")
            assert survey.time_example == "noon"


def test_of_several_bad_instants_always_the_same_is_shown(tmp_path: Path) -> None:
    """It is kept in the manifest, which depends on nothing but the records and settings."""
    (tmp_path / "nodes.csv").write_text("id,lat,lng\n1,1,2\n")
    lines = [f"1,{word},1" for word in ("noon", "dawn", "dusk", "eve")]
    (tmp_path / "r.csv").write_text("\n".join(["id,t,v", *lines, "1,2025-09-19,1"]) + "\n")
    columns = RecordColumns(node_columns=("id",), time_column="t", value_column="v")
    for copy_bytes in (2**60, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "COPY_BYTES", copy_bytes)
            patch.setattr(files, "PLAIN_BYTES", copy_bytes)
            source = FilesSource(str(tmp_path / "r.csv"), str(tmp_path / "nodes.csv"), columns)
            with closing(source):
                assert source.survey() == Survey(
                    5, 4, *[np.datetime64("2025-09-19", "ms")] * 2, "dawn"
                )


INSTANTS = st.one_of(
    st.none(), st.datetimes(datetime(2025, 1, 1), datetime(2025, 12, 31)).map(
        lambda instant: instant.replace(microsecond=0)
    ),
)  # fmt: skip
ROWS = st.lists(st.tuples(st.sampled_from([1, 9]), INSTANTS, st.integers(0, 9)), max_size=20)


@settings(max_examples=30, deadline=None)
@given(
    parts=st.lists(ROWS, min_size=1, max_size=4),
    engine=st.sampled_from([TestParquet, TestParquetWithoutStatistics, TestCsv, TestPlainCsv]),
)
def test_parts_add_up_to_one_file_of_all(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[Row]], engine: type[FilesTests]
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    (folder / "nodes.csv").write_text("id,lat,lng\n1,1,2\n")
    columns = RecordColumns(node_columns=("id",), time_column="t", value_column="v")
    with pytest.MonkeyPatch.context() as patch:
        if engine is TestPlainCsv:
            patch.setattr(files, "COPY_BYTES", 0)
            patch.setattr(files, "PLAIN_BYTES", 0)
        for place, contents in (("cut", parts), ("whole", [[row for of in parts for row in of]])):
            (folder / place).mkdir()
            for i, rows in enumerate(contents):
                engine().write_file(folder / f"{place}/{i}.{engine.suffix}", rows)
        cut, whole = (
            FilesSource(str(folder / place), str(folder / "nodes.csv"), columns, folder)
            for place in ("cut", "whole")
        )
        with closing(cut), closing(whole):
            (alone,) = whole.surveyed_parts()
            surveys = [part.survey for part in cut.surveyed_parts()]
            assert sum(filter(None, surveys), NO_RECORDS) == alone.survey == cut.survey()
            assert [shorn(survey) for survey in surveys] == [counted(rows) for rows in parts]


SURVEYS = st.builds(
    Survey,
    st.integers(0, 9),
    st.integers(0, 9),
    st.none() | st.datetimes().map(lambda instant: np.datetime64(instant, "ms")),
    st.none() | st.datetimes().map(lambda instant: np.datetime64(instant, "ms")),
    st.none() | st.text(max_size=3),
)


@given(SURVEYS, SURVEYS, SURVEYS)
def test_surveys_are_added_in_any_order_and_pass_through_json(
    one: Survey, two: Survey, three: Survey
) -> None:
    assert one + two == two + one
    assert (one + two) + three == one + (two + three)
    assert one + NO_RECORDS == one
    assert Survey.from_json(json.loads(json.dumps(one.to_json()))) == one


# --- MaxCompute -----------------------------------------------------------------------------------

TABLE = "id bigint, t string, v bigint, city string"


def table_rows(rows: list[Row]) -> pa.Table:
    """The rows, and some of another city."""
    strangers: list[Row] = [(1, datetime(2025, 9, 18), 1), (1, None, 1)]
    every = [*strangers, *rows]
    return pa.table(
        {
            "id": pa.array([key for key, _, _ in every], pa.int64()),
            "t": pa.array([str(instant) if instant else "noon" for _, instant, _ in every]),
            "v": pa.array([value for _, _, value in every], pa.int64()),
            "city": pa.array([OTHER_CITY] * len(strangers) + [CITY] * len(rows)),
        }
    )


class MaxComputeTests(PartsTests):
    """Parts that are partitions."""

    pushdown: Any = "sql"

    @pytest.fixture
    def place(self, service: Service, tmp_path: Path) -> Place:
        (tmp_path / "nodes.csv").write_text("id,lat,lng\n1,1,2\n2,1,2\n3,1,2\n")
        name = service.name("raw")
        made = service.client.create_table(name.table, (TABLE, "ds string, hour string"))

        def write(spec: str, rows: list[Row]) -> None:
            with made.open_writer(spec, create_partition=True, arrow=True, overwrite=True) as to:
                to.write(table_rows(rows))

        # A day before the period, which is no part.
        write("ds='20250918',hour='00'", [(1, datetime(2025, 9, 18, 3), 1)])
        rows = {f"ds='{day}',hour='00'": of_day for day, of_day in PARTS.items()}
        for spec, of_day in rows.items():
            write(spec, of_day)

        def write_later(spec: str, other: list[Row]) -> None:
            time.sleep(1.1)  # The service tells whole seconds.
            write(spec, other)

        service.forget_requests()

        def others_are_not_read(spec: str) -> None:
            asked = service.requests("downloads")
            assert all(
                spec[4:12] in entry["query"] for entry in asked if name.table in entry["path"]
            )

        return Place(
            lambda: self.source(service, name, tmp_path),
            rows,
            write_later,
            f"ds='{CHANGED}',hour='00'",
            others_are_not_read,
        )

    def source(self, service: Service, name: TableName, folder: Path) -> MaxComputeSource:
        columns = RecordColumns(
            node_columns=("id",), time_column="t", value_column="v", adcode=CITY,
            adcode_column="city",
        )  # fmt: skip
        return MaxComputeSource(
            name.address, str(folder / "nodes.csv"), columns, service.connection(),
            aggregate="sum", pushdown=self.pushdown, start_date=datetime(2025, 9, 19).date(),
        )  # fmt: skip

    def test_no_record_is_read_to_name_the_parts(self, place: Place, service: Service) -> None:
        with closing(place.open()) as source:
            source.parts()
            source.only([place.changed]).parts()
        assert not service.requests("downloads")
        assert not service.requests("instances")


class TestSql(MaxComputeTests):
    """Counted and aggregated there."""


class TestTunnel(MaxComputeTests):
    """Row by row."""

    pushdown = "tunnel"


class TestAuto(MaxComputeTests):
    """The cheaper way."""

    pushdown = "auto"


class WholeTableTests(MaxComputeTests):
    """A table without partitions is one part."""

    @pytest.fixture
    def place(self, service: Service, tmp_path: Path) -> Place:
        (tmp_path / "nodes.csv").write_text("id,lat,lng\n1,1,2\n2,1,2\n3,1,2\n")
        name = service.name("raw")
        made = service.client.create_table(name.table, TABLE)

        def write(_: str, rows: list[Row]) -> None:
            with made.open_writer(arrow=True, overwrite=True) as to:
                to.write(table_rows(rows))

        rows = [row for of_day in PARTS.values() for row in of_day]
        write("", rows)

        def write_later(_: str, other: list[Row]) -> None:
            time.sleep(1.1)
            write("", other)

        service.forget_requests()
        return Place(
            lambda: self.source(service, name, tmp_path),
            {"": rows},
            write_later,
            "",
            lambda _: None,
        )


class TestWholeTableBySql(WholeTableTests):
    """Counted and aggregated there."""


class TestWholeTableByTunnel(WholeTableTests):
    """Row by row."""

    pushdown = "tunnel"


@pytest.mark.parametrize("pushdown", ["auto", "tunnel"])
def test_parts_may_be_read_in_different_ways(
    service: Service, tmp_path: Path, pushdown: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """SQL might misread an instant of one part, and so all parts together."""
    (tmp_path / "nodes.csv").write_text("id,lat,lng\n1,1,2\n2,1,2\n")
    name = service.name("raw")
    service.load(
        name,
        pa.table(
            {
                "id": [1, 2, 1],
                "t": ["2025-09-19 08:00:00", "2025-09-20T09:00:00", "2025-09-20 10:00:00"],
                "v": [1, 2, 3],
            }
        ),
        "id bigint, t string, v bigint",
        ["20250919", "20250920", "20250920"],
    )
    columns = RecordColumns(node_columns=("id",), time_column="t", value_column="v")

    def open_source() -> MaxComputeSource:
        return MaxComputeSource(
            name.address, str(tmp_path / "nodes.csv"), columns, service.connection(),
            aggregate="sum", pushdown=pushdown,
        )  # fmt: skip

    cells = {(16, 0): (1.0, 1), (66, 1): (2.0, 1), (68, 0): (3.0, 1)}
    with closing(open_source()) as source:
        source.survey()
        said = capfd.readouterr().err
        assert ("1 records have an instant" in said) == (pushdown == "auto")
        plain, odd = (source.only([part.name]) for part in source.parts())
    assert cells_of(plain) == {(16, 0): (1.0, 1)}
    assert "1 records have an instant" not in capfd.readouterr().err
    assert cells_of(odd) == {place: cells[place] for place in ((66, 1), (68, 0))}
    assert cells_of(open_source()) == cells


def test_keys_of_text_are_known_to_be_text_before_the_nodes_are_asked_for(
    service: Service, tmp_path: Path
) -> None:
    """To a node table of numbers, a key like 08 would be one that SQL might misread."""
    (tmp_path / "nodes.csv").write_text("id,lat,lng\n08,1,2\n8,1,2\n")
    name = service.name("raw")
    times = ["2025-09-19 08:00:00"] * 2
    rows = pa.table({"id": ["08", "8"], "t": times, "v": [1, 2]})
    service.load(name, rows, "id string, t string, v bigint", ["20250919"] * 2)
    columns = RecordColumns(node_columns=("id",), time_column="t", value_column="v")
    source = MaxComputeSource(
        name.address, str(tmp_path / "nodes.csv"), columns, service.connection(),
        aggregate="sum", pushdown="sql",
    )  # fmt: skip
    with closing(source), closing(source.only(["ds='20250919'"])) as alone:
        assert alone.survey().records == 2
        assert cells_of(alone) == {(16, 0): (1.0, 1), (16, 1): (2.0, 1)}


def test_what_was_written_just_now_is_taken_for_changed_once_more() -> None:
    """The service tells whole seconds: a second write within one would not show."""
    now = datetime(2025, 9, 19, 12, tzinfo=UTC)
    times = [now - timedelta(seconds=seconds) for seconds in (3600, 1, -5)]
    partitions = tuple(
        Partition((("ds", f"{i}"),), None if moment is None else moment.isoformat())
        for i, moment in enumerate([*times, None])
    )
    info = TableInfo(TableName("p", "t"), {}, ("ds",), None, None, None, partitions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maxcompute_partitions, "SETTLING_S", 2.0)
        looks = [parts_of(info, partitions, now + timedelta(seconds=later)) for later in (0, 1, 9)]
    same = [[one == two for one, two in zip(*pair, strict=True)] for pair in pairwise(looks)]
    assert same == [[True, False, False, False], [True, True, False, False]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maxcompute_partitions, "SETTLING_S", 2.0)
        settled = [parts_of(info, partitions, now + timedelta(seconds=later)) for later in (9, 99)]
    assert [one == two for one, two in zip(*settled, strict=True)] == [True, True, True, False]


# --- the manifest ---------------------------------------------------------------------------------


def build(folder: Path, **changes: Any) -> SampleStore:
    given: dict[str, Any] = {
        "records": str(folder / "r"), "nodes": str(folder / "nodes.csv"),
        "store": folder / "s.store", "node_columns": "id", "time_column": "t", "value_column": "v",
        "step_minutes": 60, "input_len": 2, "output_len": 2, "max_dropped_share": 1.0,
        "overwrite": True, **changes,
    }  # fmt: skip
    return preprocess(PreprocessSettings(**given), keep_if_same=True)


def test_a_store_keeps_the_parts_that_it_was_built_from(tmp_path: Path) -> None:
    (tmp_path / "nodes.csv").write_text("id,lat,lng\n1,1,2\n2,1,2\n3,1,2\n")
    (tmp_path / "r").mkdir()
    for day, rows in PARTS.items():
        TestParquet().write_file(tmp_path / f"r/{day}.parquet", rows)
    store = build(tmp_path)
    parts = [SourcePart.from_json(part) for part in store.manifest.source["parts"]]
    assert [Path(part.name).stem for part in parts] == sorted(PARTS)
    assert [shorn(part.survey) for part in parts] == [counted(rows) for rows in PARTS.values()]
    assert build(tmp_path).version == store.version, "parts do not make it another build"
    TestParquet().write_file(tmp_path / "r/20250921.parquet", NEW_ROWS)
    assert build(tmp_path).version != store.version
