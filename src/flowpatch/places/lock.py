"""One writer at a time: a lock file beside the store's folder that names whoever holds it.

The operating system drops the lock with its process, so a dead writer never blocks a live one.
The file stands beside the folder because Icechunk creates a repository in an empty one only.
How a bucket is locked, where no operating system watches, is in `bucket_lock.py`.
"""

import json
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from flowpatch.errors import StoreLockedError, StoreWriteError


class WriterLock(ABC):
    """The lock of whoever may write a store."""

    @abstractmethod
    def check(self) -> None:
        """Makes sure that it is still held, and will be for the next moments.

        Raises:
            StoreLockedError: another process has taken it over.
            StoreUnreachableError: nothing answers where it lies.
        """


class FolderLock(WriterLock):
    """Held as long as its process lives."""

    def check(self) -> None:
        """Nobody else can take it."""


@contextmanager
def writer_lock(store: Path) -> Iterator[WriterLock]:
    """Holds the writer's lock of a store.

    Raises:
        StoreLockedError: another process holds it; the message names process, host and time.
        StoreWriteError: the lock file cannot be written.
    """
    # Resolved: two names of one folder must meet at one lock.
    store = store.resolve()
    path = store.with_name(f".{store.name}.writer.lock")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise locked_by(store, _holder(path)) from None
    except OSError as error:
        raise _refused(store, error) from error
    try:
        try:
            path.write_text(json.dumps(this_process()))
        except OSError as error:
            raise _refused(store, error) from error
        yield FolderLock()
    finally:
        # Removed while still held: filelock notices a lock file that lost its name and retries.
        path.unlink(missing_ok=True)
        lock.release()


def _refused(store: Path, error: OSError) -> StoreWriteError:
    return StoreWriteError(
        f"Cannot write the lock file beside '{store}': {error.strerror}. Free some space, check "
        "the permissions of its folder, or give another --store."
    )


def this_process() -> dict[str, Any]:
    """Who holds a lock: process, host, and since when."""
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"process": os.getpid(), "host": socket.gethostname(), "since": since}


def named(holder: bytes | str) -> str:
    """Whoever wrote a lock, for a message."""
    try:
        found = json.loads(holder)
        return f"process {found['process']} on {found['host']} since {found['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def locked_by(store: object, holder: bytes | str) -> StoreLockedError:
    """What a second writer is told."""
    return StoreLockedError(
        f"'{store}' is being written by {named(holder)}. Wait for it, or stop it."
    )


def _holder(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
