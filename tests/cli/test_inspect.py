"""`flowpatch inspect`: every figure of a store, as tables and as JSON, whatever it is called."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flowpatch


@pytest.fixture
def content(command: Any, built: Path) -> dict[str, Any]:
    outcome = command("inspect", built, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def test_json_has_what_the_store_holds(content: dict[str, Any], built: Path) -> None:
    store = flowpatch.open_store(built)
    values = store.read()
    assert content["path"] == str(built)
    assert (content["version"], content["format"]) == (store.version, 2)
    assert content["content_hash"] == store.manifest.content_hash
    assert content["period"] == {
        "start": "2025-03-03T00:00", "stop": "2025-03-08T00:00", "step_minutes": 30,
        "length": 240, "time_zone": "UTC", "days": 5, "clock_changes": [],
    }  # fmt: skip
    assert content["nodes"]["count"] == values.shape[1] == 12
    assert content["nodes"]["key_columns"] == ["sensor_id"]
    assert content["nodes"]["latitude"] == [
        store.nodes.latitude.min(), store.nodes.latitude.max(),
    ]  # fmt: skip
    assert content["coverage"] == pytest.approx((~np.isnan(values)).mean())
    assert content["quality"]["zeros"] == (values == 0).sum()
    assert content["quality"]["maximum"] == np.nanmax(values)
    assert content["records"]["used"] == (~np.isnan(values)).sum()
    training = values[:144].astype(np.float64)
    assert content["statistics"]["mean"] == pytest.approx(np.nanmean(training))
    assert content["statistics"]["deviation"] == pytest.approx(np.nanstd(training))
    assert content["window"] == {"input_len": 12, "output_len": 12}
    assert content["sizes"]["bytes_in_memory"] == values.nbytes
    assert content["sizes"]["bytes_on_disk"] == sum(
        file.stat().st_size for file in built.rglob("*") if file.is_file()
    )
    assert content["recipe"]["step_minutes"] == 30
    assert content["source"]["kind"] == "files"


def test_json_has_the_borders_of_the_splits(content: dict[str, Any]) -> None:
    assert content["splits"] == {
        "train": {"first": "2025-03-03T00:00", "stop": "2025-03-06T00:00", "steps": 144},
        "val": {"first": "2025-03-06T00:00", "stop": "2025-03-07T00:00", "steps": 48},
        "test": {"first": "2025-03-07T00:00", "stop": "2025-03-08T00:00", "steps": 48},
    }


def test_json_lists_the_versions_newest_first(content: dict[str, Any], built: Path) -> None:
    newest, oldest = content["versions"]
    assert newest["version"] == content["version"]
    assert newest["content_hash"] == content["content_hash"] != oldest["content_hash"]
    assert newest["written_at"] >= oldest["written_at"]
    assert flowpatch.open_store(built, oldest["version"]).manifest.recipe["null_value"] == 0


def test_an_older_version_is_shown_when_asked_for(
    command: Any, built: Path, content: dict[str, Any]
) -> None:
    oldest = content["versions"][1]
    outcome = command("inspect", built, "--json", "--version", oldest["version"])
    found = json.loads(outcome.out)
    assert found["version"] == oldest["version"]
    assert found["content_hash"] == oldest["content_hash"]
    assert found["quality"]["zeros"] == 0


def test_the_table_holds_the_figures_in_full(
    command: Any, built: Path, content: dict[str, Any]
) -> None:
    outcome = command("inspect", built)
    assert (outcome.code, outcome.err) == (0, "")
    expected = [
        str(built), content["content_hash"], "5 days, 240 steps of 30 min", "12 by sensor_id",
        f"{content['coverage']:.2%} of cells observed", f"{content['records']['read']:,} read",
        "none dropped", f"mean {content['statistics']['mean']:.4f}",
        f"deviation {content['statistics']['deviation']:.4f}", "12 -> 12 steps",
        f"{content['quality']['zeros']:,} zeros",
        f"{content['sizes']['bytes_on_disk'] / 1e3:,.1f} kB on disk",
        "2025-03-06T00:00 to 2025-03-07T00:00  48 steps",
        *(version["version"] for version in content["versions"]),
    ]  # fmt: skip
    assert [text for text in expected if text not in outcome.out] == []


def test_a_clock_change_is_shown(
    command: Any, source_flags: tuple[str, ...], tmp_path: Path
) -> None:
    built = command(
        "preprocess", *source_flags, "--store", tmp_path / "s", "--time-zone", "Europe/Berlin",
        "--end-date", "20250330",
    )  # fmt: skip
    assert built.code == 0, built.err
    change = {"kind": "skipped", "from": "2025-03-30T02:00", "to": "2025-03-30T03:00"}
    period = json.loads(command("inspect", tmp_path / "s", "--json").out)["period"]
    assert (period["time_zone"], period["clock_changes"]) == ("Europe/Berlin", [change])
    assert "clock skipped: 2025-03-30T02:00 to 2025-03-30T03:00" in (
        command("inspect", tmp_path / "s").out
    )


@pytest.mark.parametrize(
    "name", ["[/red]", ":car:", "[link=x]y", "'; DROP \"", "杭 州", "-q", "*", "%s{0}"]
)
def test_a_name_is_shown_as_it_is(name: str, command: Any, built: Path, tmp_path: Path) -> None:
    """Names are data: markup, emoji codes and quotes in them mean nothing."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to(built)
    table, content = (command("inspect", tmp_path / name, *flags) for flags in ([], ["--json"]))
    assert (table.code, content.code) == (0, 0), table.err + content.err
    assert json.loads(content.out)["path"] == str(tmp_path / name)
    assert name in table.out


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: None, ["No sample store at", "flowpatch preprocess"]),
        (lambda folder: folder.mkdir(), ["is no sample store"]),
        (lambda folder: folder.touch(), ["is no sample store"]),
    ],
)
def test_what_is_no_store_is_refused(
    make: Any, words: list[str], command: Any, tmp_path: Path
) -> None:
    make(tmp_path / "x")
    outcome = command("inspect", tmp_path / "x")
    assert outcome.code == 1
    assert all(word in outcome.error for word in ["x'", *words]), outcome.error


def test_an_unknown_version_is_refused_with_those_there(
    command: Any, built: Path, content: dict[str, Any]
) -> None:
    outcome = command("inspect", built, "--version", "nope")
    assert outcome.code == 1
    versions = [info["version"] for info in content["versions"]]
    assert all(word in outcome.error for word in ["'nope'", *versions])


def test_a_newer_format_is_refused_with_what_to_upgrade(command: Any, newer: Path) -> None:
    outcome = command("inspect", newer)
    assert outcome.code == 1
    assert all(word in outcome.error for word in (str(newer), "99", "pip install --upgrade"))


def test_a_damaged_store_gets_one_clear_line(process: Any, built: Path, tmp_path: Path) -> None:
    """In a process of its own, as Icechunk would log past Python's streams."""
    shutil.copytree(built, tmp_path / "s")
    for file in (tmp_path / "s/snapshots").iterdir():
        file.write_bytes(file.read_bytes()[:20])
    outcome = process("inspect", tmp_path / "s")
    assert outcome.code == 1
    assert "is damaged or unreadable" in outcome.error
    assert outcome.err.count("\n") == 1
