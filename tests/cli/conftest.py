"""What the tests of the command line share: a way to run it, a built store and a trained run."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import flowpatch
from flowpatch.cli import main

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one error message of a failure, which is all that it may show."""
        assert self.code != 0, self
        assert self.out == "", "results and errors do not mix"
        _, *messages = re.split(r"^error: ", self.err, flags=re.MULTILINE)
        assert len(messages) == 1, self.err
        assert "Traceback" not in self.err, self.err
        assert "fault of flowpatch" not in self.err, self.err
        return messages[0]


Command = Callable[..., Outcome]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in this process, where neither stream is a terminal."""

    def run(*arguments: Any) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        written = capsys.readouterr()
        assert not CONTROL.search(written.out + written.err), "no control characters in a pipe"
        assert isinstance(ended.value.code, int)
        return Outcome(ended.value.code, written.out, written.err)

    return run


@pytest.fixture
def process() -> Command:
    """Runs a command in a process of its own."""

    def run(*arguments: Any, **environment: str) -> Outcome:
        ended = subprocess.run(
            [sys.executable, "-m", "flowpatch", *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
        )
        return Outcome(ended.returncode, ended.stdout, ended.stderr)

    return run


@pytest.fixture(scope="session")
def source_flags(small_city: Path) -> tuple[str, ...]:
    """The small city as flags of `preprocess`; the store is still to be named."""
    return (
        "--records", str(small_city / "records.parquet"), "--nodes", str(small_city / "nodes.csv"),
        "--node-columns", "sensor_id", "--step-minutes", "30",
    )  # fmt: skip


def settings_of(small_city: Path, store: Path, **changes: Any) -> flowpatch.PreprocessSettings:
    given: dict[str, Any] = {
        "records": str(small_city / "records.parquet"),
        "nodes": str(small_city / "nodes.csv"),
        "node_columns": "sensor_id",
        "step_minutes": 30,
        "store": store,
    }
    return flowpatch.PreprocessSettings(**{**given, **changes})


@pytest.fixture(scope="session")
def built(small_city: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the small city with two versions; no test writes to it."""
    store = tmp_path_factory.mktemp("built") / "city.store"
    flowpatch.preprocess(settings_of(small_city, store, null_value=0))
    return flowpatch.preprocess(settings_of(small_city, store, overwrite=True)).path


@pytest.fixture(scope="session")
def newer(small_city: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that a later flowpatch wrote."""
    store = tmp_path_factory.mktemp("newer") / "s"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("flowpatch.store.manifest.FORMAT", 99)
        flowpatch.preprocess(settings_of(small_city, store))
    return store


TINY = (
    "--layers", "1", "--input-dims", "4", "--node-dims", "4", "--tod-dims", "4", "--dow-dims", "4",
    "--device", "cpu",
)  # fmt: skip
"""The smallest model: training takes a moment."""


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    return TINY


@pytest.fixture(scope="session")
def trained(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch on the store `built`; no test writes to it."""
    run = tmp_path_factory.mktemp("trained") / "run"
    with pytest.raises(SystemExit) as ended:
        main(["train", str(built), "--run", str(run), *TINY, "--max-epoch", "1"])
    assert ended.value.code == 0
    return run
