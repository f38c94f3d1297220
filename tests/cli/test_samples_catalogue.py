"""`flowpatch samples list | show | log | compare`: every figure, recomputed from the values."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowpatch.catalogue import changing
from flowpatch.store.sample_store import open_store
from tiny_stores import A_DAY, Content, build, content, some_values, stop_while_writing, update


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, Content]]]:
    """A store of three versions: the second has a day rewritten and one more, the third a node."""
    path = tmp_path_factory.mktemp("history") / "city.store"
    first = content(1)
    new = some_values(2, 2, 3)
    second = first.with_days({1: new[:A_DAY], 3: new[A_DAY:]})
    third = content(3, 4, (2, 3, 4, 5))
    versions = [(build(path, first).version, first)]
    versions.append((update(path, open_store(path), second, [1, 3]).version, second))
    third = replace(third, shift=0.5)
    versions.append((build(path, third, {"aggregate": "sum", "null_value": 0}).version, third))
    changing.tag(path, "march", versions[0][0])
    return path, versions


def of_json(command: Any, *arguments: Any) -> Any:
    outcome = command("samples", *arguments, "--json")
    assert (outcome.code, outcome.err) == (0, ""), outcome.err
    return json.loads(outcome.out)


def coverage_of(one: Content) -> float:
    rows = np.flatnonzero((~np.isnan(one.values)).any(axis=1))
    return float((~np.isnan(one.values[rows[0] : rows[-1] + 1])).mean())


# --- list -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(history: tuple[Path, Any], newer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of stores of every kind, and of other things."""
    folder = tmp_path_factory.mktemp("many")
    shutil.copytree(history[0], folder / "a.store")
    shutil.copytree(newer, folder / "newer [red]\x1b[2J")
    stop_while_writing(folder / "stopped.store", content())
    damaged = shutil.copytree(history[0], folder / "torn.store")
    for file in (damaged / "snapshots").iterdir():
        file.write_bytes(file.read_bytes()[:20])
    (folder / "notes").mkdir()
    (folder / "notes" / "read me").touch()
    (folder / "file").touch()
    return folder


def test_list_has_a_row_for_each_store(
    command: Any, many: Path, history: tuple[Path, list[tuple[str, Content]]]
) -> None:
    found = of_json(command, "list", many)["stores"]
    assert [(store["name"], store["status"]) for store in found] == [
        ("a.store", "ok"), ("newer [red]\x1b[2J", "newer"), ("stopped.store", "unfinished"),
        ("torn.store", "damaged"),
    ]  # fmt: skip
    version, newest = history[1][-1]
    entry = found[0]
    assert (entry["version"], entry["versions"], entry["nodes"]) == (version, 3, 4)
    assert (entry["start"], entry["stop"]) == ("2025-03-03T00:00", "2025-03-07T00:00")
    assert entry["coverage"] == pytest.approx(coverage_of(newest))
    assert entry["tags"] == {"march": history[1][0][0]}
    assert entry["path"] == str(many / "a.store")
    assert entry["bytes"] == sum(f.stat().st_size for f in many.glob("a.store/**/*") if f.is_file())
    assert "Upgrade" in found[1]["problem"]


def test_list_prints_a_table_whatever_names_hold(command: Any, many: Path) -> None:
    outcome = command("samples", "list", many)
    assert (outcome.code, outcome.err) == (0, "")
    words = ["a.store", r"newer [red]\x1b[2J", "unfinished", "damaged", "newer flowpatch", "march"]
    assert [word for word in words if word not in outcome.out] == []


def test_list_of_a_store_is_that_store(command: Any, history: tuple[Path, Any]) -> None:
    (entry,) = of_json(command, "list", history[0])["stores"]
    assert entry["name"] == "city.store"


def test_list_of_an_empty_folder_says_so(command: Any, tmp_path: Path) -> None:
    assert command("samples", "list", tmp_path).out == f"No sample store in {tmp_path}.\n"
    assert of_json(command, "list", tmp_path)["stores"] == []


# --- show, log ------------------------------------------------------------------------------------


def test_show_has_what_inspect_has_and_where_a_version_stands(
    command: Any, history: tuple[Path, list[tuple[str, Content]]]
) -> None:
    path, ((first, _), (second, wanted), _) = history
    found = of_json(command, "show", path, "--version", second[:8])
    assert (
        found.items()
        >= json.loads(command("inspect", path, "--json", "--version", second).out).items()
    )
    assert (found["parent"], found["tags"], found["current"]) == (first, [], False)
    assert found["coverage"] == pytest.approx(coverage_of(wanted))
    assert found["runs"] == []
    assert of_json(command, "show", path, "--version", "march")["tags"] == ["march"]
    table = command("samples", "show", path, "--version", "march").out
    words = [first, "not the current one", "march", "none known", "kind: test", "format 2"]
    assert [word for word in words if word not in table] == []


def test_log_says_what_each_version_changed(
    command: Any, history: tuple[Path, list[tuple[str, Content]]]
) -> None:
    path, versions = history
    third, second, first = of_json(command, "log", path)["versions"]
    assert [one["version"] for one in (first, second, third)] == [name for name, _ in versions]
    assert [one["current"] for one in (first, second, third)] == [False, False, True]
    assert (first["tags"], first["parent"], first["changes"]) == (["march"], None, None)
    assert second["parent"] == first["version"]
    assert second["changes"] == {
        "days_added": ["2025-03-06"], "days_dropped": [], "days_rewritten": ["2025-03-04"],
        "nodes_added": [], "nodes_gone": [], "nodes_moved": [],
    }  # fmt: skip
    assert third["changes"] == {
        "days_added": [], "days_dropped": [], "days_rewritten": None,
        "nodes_added": ["4", "5"], "nodes_gone": ["1"], "nodes_moved": ["2", "3"],
    }  # fmt: skip
    assert [one["cells"] for one in (first, second, third)] == [36, 48, 64]
    table = command("samples", "log", path).out
    words = ["current", "march", "days rewritten: 1 (2025-03-04)", "nodes gone: 1 (1)"]
    assert [word for word in words if word not in table] == []


# --- compare --------------------------------------------------------------------------------------


def test_compare_counts_the_cells_that_differ(
    command: Any, history: tuple[Path, list[tuple[str, Content]]]
) -> None:
    path, ((first, before), (second, now), _) = history
    found = of_json(command, "compare", path, "march", second)
    old, new = before.day(1), now.day(1)
    was, is_now = ~np.isnan(old), ~np.isnan(new)
    changed = was & is_now & (old != new)
    assert found["cells"]["compared"] == 3 * A_DAY * 3
    assert found["cells"]["appeared"] == (is_now & ~was).sum()
    assert found["cells"]["vanished"] == (was & ~is_now).sum()
    assert found["cells"]["changed"] == changed.sum()
    differing = int((is_now ^ was).sum() + changed.sum())
    assert (found["cells"]["differing"], found["cells"]["share"]) == (differing, differing / 36)
    assert found["cells"]["largest_change"] == np.abs(new - old)[changed].max()
    assert found["days"] == {"added": ["2025-03-06"], "dropped": [], "changed": ["2025-03-04"]}
    assert (found["same_content"], found["settings"]) == (False, {})
    for side, one in (("before", before), ("now", now)):
        training = one.values[: len(one.values) // 2].astype(np.float64)
        assert found[side]["statistics"]["mean"] == pytest.approx(np.nanmean(training))
        assert found[side]["coverage"] == pytest.approx(coverage_of(one))
    assert found["now"]["splits"]["test_start"] == "2025-03-06T00:00"
    assert found["before"]["version"] == first


def test_compare_looks_only_at_nodes_that_both_have(
    command: Any, history: tuple[Path, list[tuple[str, Content]]]
) -> None:
    path, (_, (second, before), (third, now)) = history
    found = of_json(command, "compare", path)
    assert [found[side]["version"] for side in ("before", "now")] == [second, third]
    old, new = before.values[:, 1:], now.values[:, :2]
    same = (old == new) | (np.isnan(old) & np.isnan(new))
    assert (found["cells"]["compared"], found["cells"]["differing"]) == (32, (~same).sum())
    assert found["nodes"] == {"added": ["4", "5"], "gone": ["1"], "moved": ["2", "3"]}
    assert found["settings"] == {"aggregate": ["mean", "sum"], "null_value": [None, 0]}
    table = command("samples", "compare", path).out
    words = [second, third, "--null-value", "nodes added: 2 (4, 5)", "of 32 common cells differ"]
    assert [word for word in words if word not in table] == []


def test_compare_of_two_stores(
    command: Any, history: tuple[Path, list[tuple[str, Content]]], tmp_path: Path
) -> None:
    path, ((first, wanted), *_) = history
    other = build(tmp_path / "other", wanted)
    found = of_json(command, "compare", path, first, "--with", tmp_path / "other")
    assert (found["same_content"], found["cells"]["differing"]) == (True, 0)
    assert found["now"]["path"] == str(tmp_path / "other")
    assert found["now"]["version"] == other.version
    assert "The content is the same." in (
        command("samples", "compare", path, first, "--with", tmp_path / "other").out
    )


def test_cells_of_other_steps_are_not_compared(
    command: Any, history: tuple[Path, Any], small_store: Path
) -> None:
    found = of_json(command, "compare", history[0], "--with", small_store)
    assert (found["cells"], found["days"]["changed"]) == (None, None)
    table = command("samples", "compare", history[0], "--with", small_store).out
    assert "steps have other lengths" in table


def test_a_version_without_parent_has_nothing_to_be_compared_with(
    command: Any, small_store: Path
) -> None:
    outcome = command("samples", "compare", small_store)
    assert outcome.code == 1
    assert "has no parent" in outcome.error


# --- what is refused, by every command ------------------------------------------------------------

EVERY = {
    "list": [], "show": [], "log": [], "compare": [], "tag": ["name"], "untag": ["name"],
    "rollback": ["main"], "expire": ["--keep", "1"], "verify": [], "copy": ["COPY"],
    "remove": ["--yes"],
}  # fmt: skip


def refused(command: Any, name: str, store: Path, tmp_path: Path) -> str:
    given = [str(tmp_path / "copy") if word == "COPY" else word for word in EVERY[name]]
    outcome = command("samples", name, store, *given)
    assert outcome.code == 1, outcome
    assert not (tmp_path / "copy").exists()
    error: str = outcome.error
    return error


@pytest.mark.parametrize("name", EVERY)
def test_no_store_is_refused(name: str, command: Any, tmp_path: Path) -> None:
    assert "none.store'" in refused(command, name, tmp_path / "none.store", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in EVERY if name != "list"])
def test_what_is_no_store_is_refused_and_stays(name: str, command: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("years of work")
    assert "no sample store" in refused(command, name, tmp_path / "mine", tmp_path)
    assert (tmp_path / "mine" / "thesis").read_text() == "years of work"
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("name", [name for name in EVERY if name not in ("list", "remove")])
def test_an_unfinished_store_is_refused(name: str, command: Any, tmp_path: Path) -> None:
    stop_while_writing(tmp_path / "s", content())
    error = refused(command, name, tmp_path / "s", tmp_path)
    # It has no tag either.
    assert "no finished version" in error or name in ("untag", "rollback")


@pytest.mark.parametrize("name", ["show", "log", "compare", "verify", "copy"])
def test_a_newer_format_is_refused(name: str, command: Any, newer: Path, tmp_path: Path) -> None:
    store = shutil.copytree(newer, tmp_path / "newer")
    given = [str(tmp_path / "copy") if word == "COPY" else word for word in EVERY[name]]
    outcome = command("samples", name, store, *given)
    assert outcome.code == 1
    assert "99" in outcome.error
    assert "pip install --upgrade" in outcome.error


HOSTILE = ["../../x", "a'b\"; rm -rf /", "a\nb", "\x1b[2J", "[red]x[/red]", "", "..", "-", "é" * 99]


@pytest.mark.parametrize("version", ["AB", "nope", *HOSTILE])
def test_an_unknown_version_is_refused_with_those_there(
    version: str, command: Any, history: tuple[Path, list[tuple[str, Content]]]
) -> None:
    path, versions = history
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    for words in (
        ["show", path, f"--version={version}"], ["tag", path, "x", f"--version={version}"],
        ["verify", path, f"--version={version}"], ["rollback", path, f"--version={version}"],
        ["compare", path, f"--before={version}"],
    ):  # fmt: skip
        outcome = command("samples", *words)
        assert outcome.code == 1, outcome
        assert all(known in outcome.error for known, _ in versions), outcome.error
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tag_is_refused_and_changes_nothing(
    name: str, command: Any, history: tuple[Path, Any]
) -> None:
    path = history[0]
    before = sorted(path.parent.rglob("*"))
    outcome = command("samples", "tag", path, f"--name={name}")
    assert outcome.code == 2
    assert "is no tag" in outcome.error
    assert command("samples", "untag", path, f"--name={name}").code == 1
    assert sorted(path.parent.rglob("*")) == before


@pytest.mark.parametrize("name", ["a'b\"; rm -rf ~", "a\nb", "[red]x", "$(x)", "*", "-x"])
def test_a_hostile_name_of_a_store_is_only_a_name(
    name: str, command: Any, history: tuple[Path, Any], tmp_path: Path
) -> None:
    store = shutil.copytree(history[0], tmp_path / name)
    for words in (["list"], ["show"], ["log"], ["compare"], ["tag", "x"], ["verify"],
                  ["expire", "--keep", "3"]):  # fmt: skip
        outcome = command("samples", words[0], store, *words[1:])
        assert outcome.code == 0, outcome.err
    assert command("samples", "copy", store, tmp_path / f"{name} 2").code == 0
    assert command("samples", "remove", store, "--yes").code == 0
    assert [file.name for file in tmp_path.iterdir()] == [f"{name} 2"]
