"""The writer's lock: one holder at a time, named to the second; a dead one blocks nobody."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from flowpatch.errors import StoreLockedError
from flowpatch.places import bucket_lock
from flowpatch.places.bucket_lock import BucketLock
from place_kinds import Kind, buckets
from s3_server import BUCKET, Remote

HOLD = """
import sys
from flowpatch.places.place import place_of
with place_of(sys.argv[1]).writer_lock():
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(address: str) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the lock until its standard input is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process


# --- of every kind --------------------------------------------------------------------------------


def test_a_second_process_is_told_who_writes_where_and_since_when(kind: Kind) -> None:
    name = "杭州.store"
    with holder(kind.address(name)) as process:
        with pytest.raises(StoreLockedError) as caught, kind.place(name).writer_lock():
            pass
        words = (
            f"process {process.pid} on {socket.gethostname()} since 20", kind.address(name), "Wait",
        )  # fmt: skip
        assert all(word in str(caught.value) for word in words), caught.value
        assert process.stdin
        process.stdin.close()
        assert process.wait() == 0
    with kind.place(name).writer_lock():
        assert kind.read_lock(name) is not None
    assert kind.read_lock(name) is None


def test_the_lock_of_a_killed_process_blocks_nobody(kind: Kind) -> None:
    with holder(kind.address("s")) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert kind.read_lock("s"), "a killed process cannot tidy up"
    with kind.place().writer_lock() as lock:
        lock.check()
        assert json.loads(kind.read_lock("s") or b"")["process"] == os.getpid()
    assert kind.read_lock("s") is None


def test_one_process_cannot_hold_it_twice(kind: Kind) -> None:
    with kind.place().writer_lock() as lock:
        refusal = pytest.raises(StoreLockedError, match=f"process {os.getpid()} on")
        with refusal, kind.place().writer_lock():
            pass
        lock.check()
        assert kind.read_lock("s"), "a refusal must not drop the holder's lock"


@pytest.mark.parametrize("left", ["", "{", "5", "[]", "null", '{"process": 1}'])
def test_a_lock_that_does_not_say_who_holds_it_still_locks(kind: Kind, left: str) -> None:
    with kind.place("s").writer_lock():
        kind.write_lock("s", left.encode())
        with pytest.raises(StoreLockedError, match="another process"), kind.place().writer_lock():
            pass


@pytest.mark.parametrize("error", [OSError("mine"), KeyboardInterrupt("mine")])
def test_an_error_inside_passes_through_and_drops_the_lock(
    kind: Kind, error: BaseException
) -> None:
    with pytest.raises(type(error), match="mine"), kind.place().writer_lock():
        raise error
    assert kind.read_lock("s") is None


def test_of_many_at_once_one_gets_it(kind: Kind) -> None:
    start, won, refused = threading.Barrier(6), list[int](), list[int]()
    done = threading.Event()

    def contend(number: int) -> None:
        start.wait()
        try:
            with kind.place().writer_lock():
                won.append(number)
                done.wait(20)
        except StoreLockedError:
            refused.append(number)
        if len(refused) == 5:
            done.set()

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 5)


# --- where no operating system watches ------------------------------------------------------------


def claim(**changes: Any) -> bytes:
    """A lock of somebody else."""
    return json.dumps(
        {"process": 1, "host": "elsewhere", "machine": "m", "since": "2025-03-03", "id": "x",
         **changes}
    ).encode()  # fmt: skip


def test_a_holder_elsewhere_is_waited_for_until_it_falls_silent(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = buckets(remote)
    kind.write_lock("s", claim())
    with pytest.raises(StoreLockedError, match="process 1 on elsewhere since 2025-03-03"):
        kind.place().writer_lock().__enter__()
    monkeypatch.setattr(bucket_lock, "STALE_S", -1.0)
    with kind.place().writer_lock():
        assert json.loads(kind.read_lock("s") or b"")["host"] == socket.gethostname()


def test_a_process_of_the_same_number_in_another_container_is_not_taken_for_dead(
    remote: Remote,
) -> None:
    kind = buckets(remote)
    kind.write_lock("s", claim(process=2**22 + 1, host=socket.gethostname()))
    with pytest.raises(StoreLockedError), kind.place().writer_lock():
        pass


def test_an_earlier_process_of_our_own_number_is_dead(remote: Remote) -> None:
    kind = buckets(remote)
    here = {"host": socket.gethostname(), "machine": bucket_lock._machine()}
    kind.write_lock("s", claim(process=os.getpid(), **here))
    with kind.place().writer_lock() as lock:
        lock.check()


def test_it_is_renewed_while_it_is_held(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_lock, "RENEW_S", 0.05)
    kind, renewed = buckets(remote), threading.Event()
    put = BucketLock._put

    def noted(lock: BucketLock, instead_of: Any) -> bool:
        done = put(lock, instead_of)
        if lock._renewals >= 3:
            renewed.set()
        return done

    monkeypatch.setattr(BucketLock, "_put", noted)
    with kind.place().writer_lock() as lock:
        assert renewed.wait(10)
        lock.check()
    assert kind.read_lock("s") is None


@pytest.mark.parametrize("how", ["taken", "removed"])
def test_whoever_lost_it_is_told_and_leaves_the_new_holder_alone(remote: Remote, how: str) -> None:
    kind = buckets(remote)
    with kind.place().writer_lock() as lock:
        if how == "taken":
            kind.write_lock("s", claim())
        else:
            remote.client.delete_object(Bucket=BUCKET, Key=f"{remote.prefix}/.s.writer.lock")
        who = "process 1 on elsewhere" if how == "taken" else "another process"
        for _ in range(2):
            with pytest.raises(StoreLockedError, match=f"taken over by {who}.*Nothing was publ"):
                lock.check()
    assert kind.read_lock("s") == (claim() if how == "taken" else None)


def test_whoever_lost_it_unawares_leaves_the_new_holder_alone(remote: Remote) -> None:
    kind = buckets(remote)
    with kind.place().writer_lock():
        kind.write_lock("s", claim())
    assert kind.read_lock("s") == claim()


def test_an_answer_that_was_lost_does_not_lose_the_lock(remote: Remote) -> None:
    """The client sends such a request again, and finds what it wrote itself."""
    kind = buckets(remote)
    with kind.place().writer_lock() as lock:
        assert isinstance(lock, BucketLock)
        lock._etag = '"of-before-the-answer-that-was-lost"'
        lock.check()
    assert kind.read_lock("s") is None
