"""One writer at a time: a lock file beside the store's folder that names whoever holds it.

The operating system drops the lock with its process, so a dead writer never blocks a live one.
The file stands beside the folder because Icechunk creates a repository in an empty one only.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from flowpatch.errors import StoreLockedError, StoreWriteError


@contextmanager
def writer_lock(store: Path) -> Iterator[None]:
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
        raise StoreLockedError(
            f"'{store}' is being written by {_holder(path)}. Wait for it, or stop it."
        ) from None
    except OSError as error:
        raise _refused(store, error) from error
    try:
        try:
            path.write_text(_this_process())
        except OSError as error:
            raise _refused(store, error) from error
        yield
    finally:
        # Removed while still held: filelock notices a lock file that lost its name and retries.
        path.unlink(missing_ok=True)
        lock.release()


def _refused(store: Path, error: OSError) -> StoreWriteError:
    return StoreWriteError(
        f"Cannot write the lock file beside '{store}': {error.strerror}. Free some space, check "
        "the permissions of its folder, or give another --store."
    )


def _this_process() -> str:
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    return json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": since})


def _holder(path: Path) -> str:
    try:
        found = json.loads(path.read_text())
        return f"process {found['process']} on {found['host']} since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
