"""The root command: help without engines, settings files, and what every error looks like."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from flowpatch.cli.app import COMMANDS, SUBCOMMANDS

# --- help and version -----------------------------------------------------------------------------

HELP = """
import contextlib, io, sys
from flowpatch.cli import main
for arguments in [[], ["--help"], ["-h"], ["--version"], *([name, "--help"] for name in sys.argv[1:])]:
    written = io.StringIO()
    try:
        with contextlib.redirect_stdout(written):
            main(arguments)
    except SystemExit as ended:
        print(ended.code, len(written.getvalue()) > 3, *arguments)
engines = {
    "torch", "icechunk", "zarr", "duckdb", "accelerate", "xarray", "pandas", "dask", "distributed"
}
print("loaded:", *sorted(engines & set(sys.modules)))
"""  # noqa: E501


def test_help_of_everything_loads_no_engine() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HELP, *COMMANDS], capture_output=True, text=True, check=True
    )
    expected = ["", "--help", "-h", "--version", *(f"{name} --help" for name in COMMANDS)]
    assert ended.stdout.splitlines() == [f"0 True {e}".rstrip() for e in expected] + ["loaded:"]
    assert ended.stderr == ""


def test_the_module_runs_as_the_command_does(process: Any) -> None:
    outcome = process("--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert all(name in outcome.out for name in (*COMMANDS, "--config", "--debug", "--version"))


def test_the_version_is_that_of_the_package(command: Any) -> None:
    assert command("--version").out == version("flowpatch") + "\n"


WORDS = [
    (name, *inner)
    for name in COMMANDS
    for inner in ([(n,) for n in SUBCOMMANDS.get(name, ())] or [()])
]


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_help_describes_every_flag_of_a_command(
    words: tuple[str, ...], command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # One row a flag.
    outcome = command(*words, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    rows = re.findall(r"^│ (?:\*|) *(--\S.*?) *│$", outcome.out, re.MULTILINE)
    # Behind a flag and its type stand two spaces and a sentence, then choices and default.
    undescribed = [row for row in rows if not re.search(r"  [^\[ ].*\w", row)]
    assert rows
    assert undescribed == []


# --- misuse ---------------------------------------------------------------------------------------

MISUSE: dict[str, tuple[list[str], list[str]]] = {
    "unknown command": (["trian"], ['"trian"', "train", "--help"]),
    "unknown flag": (["inspect", "s", "--jsn"], ["--jsn", "--json"]),
    "unknown flag before a missing one": (
        ["preprocess", "--records", "r", "--nodes", "n", "--stor", "s"], ["--stor.", "give --store"]
    ),
    "unknown root flag": (["--verbose"], ["--verbose", "--help"]),
    "no value": (["preprocess", "--records"], ["--records needs a value"]),
    "no value but a flag": (
        ["preprocess", "--store", "--nodes", "n"], ["--store needs a value", "--store=VALUE"]),
    "missing argument": (["inspect"], ["--store is missing", "flowpatch inspect --help"]),
    "missing flag": (["simulate"], ["--out is missing", "TOML"]),
    "one argument too many": (["inspect", "a", "b"], ["'b'", "flowpatch inspect --help"]),
    "a flag twice": (
        ["inspect", "a", "--version", "b", "--version", "c"], ["--version", "multiple times"]),
    "not a number": (
        ["evaluate", "r", "--batch-size", "many"], ["'many'", "--batch-size", "whole number"]),
    "not one of a list": (["evaluate", "r", "--split", "tset"], ["tset", "train", "val", "test"]),
    "not a switch": (["inspect", "s", "--json=maybe"], ["maybe", "--json"]),
    "two settings wrong": (
        ["train", "s", "--layers", "0", "--input-dims", "x"],
        ["'0' for layers", "'x' for input_dims"]),
    "config without a path": (["inspect", "s", "--config"], ["--config needs the path"]),
    "config twice": (["--config", "a", "inspect", "--config=b"], ["--config is given twice"]),
}  # fmt: skip


@pytest.mark.parametrize("name", MISUSE)
def test_misuse_names_what_is_wrong_and_what_helps(
    name: str, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, words = MISUSE[name]
    outcome = command(*arguments)
    assert outcome.code == 2
    assert all(word in outcome.error for word in words), outcome.error
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback_above_the_same_message(command: Any, tmp_path: Path) -> None:
    plain = command("inspect", tmp_path / "none")
    for arguments in (["--debug", "inspect"], ["inspect", "--debug"]):
        outcome = command(*arguments, tmp_path / "none")
        assert outcome.code == plain.code == 1
        assert outcome.err.startswith("Traceback (most recent call last):")
        assert outcome.err.endswith(f"error: {plain.error}")
    assert "Traceback" in command("inspect", "--debug").err, "of misuse, too"


def test_an_error_writes_out_what_would_steer_a_terminal(command: Any, tmp_path: Path) -> None:
    """A name in somebody's file must not clear the reader's screen."""
    outcome = command("inspect", tmp_path / "a\x1b[2J\r\u202eb\x07 杭州")
    assert r"a\x1b[2J\r\u202eb\x07 杭州'" in outcome.error


# --- settings files -------------------------------------------------------------------------------


def toml(folder: Path, content: str) -> Path:
    path = folder / "城 市.toml"
    path.write_text(content, encoding="utf-8")
    return path


@pytest.fixture
def city_toml(tmp_path: Path, small_city: Path) -> Path:
    return toml(
        tmp_path,
        f"""
        [preprocess]
        records = "{small_city / "records.parquet"}"
        nodes = "{small_city / "nodes.csv"}"
        node_columns = ["sensor_id"]
        step-minutes = 30              # Hyphens as in the flag.
        start_date = 2025-03-04        # TOML's own date.
        null_value = 0
        train_ratio = 0.5
        val_ratio = 0.25
        test_ratio = 0.25
        store = "{tmp_path / "from file"}"
        [inspect]
        json = true
        [train]
        layers = 1
        """,
    )


def recipe(store: Path, command: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(command("inspect", store, "--json").out)["recipe"]
    return content


@pytest.mark.parametrize("place", ["before", "behind", "equals"])
def test_keys_are_flags_wherever_the_file_is_named(
    place: str, command: Any, city_toml: Path, tmp_path: Path
) -> None:
    arguments = {
        "before": ["--config", city_toml, "preprocess"],
        "behind": ["preprocess", "--config", city_toml],
        "equals": ["preprocess", f"--config={city_toml}"],
    }[place]
    outcome = command(*arguments)
    assert (outcome.code, outcome.out) == (0, f"{tmp_path / 'from file'}\n")
    found = recipe(tmp_path / "from file", command)
    assert found["node_columns"] == ["sensor_id"]
    assert (found["step_minutes"], found["start_date"], found["null_value"]) == (
        30, "2025-03-04", 0.0,
    )  # fmt: skip
    assert found["train_ratio"] == 0.5


def test_flags_win_over_the_file(command: Any, city_toml: Path, tmp_path: Path) -> None:
    store = tmp_path / "from flag"
    outcome = command(
        "preprocess", "--config", city_toml, "--store", store, "--step_minutes", "60",
        "--start-date", "20250303",
    )  # fmt: skip
    assert outcome.out == f"{store}\n"
    assert not (tmp_path / "from file").exists()
    found = recipe(store, command)
    assert (found["step_minutes"], found["start_date"]) == (60, "2025-03-03")
    assert found["null_value"] == 0.0, "what no flag gives is still the file's"


def test_a_switch_is_a_key_too(command: Any, city_toml: Path, built: Path) -> None:
    assert json.loads(command("inspect", built, "--config", city_toml).out)["format"] == 2


BAD_FILES = {
    "unknown key": ("[train]\nlayer = 3\n", ["Unknown key 'layer'", "城 市.toml", "'layers'"]),
    "unlike any key": ("[train]\nzzz = 3\n", ["Unknown key 'zzz'", "城 市.toml", "train --help"]),
    "nested key": ("[train.model]\nlayers = 3\n", ["'model.layers'", "城 市.toml"]),
    "unknown section": ("[trian]\nlayers = 3\n", ["'trian'", "城 市.toml", "[train]"]),
    "no section": ("layers = 3\n", ["'layers'", "城 市.toml", "[train]"]),
    "broken": ("[train\nlayers = 3\n", ["城 市.toml", "not valid TOML", "line 1"]),
    "key twice": ("[train]\nlayers = 3\nlayers = 4\n", ["城 市.toml", "not valid TOML"]),
    "bad value": ("[train]\nlayers = 'many'\n", ["'many'", "layers", "integer"]),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_settings_file_is_misuse_and_named(name: str, command: Any, tmp_path: Path) -> None:
    content, words = BAD_FILES[name]
    path = toml(tmp_path, content)
    outcome = command("train", tmp_path / "s", "--run", tmp_path / "r", "--config", path)
    assert outcome.code == 2
    assert all(word in outcome.error for word in words), outcome.error
    assert list(tmp_path.iterdir()) == [path]


def test_a_settings_file_that_is_not_there_is_named(command: Any, tmp_path: Path) -> None:
    outcome = command("inspect", "s", "--config", tmp_path / "none.toml")
    assert outcome.code == 2
    assert "none.toml" in outcome.error
    assert "--config" in outcome.error


# --- standard output ------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["inspect", "{}"], ["inspect", "{}", "--json"]])
def test_a_reader_who_went_away_is_no_error(arguments: list[str], built: Path) -> None:
    """As with `flowpatch inspect STORE | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "flowpatch", *(a.format(built) for a in arguments)],
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this machine")
def test_results_that_cannot_be_written_are_a_failure(built: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "flowpatch", "inspect", str(built), "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: Cannot write: No space left on device")
    assert ended.stderr.count("\n") == 1, "nothing from Python's own end"


def test_a_name_that_the_output_cannot_spell_is_escaped(
    process: Any, built: Path, tmp_path: Path
) -> None:
    """A build of an hour must not end in an error because of its printed name."""
    (tmp_path / "杭州").symlink_to(built)
    for flags in ([], ["--json"]):
        outcome = process("inspect", tmp_path / "杭州", *flags, PYTHONIOENCODING="ascii")
        assert outcome.code == 0, outcome.err
        assert r"\u676d\u5dde" in outcome.out
