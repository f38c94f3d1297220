"""What a launcher says in the environment, and what it must not leave out."""

import re

import pytest

from flowpatch.errors import SettingsError
from flowpatch.launch import Launch, is_main
from flowpatch.progress import say

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_without_a_launcher_a_process_is_alone(launched: pytest.MonkeyPatch) -> None:
    assert Launch.of_environment() == Launch(0, 1, 0, 1)
    assert is_main()
    launched.setenv("WORLD_SIZE", "1")
    assert Launch.of_environment().is_alone


def test_the_second_process_of_the_second_machine(
    launched: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in zip(NAMES, "3412", strict=True):
        launched.setenv(name, value)
    launch = Launch.of_environment()
    assert launch == Launch(rank=3, size=4, local_rank=1, local_size=2)
    assert launch.first_here == 2
    assert not launch.is_main
    assert not launch.is_first_here
    say("nothing")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        (("0", "2", "0", ""), "LOCAL_WORLD_SIZE="),
        (("", "2", "0", "2"), "RANK="),
        (("2", "2", "0", "2"), "RANK=2, WORLD_SIZE=2"),
        (("1", "2", "1", "1"), "LOCAL_RANK=1, LOCAL_WORLD_SIZE=1"),
        (("-1", "2", "0", "2"), "RANK=-1"),
    ],
)
def test_an_environment_that_makes_no_sense_is_named(
    launched: pytest.MonkeyPatch, values: tuple[str, ...], wrong: str
) -> None:
    for name, value in zip(NAMES, values, strict=True):
        launched.setenv(name, value)
    with pytest.raises(SettingsError, match=re.escape(wrong)) as raised:
        Launch.of_environment()
    assert "torchrun" in str(raised.value)
