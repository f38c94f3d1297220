"""`flowpatch simulate`: files of records from the command line, whole or not at all."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import flowpatch

SMALL = ("--nodes", "20", "--days", "1", "--step-minutes", "30")


def test_it_prints_the_two_paths_that_preprocess_takes(command: Any, tmp_path: Path) -> None:
    out = tmp_path / "杭 州"
    outcome = command("simulate", *SMALL, "--out", out)
    assert outcome.code == 0, outcome.err
    records, nodes = outcome.out.splitlines()
    assert (records, nodes) == (str(out / "records"), str(out / "nodes.csv"))
    rows = sum(pq.read_metadata(file).num_rows for file in out.rglob("*.parquet"))
    assert f"{rows:,} records of 20 nodes" in outcome.err
    built = command(
        "preprocess", "--records", records, "--nodes", nodes, "--step-minutes", "30",
        "--input-len", "4", "--output-len", "2", "--store", tmp_path / "s",
    )  # fmt: skip
    assert built.code == 0, built.err
    assert flowpatch.open_store(tmp_path / "s").manifest.counts.used == rows


def test_thousands_may_be_set_off_by_underscores(command: Any, tmp_path: Path) -> None:
    outcome = command("simulate", *SMALL, "--records", "20_000", "--out", tmp_path / "a")
    plain = command("simulate", *SMALL, "--records", "20000", "--out", tmp_path / "b")
    rows = [
        sum(pq.read_metadata(file).num_rows for file in (tmp_path / name).rglob("*.parquet"))
        for name in "ab"
    ]
    assert (outcome.code, plain.code) == (0, 0)
    assert rows[0] == rows[1]
    assert abs(rows[0] - 20_000) < 1_000


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--nodes", "1"], ["'1'", "nodes", "greater than or equal to 2"]),
        (["--nodes", "1e3"], ["'1e3'", "nodes", "integer"]),
        (["--days", "0"], ["'0'", "days"]),
        (["--step-minutes", "7"], ["7", "day"]),
        (["--missing", "1"], ["'1'", "missing", "less than 1"]),
        (["--format", "orc"], ["'orc'", "parquet, csv"]),
        (["--start-date", "soon"], ["'soon'", "20250919"]),
        (["--records", "1_000_000_000_000"], ["1000000000000", "records", "at most"]),
    ],
)
def test_a_bad_setting_is_misuse(
    given: list[str], words: list[str], command: Any, tmp_path: Path
) -> None:
    outcome = command("simulate", *given, "--out", tmp_path / "city")
    assert outcome.code == 2
    assert [word for word in words if word not in outcome.error] == [], outcome.error
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_the_way_is_refused(command: Any, tmp_path: Path) -> None:
    command("simulate", *SMALL, "--out", tmp_path / "city")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/cat.jpg").touch()
    for name, words in (("city", ["city'", "--overwrite", "--out"]), ("mine", ["mine'", "--out"])):
        outcome = command("simulate", *SMALL, "--out", tmp_path / name)
        assert outcome.code == 1
        assert all(word in outcome.error for word in words), outcome.error
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["cat.jpg"]


def test_an_interrupted_simulation_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C while the hidden folder is being written; a year of it would take minutes."""
    arguments = ["simulate", "--nodes", "2000", "--days", "365", "--out", str(tmp_path / "city")]
    with subprocess.Popen(
        [sys.executable, "-m", "flowpatch", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not any(tmp_path.rglob("*.parquet")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (130, "", "error: Interrupted.\n")
    assert list(tmp_path.iterdir()) == []
