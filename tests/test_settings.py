"""Strict settings: what is unknown, missing or not allowed is an error that says so."""

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from flowpatch.errors import FlowpatchError, SettingsError
from flowpatch.settings import Date, Names, Settings, format_bytes, parse_bytes, read_toml


class Example(Settings):
    size: Annotated[int, Field(ge=1)]
    rate: float = 0.5
    rule: Literal["mean", "sum"] = "mean"
    columns: Names = ("a",)
    day: Date | None = None


def message_of(**values: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        Example(**values)
    return str(caught.value)


def test_an_unknown_key_is_named_beside_all_that_are_allowed() -> None:
    message = message_of(size=1, szie=2)
    assert message == "Unknown setting 'szie'. Allowed: columns, day, rate, rule, size."


def test_a_missing_key_says_how_to_give_it() -> None:
    assert message_of() == "'size' is missing: give --size, or the key in a TOML file."


def test_a_value_out_of_a_list_names_the_list() -> None:
    assert message_of(size=1, rule="avg") == "Unknown rule 'avg'. Allowed: mean, sum."


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"size": 0}, ("'0'", "size", "greater than or equal to 1")),
        ({"size": "many"}, ("'many'", "size", "integer")),
        ({"size": 1.5}, ("'1.5'", "size")),
        ({"size": 1, "rate": float("nan")}, ("nan", "rate", "finite")),
        ({"size": 1, "rate": float("inf")}, ("inf", "rate", "finite")),
        ({"size": 1, "columns": 5}, ("'5'", "columns")),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(
    values: dict[str, Any], words: tuple[str, ...]
) -> None:
    message = message_of(**values)
    assert all(word in message for word in words), message


def test_every_fault_has_its_own_line() -> None:
    assert len(message_of(size=0, rule="avg", x=1).splitlines()) == 3


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Example(size=1).size = 2


def test_replace_changes_one_key_and_checks_again() -> None:
    settings = Example(size=1, columns=("a", "b"), day=date(2025, 9, 19))
    assert settings.replace(size=2) == Example(size=2, columns="a,b", day="20250919")
    assert settings.size == 1
    with pytest.raises(SettingsError, match="'-1'"):
        settings.replace(size=-1)
    with pytest.raises(SettingsError, match="Unknown setting 'nope'"):
        settings.replace(nope=1)


@pytest.mark.parametrize("written", ["a,b", ["a", "b"], ("a", "b"), " a , b ", ["a,b"], "a,,b,"])
def test_names_are_split_at_commas_and_stripped(written: Any) -> None:
    assert Example(size=1, columns=written).columns == ("a", "b")


def test_names_keep_what_is_odd_about_them() -> None:
    assert Example(size=1, columns='编号,a b;c,"q"').columns == ("编号", "a b;c", '"q"')


@given(day=st.dates(min_value=date(1000, 1, 1)))
def test_a_day_is_read_in_both_spellings(day: date) -> None:
    compact = day.strftime("%Y%m%d")
    for written in (compact, int(compact), day.isoformat(), day):
        assert Example(size=1, day=written).day == day


@pytest.mark.parametrize(
    "written",
    ["20250931", 20251301, "2025", "202511", 202511, "2025091", "20250919080000", "1758240000", 0],
)
def test_digits_that_are_no_day_are_refused(written: Any) -> None:
    """202511 is no first of January: a lenient reader would build another period than asked."""
    message = message_of(size=1, day=written)
    assert f"'{written}'" in message
    assert "2025-09-19" in message


@pytest.mark.parametrize("written", ["today", "2025/09/19", "2025-9-19", "19.09.2025", ""])
def test_text_that_is_no_day_is_refused(written: str) -> None:
    assert f"'{written}'" in message_of(size=1, day=written)


def test_toml_gives_the_sections_of_the_commands(tmp_path: Path) -> None:
    path = tmp_path / "城市.toml"
    path.write_text('[train]\nlayers = 3\n[preprocess]\nnode_columns = ["甲", "b"]\n', "utf-8")
    assert read_toml(path, ("preprocess", "train")) == {
        "train": {"layers": 3},
        "preprocess": {"node_columns": ["甲", "b"]},
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[trian]\nlayers = 3\n", ("'trian'", "[preprocess], [train]")),
        (b"layers = 3\n", ("'layers'", "[train]")),
        (b"train = 3\n", ("'train'", "[train]")),
        (b"[train\n", ("not valid TOML", "city.toml")),
        (b"[train]\nlayers = 3\nlayers = 4\n", ("not valid TOML",)),
        ("[train]\nx = '杭州'\n".encode("gbk"), ("Cannot read", "city.toml")),
    ],
)
def test_a_bad_settings_file_is_explained(
    tmp_path: Path, content: bytes, words: tuple[str, ...]
) -> None:
    path = tmp_path / "city.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        read_toml(path, ("train", "preprocess"))
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_settings_file_that_is_not_there_or_a_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"No settings file .*none\.toml.*--config"):
        read_toml(tmp_path / "none.toml", ())
    with pytest.raises(SettingsError, match="Cannot read the settings file"):
        read_toml(tmp_path, ())


def test_a_settings_error_is_misuse() -> None:
    with pytest.raises(FlowpatchError) as caught:
        Example()
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GB", 2 * 10**9),
        ("500MB", 500 * 10**6),
        ("1.5 GiB", 3 * 2**29),
        ("2gib", 2**31),
        ("64 kB", 64_000),
        ("2000000000", 2 * 10**9),
        (4096, 4096),
    ],
)
def test_a_size_is_bytes(text: str | int, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "2G", "GB", "-2GB", "0", "0.1 B", "2 parsecs", "1e9", "None"])
def test_what_is_no_size_says_how_to_write_one(text: str) -> None:
    with pytest.raises(SettingsError, match=f"'{text}' is no size. Write it as 2GB, 500MB"):
        parse_bytes(text)


def test_a_size_is_shown_in_three_figures() -> None:
    sizes = (16_084_224_000, 42_900_000, 135_000, 12)
    assert [format_bytes(size) for size in sizes] == ["16.1 GB", "42.9 MB", "135 kB", "12 bytes"]
