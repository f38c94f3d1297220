"""`flowpatch update` and `preprocess --resume`: what is printed, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import flowpatch
from flowpatch.preprocessing import stretches


@pytest.fixture
def growing(small_city: Path, tmp_path: Path) -> Path:
    """The small city, a file a day, of which the first four are there."""
    table = pq.read_table(small_city / "records.parquet")
    day = pc.day(table["passts_time"])
    (tmp_path / "records").mkdir()
    (tmp_path / "later").mkdir()
    for number in range(3, 8):
        folder = tmp_path / ("records" if number < 7 else "later")
        pq.write_table(table.filter(pc.equal(day, number)), folder / f"{number}.parquet")
    shutil.copy(small_city / "nodes.csv", tmp_path / "nodes.csv")
    return tmp_path


def build(command: Any, folder: Path, *more: str) -> Any:
    return command(
        "preprocess", "--records", folder / "records", "--nodes", folder / "nodes.csv",
        "--node-columns", "sensor_id", "--step-minutes", "30", "--store", folder / "s", *more,
    )  # fmt: skip


def test_a_day_comes_and_the_store_is_printed(command: Any, growing: Path) -> None:
    assert build(command, growing).code == 0
    (growing / "later" / "7.parquet").rename(growing / "records" / "7.parquet")
    outcome = command("update", growing / "s")
    assert (outcome.code, outcome.out) == (0, f"{growing / 's'}\n")
    assert "1 days came, 0 were read again, 0 were dropped: 5 days to 2025-03-08" in outcome.err
    again = command("update", growing / "s")
    assert (again.code, again.out) == (0, f"{growing / 's'}\n")
    assert "is up to date: nothing is new since version" in again.err


def test_settings_may_come_from_a_file(command: Any, growing: Path) -> None:
    build(command, growing)
    (growing / "later" / "7.parquet").rename(growing / "records" / "7.parquet")
    toml = growing / "nightly.toml"
    toml.write_text('[update]\nkeep_days = 3\nuntil = "2025-03-07"\n')
    assert command("update", growing / "s", "--config", toml).code == 0
    assert flowpatch.open_store(growing / "s").axis.days == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--until", "soon"], "'soon' is no date"),
        (["--revise", "-1"], "revise"),
        (["--keep-days", "0"], "keep_days"),
        (["--nodes", "maybe"], "nodes"),
        (["--until", "20250304"], "--until 2025-03-04 lies before 2025-03-06"),
    ],
)
def test_what_is_no_setting_is_misuse(
    command: Any, growing: Path, flags: list[str], message: str
) -> None:
    build(command, growing)
    outcome = command("update", growing / "s", *flags)
    assert outcome.code == 2
    assert message in outcome.error


@pytest.mark.parametrize("place", ["nothing", "a file", "a folder", "unfinished"])
def test_what_is_no_store_is_refused(command: Any, tmp_path: Path, place: str) -> None:
    path = tmp_path / "s"
    if place == "a file":
        path.write_text("x")
    elif place == "a folder":
        (path / "a").mkdir(parents=True)
    elif place == "unfinished":
        from flowpatch.places.place import place_of
        from flowpatch.store.repository import open_or_create_repository

        open_or_create_repository(place_of(path))
    outcome = command("update", path)
    assert outcome.code == 1
    assert str(path) in outcome.error


def test_a_store_whose_records_are_gone_says_where_they_were(command: Any, growing: Path) -> None:
    build(command, growing)
    shutil.rmtree(growing / "records")
    outcome = command("update", growing / "s")
    assert outcome.code == 1
    assert str(growing / "records") in outcome.error


def test_a_stopped_build_says_how_to_go_on(
    command: Any, growing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowpatch.store.arrays.BLOCK_BYTES", 1)
    monkeypatch.setattr(stretches, "GATHER_BYTES", 1)
    gather = stretches.gather_stretch

    def stop_at_the_third(*arguments: Any) -> Any:
        if arguments[3] == 2 * 48:
            raise stretches.StopAskedError
        return gather(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(stretches, "gather_stretch", stop_at_the_third)
        stopped = build(command, growing)
    assert stopped.code == 130
    assert "2 days are kept. Go on with them: the same command with --resume." in stopped.err
    other = build(command, growing, "--resume", "--aggregate", "sum")
    assert other.code == 1
    assert "is of another origin: --aggregate differ" in other.error
    resumed = build(command, growing, "--resume")
    assert resumed.code == 0
    assert "2 of 4 days are safe already" in resumed.err
    store = flowpatch.open_store(growing / "s")
    shutil.rmtree(growing / "s")
    build(command, growing)
    assert flowpatch.open_store(growing / "s").manifest.content_hash == store.manifest.content_hash


def test_resuming_what_is_finished_changes_nothing(command: Any, growing: Path) -> None:
    build(command, growing)
    before = json.loads(command("inspect", growing / "s", "--json").out)["versions"]
    outcome = build(command, growing, "--resume")
    assert outcome.code == 0
    assert "was built from these records as they are: kept as it is" in outcome.err
    assert json.loads(command("inspect", growing / "s", "--json").out)["versions"] == before
