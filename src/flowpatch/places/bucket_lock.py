"""One writer at a time in an object store: an object beside the store names whoever holds the lock.

No operating system drops it with its process. So its holder renews it again and again, and it is
taken over where its process is dead, or has not renewed it for a minute. A process that was only
slow learns of that before it publishes. Every change is conditional on the object's state: of two
processes that want it, one gets it.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any
from uuid import uuid4

from flowpatch.errors import StoreError, StoreLockedError
from flowpatch.places.lock import WriterLock, locked_by, named, this_process
from flowpatch.places.object_store import ConditionError, Found, ObjectStore

RENEW_S = 10.0
STALE_S = 60.0
"""A lock that was not renewed for so long has no holder any more."""
_TRIES = 5
"""Each fails only where another process changed the lock in the moment between."""
_held: set[str] = set()
"""Those that this process holds."""


@contextmanager
def bucket_lock(objects: ObjectStore, key: str, store: str) -> Iterator[WriterLock]:
    """Holds the writer's lock of a store, which lies under a key.

    Raises:
        StoreLockedError: another process holds it; the message names process, host and time.
        StoreUnreachableError, StorePermissionError: it cannot be written.
    """
    lock = BucketLock(objects, key, store)
    lock.acquire()
    try:
        yield lock
    finally:
        lock.release()


class BucketLock(WriterLock):
    """A lock that is renewed by a thread of its own."""

    def __init__(self, objects: ObjectStore, key: str, store: str) -> None:
        self._objects, self._key, self._store = objects, key, store
        self._holder = {**this_process(), "machine": _machine(), "id": uuid4().hex}
        self._etag, self._renewals = "", 0
        self._taken_by: bytes | None = None
        self._changing, self._released = Lock(), Event()

    def acquire(self) -> None:
        """Takes the lock, once.

        Raises:
            StoreLockedError: another process holds it.
        """
        found: Found | None = None
        for _ in range(_TRIES):
            found = self._objects.get(self._key)
            if found is not None and not _is_abandoned(found):
                break
            if self._put(found):
                _held.add(self._holder["id"])
                Thread(target=self._renew_often, name="writer's lock", daemon=True).start()
                return
        raise locked_by(self._store, b"" if found is None else found.content)

    def check(self) -> None:
        """Renews it at once, so that nobody takes it over in the next moments."""
        with self._changing:
            self._renew()
        if self._taken_by is not None:
            raise StoreLockedError(
                f"'{self._store}' was taken over by {named(self._taken_by)}, because this process "
                f"had not renewed its lock for {STALE_S:.0f} seconds. Nothing was published. Run "
                "the command again."
            )

    def release(self) -> None:
        """Drops it, if it is still ours."""
        self._released.set()
        _held.discard(self._holder["id"])
        # What cannot be removed is taken over by whoever comes next.
        with self._changing, suppress(StoreError, ConditionError):
            # Renewed first: there are servers that remove an object in whatever state it is.
            self._renew()
            if self._taken_by is None:
                self._objects.delete(self._key, self._etag)

    def _renew_often(self) -> None:
        while not self._released.wait(RENEW_S):
            # A server that does not answer now may answer the next time.
            with self._changing, suppress(StoreError):
                if not self._released.is_set():
                    self._renew()

    def _renew(self) -> None:
        if self._taken_by is not None:
            return
        self._renewals += 1
        if not self._put(Found(b"", self._etag, 0)):
            found = self._objects.get(self._key)
            self._taken_by = b"" if found is None else found.content

    def _put(self, instead_of: Found | None) -> bool:
        """Writes it in place of what was found; False where that has changed meanwhile."""
        # Counted, so that each renewal is a new state of the object.
        content = json.dumps({**self._holder, "renewals": self._renewals}).encode()
        try:
            if instead_of is None:
                self._etag = self._objects.put(self._key, content, IfNoneMatch="*")
            else:
                self._etag = self._objects.put(self._key, content, IfMatch=instead_of.etag)
        except ConditionError:
            # A request whose answer was lost, and that was sent again, finds what it wrote itself.
            found = self._objects.get(self._key)
            if found is None or _holder(found).get("id") != self._holder["id"]:
                return False
            self._etag = found.etag
            return found.content == content or self._put(found)
        return True


def _holder(found: Found) -> dict[str, Any]:
    """What a lock says; nothing where it does not say who holds it."""
    with suppress(ValueError):
        content = json.loads(found.content)
        return content if isinstance(content, dict) else {}
    return {}


def _is_abandoned(found: Found) -> bool:
    """Whether whoever holds it will not come back: dead on this machine, or silent for long."""
    if found.age_s > STALE_S:
        return True
    holder = _holder(found)
    process, own = holder.get("process"), holder.get("id")
    is_here = (holder.get("host"), holder.get("machine")) == (this_process()["host"], _machine())
    if not is_here or not isinstance(process, int):
        return False
    if process == os.getpid():
        # A number is given again, in a container to every first process.
        return own not in _held
    return not _is_alive(process)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _machine() -> str:
    """What tells two machines, or two containers of one, apart that have the same name."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return ""
