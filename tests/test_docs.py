"""The two pages on MaxCompute say the same, and what they name is there."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from flowpatch.cli import main
from flowpatch.cli.guide import preprocess_app, train_app
from maxcompute_emulator.__main__ import main as emulator

DOCS = Path(__file__).resolve().parents[1] / "docs"
ENGLISH, CHINESE = DOCS / "maxcompute.md", DOCS / "maxcompute.zh-CN.md"
PAGES = pytest.mark.parametrize("page", [ENGLISH, CHINESE], ids=["English", "Chinese"])

FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
COMMANDS = ("preprocess", "train", "doctor", "samples publish", "samples fetch")


# --- the pair -------------------------------------------------------------------------------------


def pieces(page: Path) -> list[str]:
    """Text and fenced blocks in turn, text first; a block begins with its language."""
    return re.split(r"^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE)


def prose(page: Path) -> str:
    """Everything outside of fenced blocks."""
    return "".join(pieces(page)[::2])


def code(page: Path) -> list[list[str]]:
    """The lines of each fenced block without their comments, its language first."""
    return [
        [line.split("#")[0].rstrip() for line in piece.splitlines()] for piece in pieces(page)[1::2]
    ]


def headings(page: Path) -> list[int]:
    """The level of each heading."""
    return [len(marks) for marks in re.findall(r"^(#+) \S", prose(page), re.MULTILINE)]


def tables(page: Path) -> list[list[list[str]]]:
    """The cells of each row of each table."""
    found = re.findall(r"(?:^\|.*\|$\n?)+", prose(page), re.MULTILINE)
    return [
        [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
        for table in found
    ]


def names(cell: str) -> list[str]:
    """What a cell sets as code: columns, flags, messages."""
    return sorted(re.findall(r"`([^`]+)`", cell))


@PAGES
def test_every_fence_is_closed(page: Path) -> None:
    assert len(pieces(page)) % 2 == 1


def test_the_code_is_the_same_but_for_comments() -> None:
    assert len(code(ENGLISH)) > 3
    assert code(CHINESE) == code(ENGLISH)


def test_the_headings_are_of_the_same_levels() -> None:
    assert len(headings(ENGLISH)) > 3
    assert headings(CHINESE) == headings(ENGLISH)


def test_the_tables_have_the_same_rows_and_columns() -> None:
    def shapes(page: Path) -> list[list[int]]:
        return [[len(row) for row in table] for table in tables(page)]

    assert len(shapes(ENGLISH)) > 3
    assert shapes(CHINESE) == shapes(ENGLISH)


def test_the_cells_of_the_tables_name_the_same() -> None:
    def named(page: Path) -> list[list[list[list[str]]]]:
        return [[[names(cell) for cell in row] for row in table] for table in tables(page)]

    assert named(CHINESE) == named(ENGLISH)


def test_both_pages_name_the_same_flags() -> None:
    assert set(FLAG.findall(prose(CHINESE))) == set(FLAG.findall(prose(ENGLISH)))


# --- what the pages name --------------------------------------------------------------------------


@PAGES
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", prose(page))
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.fixture
def known(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The flags in the help of every command that the pages speak of, with hyphens."""
    monkeypatch.setenv("COLUMNS", "300")  # One row a flag.

    def shown(words: str, command: Callable[[list[str]], object] = main) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            command([*words.split(), "--help"])
        assert not ended.value.code
        return capsys.readouterr().out

    helps = [
        *map(shown, COMMANDS),
        shown("", lambda words: main(words, preprocess_app)),
        shown("", lambda words: main(words, train_app)),
        shown("", emulator),
    ]
    flags: set[str] = set()
    for text in helps:
        # Behind a flag and its type stand two spaces and a sentence, which may name other flags.
        rows = re.findall(r"^(?:│ \*? *|  )((?:[A-Z]+ )?--\S.*?)(?:  |$)", text, re.MULTILINE)
        found = {flag for row in rows for flag in FLAG.findall(row)}
        assert len(found) >= 3, text
        flags |= {hyphenated(flag) for flag in found}
    return flags


def hyphenated(flag: str) -> str:
    return flag.replace("_", "-")


@PAGES
def test_every_flag_exists(page: Path, known: set[str]) -> None:
    named = {hyphenated(flag) for flag in FLAG.findall(page.read_text(encoding="utf-8"))}
    assert len(named) > 20
    assert sorted(named - known) == []
