"""The writer's lock: one holder at a time, named to the second, and dropped with its process."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowpatch.errors import StoreLockedError, StoreWriteError
from flowpatch.store.lock import writer_lock

HOLD = """
import sys
from pathlib import Path
from flowpatch.store.lock import writer_lock
with writer_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(store: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until its standard input is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process


def lock_file(store: Path) -> Path:
    return store.with_name(f".{store.name}.writer.lock")


def test_a_second_process_is_told_who_writes_where_and_since_when(tmp_path: Path) -> None:
    store = tmp_path / "杭州 \"1'.store"
    with holder(store) as process:
        with pytest.raises(StoreLockedError) as caught, writer_lock(store):
            pass
        words = (f"process {process.pid} on {socket.gethostname()} since 20", str(store), "Wait")
        assert all(word in str(caught.value) for word in words), caught.value
        assert process.stdin
        process.stdin.close()
        assert process.wait() == 0
    with writer_lock(store):
        assert lock_file(store).exists()
    assert not lock_file(store).exists()


def test_the_lock_of_a_killed_process_blocks_nobody(tmp_path: Path) -> None:
    store = tmp_path / "s"
    with holder(store) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert lock_file(store).exists(), "a killed process cannot tidy up"
    with writer_lock(store):
        assert f'"process": {os.getpid()}' in lock_file(store).read_text()


def test_one_process_cannot_hold_it_twice(tmp_path: Path) -> None:
    with writer_lock(tmp_path / "s"):
        refusal = pytest.raises(StoreLockedError, match=f"process {os.getpid()} on")
        with refusal, writer_lock(tmp_path / "s"):
            pass
        assert lock_file(tmp_path / "s").exists(), "a refusal must not drop the holder's lock"


def test_two_names_of_one_folder_meet_at_one_lock(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/link").symlink_to(tmp_path / "real")
    with (
        writer_lock(tmp_path / "real"),
        pytest.raises(StoreLockedError),
        writer_lock(tmp_path / "elsewhere/link"),
    ):
        pass


@pytest.mark.parametrize("left", ["", "{", "5", "[]", "null", '{"process": 1}'])
def test_a_lock_file_that_does_not_say_who_holds_it_still_locks(tmp_path: Path, left: str) -> None:
    with writer_lock(tmp_path / "s"):
        lock_file(tmp_path / "s").write_text(left)
        with pytest.raises(StoreLockedError, match="another process"), writer_lock(tmp_path / "s"):
            pass


def test_an_error_inside_passes_through_and_drops_the_lock(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="mine"), writer_lock(tmp_path / "s"):
        raise OSError("mine")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_hold_a_lock_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for store in (tmp_path / "file" / "s", tmp_path / ("n" * 250)):
        with pytest.raises(StoreWriteError, match=r"lock file beside.*--store"), writer_lock(store):
            pass
