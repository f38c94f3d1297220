"""Pages in two languages say the same, and what they name is there."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser

from flowpatch.cli import main
from flowpatch.cli.guide import preprocess_app, train_app
from maxcompute_emulator.__main__ import main as emulator

DOCS = Path(__file__).resolve().parents[1] / "docs"
NAMES = ("maxcompute", "operating", "several-devices")
Pair = tuple[Path, Path]
"""A page in English and in Chinese."""
PAIRS = pytest.mark.parametrize(
    "pair", [(DOCS / f"{name}.md", DOCS / f"{name}.zh-CN.md") for name in NAMES], ids=NAMES
)
PAGES = pytest.mark.parametrize(
    "page", [DOCS / f"{name}{ending}" for name in NAMES for ending in (".md", ".zh-CN.md")]
)

FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
SAMPLES = (
    "list", "log", "show", "compare", "tag", "untag", "rollback", "expire", "copy", "remove",
    "verify", "publish", "fetch",
)  # fmt: skip
COMMANDS = (
    "preprocess",
    "update",
    "train",
    "evaluate",
    "doctor",
    *(f"samples {name}" for name in SAMPLES),
)


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


@PAIRS
def test_the_code_is_the_same_but_for_comments(pair: Pair) -> None:
    english, chinese = pair
    assert len(code(english)) >= 3
    assert code(chinese) == code(english)


@PAIRS
def test_the_headings_are_of_the_same_levels(pair: Pair) -> None:
    english, chinese = pair
    assert len(headings(english)) > 3
    assert headings(chinese) == headings(english)


@PAIRS
def test_the_tables_have_the_same_rows_and_columns(pair: Pair) -> None:
    english, chinese = pair

    def shapes(page: Path) -> list[list[int]]:
        return [[len(row) for row in table] for table in tables(page)]

    assert len(shapes(english)) >= 2
    assert shapes(chinese) == shapes(english)


@PAIRS
def test_the_cells_of_the_tables_name_the_same(pair: Pair) -> None:
    english, chinese = pair

    def named(page: Path) -> list[list[list[list[str]]]]:
        return [[[names(cell) for cell in row] for row in table] for table in tables(page)]

    assert named(chinese) == named(english)


@PAIRS
def test_both_pages_name_the_same_flags(pair: Pair) -> None:
    english, chinese = pair
    assert set(FLAG.findall(prose(chinese))) == set(FLAG.findall(prose(english)))


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
        assert len(found) >= 2, text
        flags |= {hyphenated(flag) for flag in found}
    launchers = (get_args_parser(), launch_command_parser())
    flags |= {hyphenated(flag) for one in launchers for flag in one._option_string_actions}
    return flags


def hyphenated(flag: str) -> str:
    return flag.replace("_", "-")


@PAGES
def test_every_flag_exists(page: Path, known: set[str]) -> None:
    named = {hyphenated(flag) for flag in FLAG.findall(page.read_text(encoding="utf-8"))}
    assert len(named) >= 10
    assert sorted(named - known) == []
