"""What the READMEs say works: their commands and their Python are run, on a smaller city."""

import re
import shlex
from pathlib import Path

import pytest

from flowpatch.cli import main

ROOT = Path(__file__).resolve().parents[1]
README, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"


def blocks(readme: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    fences = re.split(r"^```", readme.read_text(encoding="utf-8"), flags=re.MULTILINE)
    # Every second piece is inside a fence; its first line names the language.
    inside = [piece.split("\n", 1) for piece in fences[1::2]]
    return [content for name, content in inside if name == language]


def commands(readme: Path) -> list[list[str]]:
    """Every flowpatch command, as its words."""
    lines = "\n".join(blocks(readme, "bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("flowpatch ")]


def run(words: list[str]) -> None:
    """Runs a command; it must succeed."""
    with pytest.raises(SystemExit) as stopped:
        main(words[1:])
    assert stopped.value.code == 0, words


def smaller(words: list[str]) -> list[str]:
    """The same command on a city that takes seconds."""
    instead = {"300": "20", "5": "1", "8": "2"}
    return [
        instead.get(word, word) if before in {"--nodes", "--max-epoch"} else word
        for before, word in zip(["", *words], words, strict=False)
    ]


def test_the_commands_and_the_python_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in commands(README):
        run(smaller(words))
    assert "PatchSTG" in capsys.readouterr().out
    (code,) = blocks(README, "python")
    exec(compile(code, str(README), "exec"), {})  # noqa: S102
    assert re.search(r"2025-03-17T00:00 \(12, 20\)", capsys.readouterr().out)


def test_the_toml_stands_for_the_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(smaller(commands(README)[0]))
    (content,) = blocks(README, "toml")
    Path("city.toml").write_text(content)
    run(["flowpatch", "preprocess", "--config", "city.toml"])
    assert Path("city.store").is_dir()


def test_both_readmes_hold_the_same_commands() -> None:
    assert commands(README)
    assert commands(CHINESE) == commands(README)

    def code(readme: Path) -> list[str]:
        lines = "".join(blocks(readme, "python") + blocks(readme, "toml")).splitlines()
        return [line.split("#")[0].rstrip() for line in lines if line.split("#")[0].strip()]

    assert code(CHINESE) == code(README)


@pytest.mark.parametrize("readme", [README, CHINESE], ids=["English", "Chinese"])
def test_every_link_leads_somewhere(readme: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", readme.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("readme", [README, CHINESE], ids=["English", "Chinese"])
def test_the_tree_names_every_file_of_the_package(readme: Path) -> None:
    tree = next(block for block in blocks(readme, "") if block.startswith("src/flowpatch/"))
    named = set(re.findall(r"[\w*]+\.py", tree))
    files = {path.name for path in (ROOT / "src" / "flowpatch").rglob("*.py")}
    files |= {path.name for path in ROOT.glob("*.py")}
    unnamed = {name for name in files - named if not name.startswith(("__", "simulated"))}
    cli = {path.name for path in (ROOT / "src" / "flowpatch" / "cli").glob("*.py")}
    assert unnamed - cli == set()
    assert {name for name in named if "*" not in name} <= files
