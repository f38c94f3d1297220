"""Removal of whole stores, and of nothing else."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowpatch.catalogue.lineage import RunNote, read_notes
from flowpatch.catalogue.objects import is_ours
from flowpatch.errors import StoreDamagedError, StoreError, StoreNotFoundError
from flowpatch.places.place import Place, place_of
from flowpatch.store.repository import open_repository, writing


@dataclass(frozen=True)
class Removable:
    """A store that may be removed, and what is lost with it; `damage` says why nothing is known."""

    place: Place
    bytes: int
    versions: int
    tags: tuple[str, ...]
    runs: tuple[RunNote, ...]
    damage: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "path": str(self.place),
            "bytes": self.bytes,
            "versions": self.versions,
            "tags": list(self.tags),
            "runs": [note.to_json() for note in self.runs],
            "damage": self.damage,
        }


def removable(address: str | Path | Place) -> Removable:
    """What would be lost with a store: finished, unfinished, or so damaged that it cannot be read.

    Raises:
        StoreNotFoundError: no store is there, or it holds objects that are none of a store's.
    """
    place = place_of(address)
    repository, damage = None, None
    try:
        repository = open_repository(place)
        versions, tags = len(repository.versions()), tuple(repository.tags())
        is_ours_alone = versions > 0 or repository.belongs_to_nobody_else()
    except StoreDamagedError as error:
        versions, tags, is_ours_alone, damage = 0, (), True, str(error)
    foreign = next((name for name in place.names() if not is_ours(name)), None)
    if foreign is not None or not is_ours_alone:
        what = f"it holds '{foreign}'" if foreign else "something else was committed there"
        raise StoreNotFoundError(
            f"'{place}' is no sample store, or not only one: {what}. Nothing was removed."
        )
    return Removable(place, place.total_bytes(), versions, tags, tuple(_notes(place)), damage)


def remove(store: Removable) -> None:
    """Removes a store, with all versions.

    Raises:
        StoreNotFoundError: it changed so that it is no store any more.
        StoreLockedError: another process is writing it.
        StoreWriteError: the removal was refused, half way perhaps.
    """
    with store.place.writer_lock() as lock:
        # Again, now that nobody else changes it.
        found = removable(store.place)
        lock.check()
        with writing(found.place):
            found.place.remove()


def _notes(place: Place) -> list[RunNote]:
    try:
        return read_notes(place)
    except (OSError, StoreError):
        # Of a store that is damaged: it may be removed all the same.
        return []
