"""`flowpatch samples tag | untag | rollback | expire | verify | copy | remove`."""

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowpatch.catalogue.lineage import RunNote, write_note
from flowpatch.places.place import place_of
from flowpatch.store.sample_store import open_store
from tiny_stores import build, content


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "city.store"


@pytest.fixture
def versions(store: Path) -> list[str]:
    """Of a store of three, oldest first."""
    return [build(store, content(seed, 2)).version for seed in range(3)]


def of_json(command: Any, *arguments: Any) -> Any:
    outcome = command("samples", *arguments, "--json")
    assert (outcome.code, outcome.err) == (0, ""), outcome.err
    return json.loads(outcome.out)


def versions_of(command: Any, store: Path) -> list[str]:
    return [one["version"] for one in of_json(command, "log", store)["versions"]]


# --- tag, untag, rollback -------------------------------------------------------------------------


def test_a_tag_that_moves_says_from_where_to_where(
    command: Any, store: Path, versions: list[str]
) -> None:
    assert command("samples", "tag", store, "best").out == f"Tag 'best' names {versions[2]}.\n"
    moved = command("samples", "tag", store, "best", "--version", versions[0][:6])
    assert moved.out == f"Tag 'best' moved from {versions[2]} to {versions[0]}.\n"
    assert open_store(store, "best").version == versions[0]
    assert "already" in command("samples", "tag", store, "best", "--version", "best").out
    assert of_json(command, "tag", store, "best", "--version", versions[1]) == {
        "path": str(store), "tag": "best", "before": versions[0], "version": versions[1],
    }  # fmt: skip
    assert versions[1] in command("samples", "untag", store, "best").out
    outcome = command("samples", "untag", store, "best")
    assert outcome.code == 1
    assert "no tag 'best'" in outcome.error


def test_rollback_says_how_to_go_back(command: Any, store: Path, versions: list[str]) -> None:
    outcome = command("samples", "rollback", store, versions[0])
    assert outcome.code == 0
    assert open_store(store).version == versions[0]
    back = outcome.out.splitlines()[1].removeprefix("To go back: flowpatch ").split()
    assert command(*back).code == 0
    assert open_store(store).version == versions[2]
    assert versions_of(command, store) == versions[::-1]
    assert "already" in command("samples", "rollback", store, versions[2]).out
    assert of_json(command, "rollback", store, versions[1]) == {
        "path": str(store), "before": versions[2], "current": versions[1],
    }  # fmt: skip


# --- expire ---------------------------------------------------------------------------------------


def test_expire_keeps_what_is_needed_and_says_why(
    command: Any, store: Path, versions: list[str], tiny: tuple[str, ...], tmp_path: Path
) -> None:
    versions += [build(store, content(seed, 20)).version for seed in (3, 4)]
    trained = command(
        "train", store, "--store-version", versions[3], "--run", tmp_path / "runs/deep/a", *tiny,
        "--max-epoch", "1",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    command("samples", "tag", store, "kept", "--version", versions[0])
    command("samples", "rollback", store, versions[1])
    dry = of_json(command, "expire", store, "--keep", "1", "--runs", tmp_path, "--dry-run")
    assert (dry["expired"], dry["bytes_freed"]) == ([versions[2]], None)
    assert versions_of(command, store) == versions[::-1]
    before = place_of(store).total_bytes()
    outcome = command("samples", "expire", store, "--keep", "1", "--runs", tmp_path)
    assert outcome.code == 0, outcome.err
    for line in (
        f"is gone: {versions[2]}", f"stays: {versions[4]}, one of the newest 1",
        f"stays: {versions[3]}, run '{tmp_path}/runs/deep/a'", f"stays: {versions[1]}, current",
        f"stays: {versions[0]}, tag 'kept'", "1 of 5 versions is gone",
    ):  # fmt: skip
        assert line in outcome.out
    freed = before - place_of(store).total_bytes()
    assert f"{freed / 1e3:,.1f} kB freed" in outcome.out
    assert freed > 0
    assert versions_of(command, store) == [versions[i] for i in (4, 3, 1, 0)]
    shown = of_json(command, "show", store, "--version", versions[3])
    assert [note["run"] for note in shown["runs"]] == [str(tmp_path / "runs/deep/a")]
    assert command("train", "--resume", tmp_path / "runs/deep/a", "--max-epoch", "2").code == 0


def test_expire_by_age_keeps_what_is_younger(
    command: Any, store: Path, versions: list[str]
) -> None:
    assert of_json(command, "expire", store, "--older-than", "1")["expired"] == []
    both = of_json(command, "expire", store, "--older-than", "0", "--keep", "2")
    assert both["expired"] == [versions[0]]
    assert of_json(command, "expire", store, "--older-than", "0")["expired"] == [versions[1]]
    assert versions_of(command, store) == [versions[2]]


@pytest.mark.parametrize("given", [[], ["--keep", "0"], ["--older-than", "-1"]])
def test_expire_needs_a_rule(given: list[str], command: Any, store: Path, versions: Any) -> None:
    outcome = command("samples", "expire", store, *given)
    assert outcome.code == 2
    assert "--keep" in outcome.error or "Bad value" in outcome.error
    assert versions_of(command, store) == versions[::-1]


def test_expire_does_not_guess_what_a_damaged_checkpoint_needs(
    command: Any, store: Path, versions: list[str], trained: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(trained, runs / "a")
    (runs / "b.safetensors").write_bytes(b"torn")
    outcome = command("samples", "expire", store, "--keep", "1", "--runs", runs)
    assert outcome.code == 1
    assert "b.safetensors' is damaged" in outcome.error
    assert command("samples", "expire", store, "--keep", "1", "--runs", runs / "c").code == 1
    assert versions_of(command, store) == versions[::-1]


# --- verify ---------------------------------------------------------------------------------------


def test_verify_says_what_it_read(command: Any, store: Path, versions: list[str]) -> None:
    one = of_json(command, "verify", store)["versions"]
    (found,) = one
    assert (found["version"], found["days"], found["nodes"], found["cells"]) == (
        versions[2], 2, 3, 24,
    )  # fmt: skip
    assert "content hash" in found["checked"]
    assert found["content_hash"] == open_store(store).manifest.content_hash
    every = of_json(command, "verify", store, "--all")["versions"]
    assert [one["version"] for one in every] == versions[::-1]
    assert f"{versions[0]} is whole: checked values of 2 days, 3 nodes" in (
        command("samples", "verify", store, "--version", versions[0]).out
    )
    assert command("samples", "verify", store, "--all", "--version", "x").code == 2


def test_verify_names_the_day_that_is_damaged(command: Any, tmp_path: Path) -> None:
    store = tmp_path / "s"
    build(store, content(1, 2))
    flipped = 0
    for file in (store / "chunks").iterdir():
        torn = bytearray(file.read_bytes())
        torn[len(torn) // 2] ^= 1
        file.write_bytes(torn)
        flipped += 1
    assert flipped
    for more in ([], ["--json"], ["--all"]):
        outcome = command("samples", "verify", store, *more)
        assert outcome.code == 1
        assert "2025-03-03 to 2025-03-04 cannot be read (chunk 'value/c/0/0'" in outcome.error


# --- copy -----------------------------------------------------------------------------------------


def test_a_copy_has_all_versions_tags_and_notes(
    command: Any, store: Path, versions: list[str], tmp_path: Path
) -> None:
    command("samples", "tag", store, "best", "--version", versions[0])
    note = RunNote.of("runs/a", "trained", versions[0], "hash", "best")
    write_note(place_of(store), note)
    done = of_json(command, "copy", store, tmp_path / "deep" / "copy")
    assert (done["versions"], done["tags"]) == (3, ["best"])
    assert done["verified"]["version"] == versions[2]
    for version in versions:
        one, other = (open_store(path, version) for path in (store, tmp_path / "deep/copy"))
        assert np.array_equal(one.read(), other.read(), equal_nan=True)
    shown = of_json(command, "show", tmp_path / "deep/copy", "--version", "best")
    assert shown["runs"] == [note.to_json()]
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["copy"]


def test_a_copy_goes_nowhere_where_something_is(
    command: Any, store: Path, versions: list[str], tmp_path: Path
) -> None:
    other = build(tmp_path / "other", content(9))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis").touch()
    (tmp_path / "file").touch()
    for place in ("other", "mine", "file"):
        outcome = command("samples", "copy", store, tmp_path / place)
        assert outcome.code == 1
        assert f"{place}'" in outcome.error
    assert command("samples", "copy", store, tmp_path / "mine", "--overwrite").code == 1
    assert command("samples", "copy", store, store, "--overwrite").code == 2
    assert open_store(tmp_path / "other").version == other.version
    assert command("samples", "copy", store, tmp_path / "other", "--overwrite").code == 0
    assert versions_of(command, tmp_path / "other") == versions[::-1]


# --- remove ---------------------------------------------------------------------------------------


def test_remove_needs_a_terminal_or_a_yes(
    command: Any, store: Path, versions: list[str], tmp_path: Path
) -> None:
    outcome = command("samples", "remove", store)
    assert outcome.code == 2
    assert all(word in outcome.error for word in ("3 versions", "--yes", str(store)))
    assert versions_of(command, store) == versions[::-1]
    assert of_json(command, "remove", store, "--yes")["versions"] == 3
    assert list(tmp_path.iterdir()) == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("answer", ["yes\n", "no\n", "y\n", "\n", ""])
def test_remove_asks_and_shows_what_is_lost(
    answer: str, command: Any, store: Path, versions: list[str], monkeypatch: Any
) -> None:
    write_note(place_of(store), RunNote.of("runs/\x1b[2Ja", "trained", versions[0], "hash"))
    command("samples", "tag", store, "best")
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    outcome = command("samples", "remove", store)
    assert all(word in outcome.err for word in ("3 versions, tags best", r"runs/\x1b[2Ja", "yes"))
    if answer == "yes\n":
        assert (outcome.code, store.exists()) == (0, False)
    else:
        assert outcome.code == 130
        assert "Nothing was removed." in outcome.err
        assert versions_of(command, store) == versions[::-1]


def test_remove_spares_a_folder_that_holds_more_than_a_store(
    command: Any, store: Path, versions: list[str]
) -> None:
    (store / "thesis").write_text("years of work")
    outcome = command("samples", "remove", store, "--yes")
    assert outcome.code == 1
    assert "it holds 'thesis'" in outcome.error
    assert versions_of(command, store) == versions[::-1]


def test_remove_spares_a_repository_of_git(command: Any, tmp_path: Path) -> None:
    """It has a folder `refs` too."""
    for name in ("refs/heads/main", "HEAD", "objects/ab/cd"):
        (tmp_path / "bare" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bare" / name).write_text("x")
    assert command("samples", "remove", tmp_path / "bare", "--yes").code == 1
    assert (tmp_path / "bare/HEAD").exists()


def test_remove_takes_damaged_and_unfinished_stores(
    command: Any, store: Path, versions: list[str]
) -> None:
    for file in (store / "snapshots").iterdir():
        file.write_bytes(b"torn")
    assert "damaged" in command("samples", "remove", store, "--yes").out
    assert not store.exists()


@pytest.mark.parametrize(
    "words",
    [["tag", "S", "x"], ["untag", "S", "x"], ["rollback", "S", "x"], ["expire", "S", "--keep=1"],
     ["remove", "S", "--yes"], ["copy", "OTHER", "S", "--overwrite"]],
    ids=lambda words: words[0],
)  # fmt: skip
def test_a_store_that_is_written_is_not_changed(
    words: list[str], command: Any, store: Path, versions: list[str], tmp_path: Path
) -> None:
    build(tmp_path / "other", content())
    places = {"S": store, "OTHER": tmp_path / "other"}
    with place_of(store).writer_lock():
        outcome = command("samples", *(places.get(word, word) for word in words))
    assert outcome.code == 1
    assert "is being written by process" in outcome.error
    assert versions_of(command, store) == versions[::-1]
