"""Copies: a whole store elsewhere, with all versions, tags and notes of runs, under the same ids.

Objects are taken over by name, from any place to any other. What refers to others is read before
them, again behind them until nothing moved meanwhile, and written last: a writer or an expiry
beside the copy never makes it mix two states, and what an interrupted copy leaves is no store. It
goes on where it was when it is run again. What a stopped build left, and the writer's lock, stay
behind.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowpatch.catalogue.objects import (
    WHOLE,
    branch_of,
    holds_current,
    in_order,
    is_content,
    is_edited,
    is_ours,
    is_reference,
)
from flowpatch.catalogue.verification import Verification, verify
from flowpatch.errors import (
    SettingsError,
    StoreDamagedError,
    StoreError,
    StoreExistsError,
    StoreLockedError,
    StoreWriteError,
)
from flowpatch.places.lock import WriterLock
from flowpatch.places.place import Place, place_of
from flowpatch.places.reasons import first_line
from flowpatch.progress import track
from flowpatch.store.repository import UNFINISHED, open_repository, writing

PASSES = 10
"""Over a source that is being written; each but the first copies only what is new."""


@dataclass(frozen=True)
class Copy:
    """What was copied; `verified` is the current version of the copy, read whole."""

    source: str
    destination: str
    versions: int
    tags: tuple[str, ...]
    objects_written: int
    bytes_written: int
    verified: Verification

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "source": self.source,
            "path": self.destination,
            "versions": self.versions,
            "tags": list(self.tags),
            "objects_written": self.objects_written,
            "bytes_written": self.bytes_written,
            "verified": self.verified.to_json(),
        }


def copy_store(
    source: str | Path | Place, destination: str | Path | Place, *, overwrite: bool = False
) -> Copy:
    """Copies a store and verifies the copy.

    With `overwrite`, a store that is there becomes the same: only objects that it lacks are
    written, and versions and tags that only it has are gone.

    Raises:
        StoreNotFoundError: no store is at the source, or no finished version.
        StoreExistsError: a store, or something that is none, is at the destination.
        StoreLockedError: another process is writing the destination.
        StoreDamagedError: an object of the source cannot be read, or the copy is not whole.
        StoreWriteError: a write was refused; the same command goes on from there.
    """
    source, destination = place_of(source), place_of(destination)
    if source.absolute_address == destination.absolute_address:
        raise SettingsError(f"'{source}' cannot be copied onto itself. Give another destination.")
    # First, so that nothing is touched where there is nothing to copy.
    open_repository(source).find()
    with writing(destination):
        destination.prepare()
    with destination.writer_lock() as lock:
        _check_destination(destination, overwrite=overwrite)
        objects, size = _copy_objects(source, destination, lock)
        (verified,) = verify(destination)
        copied = open_repository(destination)
        versions, tags = len(copied.versions()), tuple(copied.tags())
    return Copy(str(source), str(destination), versions, tags, objects, size, verified)


def _check_destination(place: Place, *, overwrite: bool) -> None:
    if not place.exists(StoreWriteError):
        return
    names = list(place.names()) if place.is_container() else []
    if not place.is_container() or not all(map(is_ours, names)):
        raise StoreExistsError(
            f"'{place}' exists and is no sample store. Give another destination; nothing was "
            "touched."
        )
    if holds_current(names) and not overwrite:
        raise StoreExistsError(
            f"A sample store is already at '{place}'. Give another destination, or --overwrite to "
            "bring it to the state of the source: versions that only it has are lost then."
        )


def _copy_objects(source: Place, destination: Place, lock: WriterLock) -> tuple[int, int]:
    """Copies what is not there yet; gives the number of objects written, and their bytes."""
    references, counted = _references(source), [0, 0]
    for _ in range(PASSES):
        _copy_content(source, destination, counted)
        before, references = references, _references(source)
        if references == before:
            break
    else:
        raise StoreLockedError(
            f"'{source}' is being written all the time, so that no copy of it is whole. Run the "
            "command again later: it goes on from there."
        )
    _check_same_layout(destination, references)
    with writing(destination):
        # A reference must not outlive what it names.
        destination.settle()
    lock.check()
    for name in in_order(references):
        _write(destination, name, references[name], counted)
    _forget_others(destination, set(filter(None, map(branch_of, references))))
    return counted[0], counted[1]


def _references(place: Place) -> dict[str, bytes]:
    """All references, the current version's first: what others become current, it leads to."""
    names = [name for name in place.names() if is_reference(name) and branch_of(name) != UNFINISHED]
    found = {name: _read(place, name) for name in reversed(in_order(names))}
    return {name: content for name, content in found.items() if content is not None}


def _copy_content(source: Place, destination: Place, counted: list[int]) -> None:
    there = set(destination.names())
    wanted = [
        name
        for name in source.names()
        if is_content(name) and (name not in there or is_edited(name))
    ]
    with track("copy", total=len(wanted), unit="objects") as task:
        for name in wanted:
            content = _read(source, name)
            if content is not None:
                _write(destination, name, content, counted)
            task.advance()


def _forget_others(destination: Place, branches: set[str]) -> None:
    """Takes names away that the source does not have, and that of a draft, which it has alone."""
    copied = open_repository(destination)
    with writing(destination):
        copied.drop_draft()
        # Where one object holds all references, it took the place of the one that was there.
        if branches:
            copied.forget_branches_but(branches)


def _check_same_layout(place: Place, references: dict[str, bytes]) -> None:
    """One kind of references only, or the store that was there would be opened all the same."""
    there = [name for name in place.names() if is_reference(name)]
    if there and (WHOLE in there) != (WHOLE in references):
        raise StoreExistsError(
            f"The store at '{place}' is of another kind of Icechunk's. Give another destination, "
            f"or remove it first: flowpatch samples remove {place}."
        )


def _read(place: Place, name: str) -> bytes | None:
    """None for what went away since it was listed: references tell whether it was needed."""
    try:
        return place.read(name)
    except (OSError, StoreError) as error:
        if name not in place.names():
            return None
        raise StoreDamagedError(
            f"Cannot copy '{name}' of '{place}': {first_line(error)}. Check the disk, then run the "
            "command again: it goes on from there."
        ) from error


def _write(place: Place, name: str, content: bytes, counted: list[int]) -> None:
    try:
        place.write(name, content)
    except (OSError, StoreError) as error:
        raise StoreWriteError(
            f"Cannot write '{name}' of the copy '{place}': {first_line(error)}. Free some space or "
            "check the permissions, then run the command again: it goes on from there."
        ) from error
    counted[0] += 1
    counted[1] += len(content)
