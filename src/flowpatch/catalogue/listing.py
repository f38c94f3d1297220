"""The catalogue: which stores there are, and which versions each has had.

What is changed of them is in `changing.py` and `expiry.py`, what differs between two versions in
`comparison.py`, whether one is whole in `verification.py`, and who used it in `lineage.py`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from flowpatch.catalogue.changes import Changes, changes
from flowpatch.errors import StoreError, StoreFormatError, StoreNotFoundError
from flowpatch.places.place import Place, place_of
from flowpatch.store.repository import Repository, VersionInfo, open_repository
from flowpatch.store.sample_store import SampleStore

Status = Literal["ok", "unfinished", "damaged", "newer"]


@dataclass(frozen=True)
class Entry:
    """One store of a catalogue. What `status` keeps from being known is None; `problem` says why.

    `start` and `stop` are instants, `coverage` is from 0 to 1, `bytes` are of all versions.
    """

    name: str
    place: str
    status: Status
    bytes: int
    problem: str | None = None
    version: str | None = None
    versions: int | None = None
    start: str | None = None
    stop: str | None = None
    days: int | None = None
    step_minutes: int | None = None
    nodes: int | None = None
    coverage: float | None = None
    tags: dict[str, str] | None = None
    written_at: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        content = dict(vars(self))
        return {
            "path": content.pop("place"),
            **content,
            "written_at": self.written_at and self.written_at.isoformat(timespec="seconds"),
        }


@dataclass(frozen=True)
class LogEntry:
    """A version among those of its store.

    `changes` are against its parent, None where there is none or it expired.
    """

    info: VersionInfo
    tags: tuple[str, ...]
    is_current: bool
    parent_is_there: bool
    period: dict[str, Any]
    nodes: int
    cells: int
    coverage: float
    code_version: str
    changes: Changes | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "version": self.info.version,
            "written_at": self.info.written_at.isoformat(timespec="seconds"),
            "content_hash": self.info.content_hash,
            "parent": self.info.parent,
            "parent_is_there": self.parent_is_there,
            "tags": list(self.tags),
            "current": self.is_current,
            "period": self.period,
            "nodes": self.nodes,
            "cells": self.cells,
            "coverage": self.coverage,
            "code_version": self.code_version,
            "changes": None if self.changes is None else self.changes.to_json(),
        }


def list_stores(address: str | Path | Place) -> list[Entry]:
    """The store at a place, or all stores one level below it, in order of name.

    Stores that cannot be read are listed as such.

    Raises:
        StoreNotFoundError: nothing is there, or neither a store nor a folder.
    """
    place = place_of(address)
    if not place.exists(StoreNotFoundError):
        raise StoreNotFoundError(
            f"Nothing is at '{place}'. Name a store, or a folder or prefix of stores."
        )
    if not place.is_container():
        raise StoreNotFoundError(f"'{place}' is no sample store, nor a folder of them.")
    found = [place] if place.holds_store() else [p for p in place.places() if p.holds_store()]
    return [entry for one in found if (entry := _entry(one))]


def log(address: str | Path | Place) -> list[LogEntry]:
    """All versions of a store, newest first, and what each changed.

    Raises:
        StoreNotFoundError: no store is there, or no finished version.
        StoreFormatError: a newer flowpatch wrote a version.
        StoreDamagedError: a version cannot be read.
    """
    repository = open_repository(place_of(address))
    current, tags = repository.find(), repository.tags()
    versions = repository.versions()
    stores = {info.version: SampleStore(repository, info.version) for info in versions}
    return [
        _log_entry(info, stores, tags_of(tags, info.version), is_current=info == current)
        for info in versions
    ]


def tags_of(tags: dict[str, str], version: str) -> tuple[str, ...]:
    """The tags that name a version."""
    return tuple(name for name, tagged in tags.items() if tagged == version)


def _log_entry(
    info: VersionInfo, stores: dict[str, SampleStore], tags: Iterable[str], *, is_current: bool
) -> LogEntry:
    store, parent = stores[info.version], stores.get(info.parent or "")
    manifest, axis = store.manifest, store.axis
    return LogEntry(
        info,
        tuple(tags),
        is_current,
        parent is not None,
        {**axis.to_json(), "days": axis.days},
        manifest.nodes,
        axis.length * manifest.nodes,
        manifest.quality.coverage,
        manifest.code_version,
        None if parent is None else changes(parent, store),
    )


def _entry(place: Place) -> Entry | None:
    """None for what is somebody else's repository."""
    size = place.total_bytes()
    try:
        repository = open_repository(place)
        if repository.current() is not None:
            return _finished(repository, size)
        if not repository.belongs_to_nobody_else():
            return None
    except StoreFormatError as error:
        return Entry(place.name, str(place), "newer", size, str(error))
    except StoreError as error:
        return Entry(place.name, str(place), "damaged", size, str(error))
    return Entry(place.name, str(place), "unfinished", size, "Its first build was stopped.")


def _finished(repository: Repository, size: int) -> Entry:
    place, versions, current = repository.place, repository.versions(), repository.find()
    manifest = SampleStore(repository, current.version).manifest
    axis = manifest.axis
    return Entry(
        name=place.name,
        place=str(place),
        status="ok",
        bytes=size,
        version=current.version,
        versions=len(versions),
        start=str(axis.start),
        stop=str(axis.stop),
        days=axis.days,
        step_minutes=axis.step_minutes,
        nodes=manifest.nodes,
        coverage=manifest.quality.coverage,
        tags=repository.tags(),
        written_at=versions[0].written_at,
    )
