"""Which files stand behind a path, and that odd paths are files and not patterns or SQL."""

from pathlib import Path

import duckdb
import pytest

from flowpatch.errors import SourceError, SourceNotFoundError
from flowpatch.sources.listing import find_files
from flowpatch.sources.sql import identifier, text


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("id,v\n1,2\n")


def names(folder: Path, place: str) -> list[str]:
    return [str(path.relative_to(folder)) for path in find_files(place, "--records").paths]


def test_one_file_is_itself(tmp_path: Path) -> None:
    touch(tmp_path, "a.csv", "b.csv")
    assert names(tmp_path, str(tmp_path / "a.csv")) == ["a.csv"]


def test_a_folder_is_all_of_its_files_at_any_depth_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "ds=20250920/b.csv", "ds=20250919/z.csv", "ds=20250919/a.csv", "notes.txt")
    assert names(tmp_path, str(tmp_path)) == [
        "ds=20250919/a.csv",
        "ds=20250919/z.csv",
        "ds=20250920/b.csv",
    ]


@pytest.mark.parametrize("pattern", ["", "**/*.csv", "**/*"])
def test_what_writers_leave_beside_the_data_is_no_data(tmp_path: Path, pattern: str) -> None:
    """A half-written _temporary/0/part.csv read as well would count its records twice."""
    touch(
        tmp_path, "day/a.csv", "_SUCCESS", "._a.csv", ".tmp/b.csv", "_temporary/0/a.csv", "_c.csv"
    )
    assert names(tmp_path, str(tmp_path / pattern)) == ["day/a.csv"]


def test_a_hidden_file_that_is_named_is_read(tmp_path: Path) -> None:
    touch(tmp_path, "_staging/_a.csv", "_staging/b.csv")
    assert names(tmp_path, str(tmp_path / "_staging/_a.csv")) == ["_staging/_a.csv"]
    assert names(tmp_path, str(tmp_path / "_staging")) == ["_staging/b.csv"]
    assert names(tmp_path, str(tmp_path / "_staging/*.csv")) == ["_staging/b.csv"]
    assert names(tmp_path, str(tmp_path / "*/_*.csv")) == ["_staging/_a.csv"]


def test_a_pattern_takes_what_it_matches_and_can_be_read(tmp_path: Path) -> None:
    touch(tmp_path, "2025-09-19.csv", "2025-09-20.csv", "2025-10-01.csv", "2025-09.txt")
    assert names(tmp_path, str(tmp_path / "2025-09*")) == ["2025-09-19.csv", "2025-09-20.csv"]


@pytest.mark.parametrize("name", ["a.CSV", "a.csv.gz", "a.csv.zst", "a.csv"])
def test_suffixes_of_csv(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name)
    assert find_files(str(tmp_path), "--records").format == "csv"


@pytest.mark.parametrize("name", ["a.parquet", "a.PQ", "part-0.snappy.parquet"])
def test_suffixes_of_parquet(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name)
    assert find_files(str(tmp_path), "--records").format == "parquet"


def test_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    touch(tmp_path, "city/a.csv")
    assert names(tmp_path, "~/city/*.csv") == names(tmp_path, "~/city") == ["city/a.csv"]


@pytest.mark.parametrize(
    "odd", ["it's", "[1]", "a*b", "城市 1", 'say "x"', "x; DROP TABLE r", "a{b,c}", "q?"]
)
def test_an_odd_path_is_one_path_and_no_pattern(tmp_path: Path, odd: str) -> None:
    touch(tmp_path, f"{odd}/{odd}.csv", "1/1.csv", "aXb/aXb.csv")
    for place in (tmp_path / odd, tmp_path / odd / f"{odd}.csv"):
        listing = find_files(str(place), "--records")
        assert [path.name for path in listing.paths] == [f"{odd}.csv"]
        assert duckdb.sql(f"SELECT count(*) FROM {listing.relation()}").fetchall() == [(1,)]


def test_identity_changes_with_the_file(tmp_path: Path) -> None:
    touch(tmp_path, "a.csv")
    listing = find_files(str(tmp_path), "--records")
    (before,) = listing.identity()
    assert before["bytes"] == 9
    (tmp_path / "a.csv").write_text("id,v\n1,2\n3,4\n")
    assert find_files(str(tmp_path), "--records").identity()[0]["bytes"] == 13
    assert listing.identity() == [before], "what was listed is not what was written since"
    assert listing.identity()[0]["changed_ns"] >= before["changed_ns"]


def test_nothing_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"No file or folder '.*none'. Check --nodes"):
        find_files(str(tmp_path / "none"), "--nodes")
    with pytest.raises(SourceNotFoundError, match=r"No file matches '.*\*.csv'. Check --records; "):
        find_files(str(tmp_path / "*.csv"), "--records")
    with pytest.raises(FileNotFoundError):
        find_files("", "--records")


def test_nothing_readable_there_names_what_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    touch(tmp_path, "records.txt")
    for place in ("empty", "records.txt"):
        with pytest.raises(SourceError, match=rf"{place}' holds no file .*--records.*\.parquet"):
            find_files(str(tmp_path / place), "--records")


def test_two_formats_are_refused_with_a_way_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.csv", "b.parquet")
    with pytest.raises(SourceError, match=r"both Parquet and CSV.*\*\*/\*\.csv"):
        find_files(str(tmp_path), "--records")


@pytest.mark.parametrize(
    "value", ["a", "a'b", "''", 'a"b', "a; DROP TABLE x --", "\\'", "编号", ""]
)
def test_literals_and_names_are_quoted_whole(value: str) -> None:
    assert duckdb.sql(f"SELECT {text(value)}").fetchall() == [(value,)]
    if value:
        assert duckdb.sql(f"SELECT 1 AS {identifier(value)}").columns == [value]
