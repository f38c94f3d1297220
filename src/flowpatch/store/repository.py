"""The Icechunk repository behind a store: its versions and their names, and its errors by name.

    branch main         the current version
    branch tag.NAME     a tag
    branch kept.ID      a version that main no longer leads to, or that was spared by an expiry
    branch unfinished   blocks of a version that is being written, see `draft.py`

A version is a snapshot whose metadata names its content hash; it is there as long as a branch leads
to it. What lies inside a version is left to `sample_store.py` and `writer.py`.
"""

import inspect
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import icechunk

from flowpatch.errors import (
    SettingsError,
    StoreDamagedError,
    StoreError,
    StoreLockedError,
    StoreNotFoundError,
    StoreWriteError,
)
from flowpatch.places.lock import WriterLock
from flowpatch.places.place import Place
from flowpatch.places.reasons import first_line
from flowpatch.redaction import redact

MAIN = "main"
UNFINISHED = "unfinished"
_TAG = "tag."
_KEPT = "kept."
_TAG_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION = re.compile(r"[0-9A-HJKMNP-TV-Z]{20}")
"""Icechunk's ids: 12 bytes in Crockford's base 32."""
_AT_CREATION = re.compile(
    r"((snapshots|transactions)/1CECHNKREP0F1RSTCMT0|refs/branch\.main/ref\.json|repo|config\.yaml)"
    r"(#\d+)?"
)
"""What Icechunk writes to make a repository, with the id of its first snapshot."""
SHORTEST_PREFIX = 4
"""Of a version's id, given in place of it."""

_OPEN_OR_CREATE = inspect.signature(icechunk.Repository.open_or_create).parameters
FIRST_FORMAT: dict[str, Any] = {"create_version": 1} if "create_version" in _OPEN_OR_CREATE else {}
"""Icechunk 2 would make repositories that Icechunk 1, which Python 3.11 gets, cannot read."""

# Icechunk warns on every local store that committers must not meet; the writer's lock sees to that.
# Its other log lines repeat what its exceptions say.
icechunk.set_logs_filter("off")


@dataclass(frozen=True)
class VersionInfo:
    """One committed state: its id, when it was written, and its content hash.

    `parent` is the version that it was made from, None for a build from nothing.
    """

    version: str
    written_at: datetime
    message: str
    content_hash: str
    parent: str | None = None


class Repository:
    """The versions of the store at a place.

    Whoever changes them holds the writer's lock, which is looked at before each change.
    """

    def __init__(
        self, place: Place, opened: icechunk.Repository, lock: WriterLock | None = None
    ) -> None:
        self.place = place
        self._opened = opened
        self._lock = lock

    def session(self, version: str) -> icechunk.Session:
        """A version, or any snapshot, to read."""
        return self._opened.readonly_session(snapshot_id=version)

    def current(self) -> VersionInfo | None:
        """The version that readers get; None where none is finished."""
        with reading(self.place):
            return _version_info(self._opened.lookup_snapshot(self._tip(MAIN)))

    def versions(self) -> list[VersionInfo]:
        """Every version, newest first."""
        found: dict[str, VersionInfo] = {}
        seen: set[str] = set()
        with reading(self.place):
            for branch in self._branches():
                for snapshot in self._opened.ancestry(branch=branch):
                    if snapshot.id in seen:
                        break
                    seen.add(snapshot.id)
                    if info := _version_info(snapshot):
                        found[snapshot.id] = info
        return sorted(found.values(), key=lambda info: info.written_at, reverse=True)

    def find(self, name: str | None = None) -> VersionInfo:
        """A version by its id, the beginning of it, or a tag; by default the current one.

        Raises:
            StoreNotFoundError: there is no such version, or no finished one at all.
        """
        if name is None:
            current = self.current()
            if current is None:
                raise StoreNotFoundError(
                    f"'{self.place}' has no finished version: its first build was stopped. Build "
                    "it again: flowpatch preprocess, with --resume to go on where it was stopped."
                )
            return current
        tags, known = self.tags(), self.versions()
        wanted = tags.get(name, name)
        matching = [info for info in known if info.version == wanted]
        if not matching and len(wanted) >= SHORTEST_PREFIX:
            matching = [info for info in known if info.version.startswith(wanted)]
        if len(matching) == 1:
            return matching[0]
        raise StoreNotFoundError(
            f"'{self.place}' has {'several versions' if matching else 'no version'} '{name}'. "
            f"Versions there: {', '.join(info.version for info in matching or known)}."
            + (f" Tags: {', '.join(sorted(tags))}." if tags else "")
        )

    def tags(self) -> dict[str, str]:
        """The version that each tag names."""
        with reading(self.place):
            return {
                branch.removeprefix(_TAG): self._tip(branch)
                for branch in sorted(self._opened.list_branches())
                if branch.startswith(_TAG)
            }

    def tag(self, name: str, version: str) -> str | None:
        """Gives a version a name, which it may take from another: that one is returned.

        Raises:
            SettingsError: it is no name.
        """
        before = self.tags().get(check_tag(name))
        self._check_lock()
        with writing(self.place):
            self._point(_TAG + name, version)
        return before

    def untag(self, name: str) -> None:
        """Takes a name away.

        Raises:
            StoreNotFoundError: no version has it.
        """
        tags = self.tags()
        if name not in tags:
            raise StoreNotFoundError(
                f"'{self.place}' has no tag '{name}'. Tags there: {', '.join(tags) or 'none'}."
            )
        self._check_lock()
        with writing(self.place):
            self._opened.delete_branch(_TAG + name)

    def make_current(self, version: str) -> None:
        """Readers get this version from now on; no other is lost."""
        with reading(self.place):
            before = self._tip(MAIN)
        if before == version:
            return
        self._check_lock()
        with writing(self.place):
            if not self._leads_to(version, before):
                self._point(_KEPT + before, before)
            self._opened.reset_branch(MAIN, version, from_snapshot_id=before)

    def drop(self, versions: Collection[str]) -> None:
        """Forgets versions and what an unfinished one left, and removes what only they hold.

        The current version is none of them, nor one that has a tag.
        """
        kept = [info.version for info in self.versions() if info.version not in versions]
        self._check_lock()
        with writing(self.place):
            for version in kept:
                # Ahead of anything else: what no branch leads to is removed.
                self._point(_KEPT + version, version)
            for branch in self._opened.list_branches():
                if branch.removeprefix(_KEPT) in versions or branch == UNFINISHED:
                    self._opened.delete_branch(branch)
            now = datetime.now(UTC)
            self._opened.expire_snapshots(now)
            self._opened.garbage_collect(now)

    def forget_branches_but(self, kept: Collection[str]) -> None:
        """Takes every name away that is none of these, as that of a tag."""
        for branch in self._opened.list_branches() - set(kept):
            self._opened.delete_branch(branch)

    def begin_draft(self) -> None:
        """What is written from now on lies beside the versions; what was there is dropped."""
        main = self._tip(MAIN)
        try:
            self._point(UNFINISHED, main)
        except icechunk.IcechunkError:
            # Icechunk can neither move nor delete a reference that is damaged.
            self.place.discard(f"refs/branch.{UNFINISHED}/ref.json")
            self._point(UNFINISHED, main)

    def drop_draft(self) -> None:
        """Forgets what lies beside the versions; `drop` removes it."""
        if UNFINISHED in self._opened.list_branches():
            self._opened.delete_branch(UNFINISHED)

    def draft(self) -> str | None:
        """The snapshot that lies beside the versions; None where nothing was committed there."""
        with reading(self.place):
            if UNFINISHED not in self._opened.list_branches():
                return None
            draft = self._tip(UNFINISHED)
            # A writer that died as it began, or right after its version became the current one.
            return None if draft == self._tip(MAIN) else draft

    def draft_session(self) -> icechunk.Session:
        """Where the next blocks go."""
        return self._opened.writable_session(UNFINISHED)

    def finished_draft(self) -> VersionInfo | None:
        """A version whose commit was the last thing that its writer did.

        Not one that is a version already, as that where a draft begins is, nor one that another
        version has become current in place of since.
        """
        draft, current = self.draft(), self.current()
        if draft is None:
            return None
        with reading(self.place):
            found = _version_info(self._opened.lookup_snapshot(draft))
        if found is None or found.parent != (current and current.version):
            return None
        return None if found in self.versions() else found

    def publish_draft(self, version: str) -> None:
        """A version that lies beside the others becomes the current one, at once."""
        self.make_current(version)
        # The version is there for all to see, also where a full disk refuses to tidy up.
        with suppress(icechunk.IcechunkError, OSError):
            self._opened.delete_branch(UNFINISHED)

    def belongs_to_nobody_else(self) -> bool:
        """Whether nothing was ever committed here but by an unfinished version of ours."""
        with reading(self.place):
            ours = set(self._opened.list_branches()) <= {MAIN, UNFINISHED}
            untouched = all(
                snapshot.parent_id is None for snapshot in self._opened.ancestry(branch=MAIN)
            )
            return ours and untouched

    def _check_lock(self) -> None:
        if self._lock is not None:
            self._lock.check()

    def _branches(self) -> list[str]:
        others = sorted(self._opened.list_branches() - {MAIN, UNFINISHED})
        return [MAIN, *others]

    def _tip(self, branch: str) -> str:
        return str(self._opened.lookup_branch(branch))

    def _point(self, branch: str, version: str) -> None:
        if branch in self._opened.list_branches():
            self._opened.reset_branch(branch, version)
        else:
            self._opened.create_branch(branch, version)

    def _leads_to(self, version: str, ancestor: str) -> bool:
        return any(
            snapshot.id == ancestor for snapshot in self._opened.ancestry(snapshot_id=version)
        )


def open_repository(place: Place, lock: WriterLock | None = None) -> Repository:
    """The repository at a place; `lock` is that of whoever will change it.

    Raises:
        StoreNotFoundError: there is none.
        StoreDamagedError: it cannot be read.
    """
    if not place.exists(StoreNotFoundError):
        raise StoreNotFoundError(
            f"No sample store at '{place}'. Build one: flowpatch preprocess --store {place} ..."
        )
    if not place.holds_store():
        raise StoreNotFoundError(f"'{place}' is no sample store. Check the path.")
    with reading(place):
        return Repository(place, icechunk.Repository.open(place.storage()), lock)


def open_or_create_repository(place: Place, lock: WriterLock | None = None) -> Repository:
    """The repository at a place, made where there is none; see `open_repository`."""
    with writing(place):
        opened = icechunk.Repository.open_or_create(place.storage(), **FIRST_FORMAT)
        return Repository(place, opened, lock)


def has_version(place: Place) -> bool:
    """Whether a store with a finished version is at a place."""
    return place.holds_store() and open_repository(place).current() is not None


def is_unfinished(place: Place) -> bool:
    """Nothing in it, or a repository whose first build was stopped before it was finished.

    A repository with commits that are not ours belongs to somebody else.
    """
    if not place.holds_store():
        # Killed while it was created, a repository has these at most.
        return place.is_container() and all(map(_AT_CREATION.fullmatch, place.names()))
    return open_repository(place).belongs_to_nobody_else()


def check_tag(name: str) -> str:
    """The name itself, if a version can have it.

    Raises:
        SettingsError: it has other signs than a name, or would be taken for a version's id.
    """
    if not _TAG_NAME.fullmatch(name) or _VERSION.fullmatch(name):
        raise SettingsError(
            f"'{name}' is no tag. Allowed: letters, digits, '.', '_' and '-', up to 64 of them, "
            "the first a letter or digit, and not like a version's id."
        )
    return name


def _version_info(snapshot: Any) -> VersionInfo | None:
    metadata = snapshot.metadata
    if "content_hash" not in metadata:
        return None
    parent = metadata.get("parent")
    return VersionInfo(
        snapshot.id,
        snapshot.written_at.astimezone(UTC),
        snapshot.message,
        str(metadata["content_hash"]),
        None if parent is None else str(parent),
    )


@contextmanager
def reading(place: Place) -> Iterator[None]:
    """Whatever goes wrong while reading inside this block is a StoreDamagedError."""
    try:
        yield
    except (StoreError, MemoryError):
        raise
    # Damaged metadata may parse into anything, so that Zarr trips over it anywhere.
    except Exception as error:
        place.check_reachable()
        reason = redact(first_line(error))
        raise StoreDamagedError(
            f"The sample store '{place}' is damaged or unreadable: {reason}. Check the "
            "disk, take an older version or a copy, or build it again in another folder."
        ) from error


@contextmanager
def writing(place: Place) -> Iterator[None]:
    """A write that is refused inside this block is a StoreWriteError."""
    try:
        yield
    except StoreError:
        raise
    except icechunk.ConflictError as error:
        raise StoreLockedError(
            f"'{place}' was written by another process at the same time. Nothing was committed. "
            "Run the command again."
        ) from error
    except (icechunk.IcechunkError, OSError) as error:
        place.check_reachable()
        free = place.free_bytes()
        room = "" if free is None else f" ({free / 1e6:,.0f} MB free there)"
        reason = redact(first_line(error))
        raise StoreWriteError(
            f"Cannot write the sample store '{place}'{room}: {reason}. Nothing was "
            "committed. Free some space, check the permissions, or give another --store; then run "
            "the command again."
        ) from error
