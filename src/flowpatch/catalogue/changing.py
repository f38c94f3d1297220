"""Changes to which versions a store has, and what they are called: each under the writer's lock."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowpatch.places.place import Place, place_of
from flowpatch.store.repository import (
    Repository,
    VersionInfo,
    check_tag,
    open_repository,
    reading,
    writing,
)


@dataclass(frozen=True)
class Tagging:
    """A tag, the version that has it now, and the one that had it before; None where none has."""

    place: str
    tag: str
    before: str | None
    now: str | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"path": self.place, "tag": self.tag, "before": self.before, "version": self.now}


@dataclass(frozen=True)
class Rollback:
    """The version that was current, and the one that is."""

    place: str
    before: VersionInfo
    now: VersionInfo

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"path": self.place, "before": self.before.version, "current": self.now.version}


@contextmanager
def changing(address: str | Path | Place) -> Iterator[Repository]:
    """The repository of a store, held against any other writer.

    A version that was finished but not yet made current is made so first: it would become current
    by itself later, whatever is decided here.

    Raises:
        StoreNotFoundError: no store is there.
        StoreLockedError: another process is writing it.
    """
    place = place_of(address)
    # First, so that no lock is left beside what is no store.
    open_repository(place)
    with place.writer_lock() as lock:
        repository = open_repository(place, lock)
        with reading(place):
            finished = repository.finished_draft()
        if finished is not None:
            with writing(place):
                repository.publish_draft(finished.version)
        yield repository


def tag(address: str | Path | Place, name: str, version: str | None = None) -> Tagging:
    """Gives a version a name, by default the current one; another version may lose it.

    Raises:
        SettingsError: it is no name.
        StoreNotFoundError: no store, or no such version.
        StoreLockedError: another process is writing it.
    """
    check_tag(name)
    with changing(address) as repository:
        now = repository.find(version).version
        return Tagging(str(repository.place), name, repository.tag(name, now), now)


def untag(address: str | Path | Place, name: str) -> Tagging:
    """Takes a name away; the version stays.

    Raises:
        StoreNotFoundError: no store, or no such tag.
        StoreLockedError: another process is writing it.
    """
    with changing(address) as repository:
        before = repository.tags().get(name)
        repository.untag(name)
        return Tagging(str(repository.place), name, before, None)


def rollback(address: str | Path | Place, version: str) -> Rollback:
    """Makes a version the current one. Nothing is lost: the other stays, and one can go back to it.

    Raises:
        StoreNotFoundError: no store, or no such version.
        StoreLockedError: another process is writing it.
    """
    with changing(address) as repository:
        before, now = repository.find(), repository.find(version)
        repository.make_current(now.version)
        return Rollback(str(repository.place), before, now)
