"""`python -m maxcompute_emulator` as a person starts it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import urlopen

import pytest
from odps import ODPS, errors

READY = re.compile(
    r"MaxCompute emulator at (http://127\.0\.0\.1:\d+/api) "
    r"\(projects: (.*); control at (http://127\.0\.0\.1:\d+/emulator)\)\n"
)
KEYS = {
    "ALIBABA_CLOUD_ACCESS_KEY_ID": "some-id",
    "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "some-secret-value",
}


@contextmanager
def command(*flags: str, **environment: str) -> Iterator[re.Match]:
    """The running command's line; it must end quietly when it is interrupted."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("ALIBABA_CLOUD_")}
    running = subprocess.Popen(
        [sys.executable, "-m", "maxcompute_emulator", "--port", "0", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**inherited, **environment},
    )
    line = running.stdout.readline()
    try:
        match = READY.fullmatch(line)
        assert match, line + running.stderr.read()
        yield match
    finally:
        running.send_signal(signal.SIGINT)
        rest, said = running.communicate(timeout=20)
    assert (running.returncode, rest, said) == (0, "", "")
    assert "some-secret-value" not in line


def client(match: re.Match, key_id: str = "emulator", secret: str = "emulator") -> ODPS:  # noqa: S107
    return ODPS(key_id, secret, project=match[2].split(",")[0], endpoint=match[1])


def test_it_says_where_it_is_and_serves():
    with command() as match:
        assert match[2] == "demo"
        with urlopen(f"{match[3]}/health") as answer:  # noqa: S310
            assert answer.status == 200
        assert client(match).exist_project("demo")


def test_projects_and_the_account_of_the_environment(tmp_path):
    flags = ("--project", "one", "--project", "two", "--database", str(tmp_path / "d.duckdb"))
    with command(*flags, **KEYS) as match:
        assert match[2] == "one, two"
        assert client(match, "some-id", "some-secret-value").exist_project("two")
        with pytest.raises(errors.Unauthorized):
            client(match).exist_project("one")
    assert (tmp_path / "d.duckdb").exists()


def test_an_empty_security_token_is_none():
    with command(ALIBABA_CLOUD_SECURITY_TOKEN="") as match:
        assert client(match).exist_project("demo")


def test_a_security_token_of_the_environment_is_required():
    token = {"ALIBABA_CLOUD_SECURITY_TOKEN": "a-token"}
    with command(**token) as match, pytest.raises(errors.Unauthorized):
        client(match).exist_project("demo")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--bandwidth", "0"], "0 is not positive"),
        (["--port", "no"], "invalid int value"),
        (["--colour"], "unrecognized arguments"),
        (["--time-zone", "Mars/Olympus"], "Mars/Olympus"),
    ],
)
def test_wrong_flags_are_refused(flags, message):
    done = subprocess.run(
        [sys.executable, "-m", "maxcompute_emulator", *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr


def test_a_port_in_use_is_said(emulator):
    done = subprocess.run(
        [sys.executable, "-m", "maxcompute_emulator", "--port", str(emulator.port)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"Port {emulator.port} cannot be used" in done.stderr
    assert "Traceback" not in done.stderr
