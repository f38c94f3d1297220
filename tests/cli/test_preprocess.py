"""`flowpatch preprocess`: a store from raw records, and what every kind of bad input gets."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import flowpatch

Change = Callable[[Path, Path], list[Any]]
"""(small city, folder for changed files) -> flags that replace or add to the good ones."""


def flags(*given: Any) -> Change:
    return lambda city, folder: list(given)


def records(write: Callable[[pa.Table], pa.Table], *given: Any) -> Change:
    def change(city: Path, folder: Path) -> list[Any]:
        pq.write_table(write(pq.read_table(city / "records.parquet")), folder / "r.parquet")
        return ["--records", folder / "r.parquet", *given]

    return change


def column(name: str, values: Callable[[int], Any]) -> Callable[[pa.Table], pa.Table]:
    return lambda t: t.set_column(t.schema.get_field_index(name), name, pa.array(values(len(t))))


def nodes(write: Callable[[list[str]], list[str]]) -> Change:
    def change(city: Path, folder: Path) -> list[Any]:
        lines = write((city / "nodes.csv").read_text().splitlines())
        (folder / "n.csv").write_text("\n".join(lines) + "\n")
        return ["--nodes", folder / "n.csv"]

    return change


def empty_folder(city: Path, folder: Path) -> list[Any]:
    (folder / "empty").mkdir()
    return ["--records", folder / "empty"]


def run(command: Any, city: Path, store: Path, given: list[Any]) -> Any:
    good = {
        "--records": city / "records.parquet", "--nodes": city / "nodes.csv",
        "--node-columns": "sensor_id", "--step-minutes": 30, "--store": store,
    }  # fmt: skip
    merged = [part for flag, value in good.items() if flag not in given for part in (flag, value)]
    return command("preprocess", *merged, *given)


# --- what works -----------------------------------------------------------------------------------


def test_it_prints_the_store_and_says_the_rest_elsewhere(
    command: Any, small_city: Path, tmp_path: Path
) -> None:
    outcome = run(command, small_city, tmp_path / "s", [])
    assert (outcome.code, outcome.out) == (0, f"{tmp_path / 's'}\n")
    assert "12 nodes, 5 days from 2025-03-03, 240 steps" in outcome.err
    assert flowpatch.open_store(tmp_path / "s").version in outcome.err


def test_underscores_and_hyphens_are_the_same(
    command: Any, small_city: Path, tmp_path: Path
) -> None:
    base = ["--records", small_city / "records.parquet", "--nodes", small_city / "nodes.csv"]
    spellings = [
        ["--node-columns", "sensor_id", "--step-minutes", "30", "--null-value", "-1"],
        ["--node_columns", "sensor_id", "--step_minutes", "3_0", "--null_value=-1.0"],
    ]
    hashes = set()
    for i, spelling in enumerate(spellings):
        store = tmp_path / str(i)
        assert command("preprocess", *base, *spelling, "--store", store).code == 0
        hashes.add(flowpatch.open_store(store).manifest.content_hash)
    assert len(hashes) == 1


def test_overwrite_adds_a_version(command: Any, small_city: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    run(command, small_city, store, [])
    first = flowpatch.open_store(store)
    assert run(command, small_city, store, ["--overwrite", "--aggregate", "max"]).code == 0
    assert [info.version for info in flowpatch.open_store(store).versions()][1] == first.version


HOSTILE = ["杭 州", "a'b\"c", "; DROP TABLE x", "$(touch pwned)", "*", "[a-z]?", "%Y{0}", "-q"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_of_files_folders_and_columns_mean_nothing(
    name: str, command: Any, small_city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / name
    folder.mkdir()
    key, time, value, lat, lng, city = (f"{name}{i}" for i in range(6))
    table = pq.read_table(small_city / "records.parquet").rename_columns([key, time, value])
    table = table.append_column(city, pa.array([name] * len(table)))
    pq.write_table(table, folder / f"{name}.parquet")
    quoted = ",".join('"' + part.replace('"', '""') + '"' for part in (key, lat, lng))
    rows = (small_city / "nodes.csv").read_text().splitlines()[1:]
    (folder / f"{name}.csv").write_text("\n".join([quoted, *rows]) + "\n")
    given = {
        "--records": folder / f"{name}.parquet", "--nodes": folder / f"{name}.csv",
        "--store": folder / f"{name}.store", "--node-columns": key, "--time-column": time,
        "--value-column": value, "--lat-column": lat, "--lng-column": lng, "--adcode": name,
        "--adcode-column": city, "--step-minutes": 30,
    }  # fmt: skip
    outcome = command("preprocess", *(f"{flag}={value}" for flag, value in given.items()))
    assert outcome.code == 0, outcome.err
    store = flowpatch.open_store(folder / f"{name}.store")
    assert store.manifest.key_columns == (key,)
    assert store.manifest.counts.used == len(table)
    assert {file.name for file in tmp_path.iterdir()} == {name}


def test_a_key_of_hostile_columns_is_read_back(
    command: Any, small_city: Path, tmp_path: Path
) -> None:
    """Names of arrays of the store, and the name that stands in for such a name."""
    names = ["value", "../x", "key_0"]
    table = pq.read_table(small_city / "records.parquet")
    key = table["sensor_id"]
    for name in names:
        table = table.append_column(name, key)
    pq.write_table(table, tmp_path / "r.parquet")
    rows = [row.split(",") for row in (small_city / "nodes.csv").read_text().splitlines()[1:]]
    lines = [",".join([*names, "lat", "lng"])]
    lines += [",".join([row[0]] * 3 + row[1:]) for row in rows]
    (tmp_path / "n.csv").write_text("\n".join(lines) + "\n")
    outcome = command(
        "preprocess", "--records", tmp_path / "r.parquet", "--nodes", tmp_path / "n.csv",
        "--node-columns", ",".join(names), "--step-minutes", "30", "--store", tmp_path / "s",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    store = flowpatch.open_store(tmp_path / "s")
    assert [keys.tolist() for keys in store.nodes.keys] == [[int(row[0]) for row in rows]] * 3
    assert sorted(file.name for file in tmp_path.iterdir()) == ["n.csv", "r.parquet", "s"]


# --- terminal and pipe ----------------------------------------------------------------------------


def test_a_terminal_shows_a_bar_and_a_pipe_does_not(
    source_flags: tuple[str, ...], tmp_path: Path
) -> None:
    arguments = [sys.executable, "-m", "flowpatch", "preprocess", *source_flags, "--store"]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*arguments, str(tmp_path / "a")],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
    ) as process:
        os.close(theirs)
        shown = b"".join(iter(lambda: read_terminal(ours), b""))
        assert process.stdout
        assert process.stdout.read() == f"{tmp_path / 'a'}\n".encode()
    os.close(ours)
    assert process.returncode == 0
    assert b"preprocess" in shown
    assert b"100 %" in shown
    assert b"\x1b[" in shown

    piped = subprocess.run([*arguments, str(tmp_path / "b")], capture_output=True)
    assert piped.stderr.count(b"\n") == 2
    assert b"%\n" not in piped.stderr
    assert not set(piped.stdout + piped.stderr) & (set(range(32)) - {10})


def read_terminal(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # Linux says so when the other side has closed.
        return b""


# --- bad input ------------------------------------------------------------------------------------

REFUSALS: dict[str, tuple[int, Change, list[str]]] = {
    "missing file": (1, flags("--records", "/no/r.parquet"), ["'/no/r.parquet'", "--records"]),
    "missing node table": (1, flags("--nodes", "/no/n.csv"), ["'/no/n.csv'", "--nodes"]),
    "empty glob": (1, flags("--records", "/no/*.parquet"), ["'/no/*.parquet'", "quotes"]),
    "empty folder": (1, empty_folder, ["empty'", "--records", ".parquet"]),
    "no key column": (
        1, flags("--node-columns", "lonk"), ["'lonk'", "sensor_id", "--node-columns"]),
    "default key columns": (
        1, flags("--node-columns", "nds_id,next_nds_id"), ["'nds_id'", "--node-columns"]),
    "no time column": (
        1, flags("--time-column", "when"), ["'when'", "passts_time", "--time-column"]),
    "no value column": (
        1, flags("--value-column", "n"), ["'n'", "flow_label", "--value-column"]),
    "wrong value column": (
        1, flags("--value-column", "passts_time"), ["not a number", "100.0%", "Allowed: 5.0%"]),
    "no city column": (1, flags("--adcode", "330100"), ["'adcode'", "--adcode-column"]),
    "unparsable time": (
        1, records(column("passts_time", lambda n: ["20250303T08"] * n)),
        ["'20250303T08'", "'passts_time'", "--time-format"]),
    "number for a time": (
        1, records(column("passts_time", lambda n: [1741000000] * n)), ["BIGINT", "unix_s"]),
    "time pattern": (
        2, records(column("passts_time", lambda n: ["x"] * n), "--time-format", "%Q"),
        ["--time-format '%Q'", "%Y%m%d"]),
    "no coordinate columns": (
        1, nodes(lambda rows: [r.rsplit(",", 2)[0] for r in rows]), ["'lat'", "--lat-column"]),
    "no coordinates": (
        1, nodes(lambda rows: [rows[0], *(r.split(",")[0] + ",," for r in rows[1:])]),
        ["No node has coordinates", "--lat-column"]),
    "duplicate keys": (
        1, nodes(lambda rows: [*rows, rows[1]]), ["sensor_id=100", "one row a node"]),
    "no record in the period": (
        1, flags("--start-date", "20240101", "--end-date", "20240131"),
        ["2024-01-01 to 2024-01-31", "2025-03-03", "--start-date"]),
    "every value missing": (
        1, records(column("flow_label", lambda n: np.full(n, 7)), "--null-value", 7),
        ["Every value is missing", "null value", "--null-value"]),
    "unknown nodes": (
        1, records(column("sensor_id", lambda n: np.where(np.arange(n) % 2, 100, 5))),
        ["unknown node", "Allowed: 5.0%", "--max-dropped-share"]),
    "shorter than a window": (
        1, flags("--input-len", 200, "--output-len", 41), ["240 steps", "200 + 41", "--input-len"]),
    "split without a window": (
        1, flags("--train-ratio", 0.9, "--val-ratio", 0.05, "--test-ratio", 0.05,
                 "--output-len", 24), ["'val'", "no window", "--val-ratio"]),
    "ratios": (2, flags("--train-ratio", 0.7), ["0.7 + 0.2 + 0.2 = 1.1", "add to 1"]),
    "step": (2, flags("--step-minutes", 7), ["7 minutes", "6, 8"]),
    "step is no number": (2, flags("--step-minutes", "five"), ["'five'", "step_minutes"]),
    "aggregate": (2, flags("--aggregate", "avg"), ["'avg'", "mean, sum, max, last"]),
    "date": (2, flags("--start-date", "20251301"), ["'20251301'", "2025-09-19"]),
    "dates": (
        2, flags("--start-date", "20250304", "--end-date", "20250303"), ["lies before"]),
    "zone": (2, flags("--time-zone", "Mars/Base"), ["'Mars/Base'", "Asia/Shanghai"]),
    "null value": (2, flags("--null-value", "nan"), ["'nan'", "finite"]),
    "name too long": (1, flags("--store", "/no/" + "x" * 300), ["File name too long"]),
    "store inside a file": (
        1, lambda city, folder: ["--store", city / "nodes.csv" / "s"], ["nodes.csv", "--store"]),
    "a file for a store": (
        1, lambda city, folder: ["--store", city / "nodes.csv"], ["nodes.csv'", "--store"]),
    "someone's folder": (1, lambda city, folder: ["--store", city], ["nothing was touched"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_input_is_refused_and_leaves_nothing(
    name: str, command: Any, small_city: Path, tmp_path: Path
) -> None:
    code, change, words = REFUSALS[name]
    given = change(small_city, tmp_path)
    (tmp_path / "out").mkdir()
    city_before = sorted(small_city.rglob("*"))
    outcome = run(command, small_city, tmp_path / "out" / "s", given)
    assert outcome.code == code
    assert [word for word in words if word not in outcome.error] == [], outcome.error
    assert list((tmp_path / "out").iterdir()) == []
    assert sorted(small_city.rglob("*")) == city_before


def test_a_store_that_exists_is_refused_and_untouched(
    command: Any, small_city: Path, built: Path
) -> None:
    before = {file: file.stat().st_mtime_ns for file in built.rglob("*")}
    outcome = run(command, small_city, built, [])
    assert outcome.code == 1
    assert all(word in outcome.error for word in (f"'{built}'", "--store", "--overwrite"))
    assert {file: file.stat().st_mtime_ns for file in built.rglob("*")} == before


def test_a_store_of_a_newer_format_is_not_written_over(
    command: Any, small_city: Path, newer: Path
) -> None:
    before = {file: file.stat().st_mtime_ns for file in newer.rglob("*")}
    outcome = run(command, small_city, newer, [])
    assert outcome.code == 1
    assert "--overwrite" in outcome.error
    assert {file: file.stat().st_mtime_ns for file in newer.rglob("*")} == before


def test_a_full_disk_gets_one_clear_error_and_no_store(
    process: Any,
    source_flags: tuple[str, ...],
    small_disk: Path,
    fill_disk: Callable[[int], None],
) -> None:
    """In a process of its own: DuckDB complains at the end about what an error holds on to."""
    fill_disk(4 * 4096)
    outcome = process("preprocess", *source_flags, "--store", small_disk / "s")
    assert outcome.code == 1
    assert all(word in outcome.error for word in ("No space left", "MB free", "Free some space"))
    assert outcome.err.count("\n") == 2, "what was found, and the error"
    assert [file.name for file in small_disk.iterdir()] == ["filler"]


def test_real_records_go_through(command: Any, shared: Path, tmp_path: Path) -> None:
    """Two days of the two-column key, by the default names of all columns."""
    folder = shared / "data" / "ingolstadt_simulated"
    outcome = command(
        "preprocess", "--records", folder / "records.parquet", "--nodes", folder / "nodes.csv",
        "--node-columns", "nds_id,next_nds_id", "--step-minutes", "5", "--aggregate", "sum",
        "--start-date", "20250303", "--end-date", "20250304", "--store", tmp_path / "s",
    )  # fmt: skip
    assert (outcome.code, outcome.out) == (0, f"{tmp_path / 's'}\n"), outcome.err
    content = json.loads(command("inspect", tmp_path / "s", "--json").out)
    assert (content["nodes"]["count"], content["period"]["length"]) == (892, 576)
    assert content["records"]["read"] == 3_311_312
    assert content["records"]["out_of_period"] + content["records"]["used"] == 3_311_312
