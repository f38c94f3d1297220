"""The Icechunk repository behind a store: opening it, its versions, and its errors by name.

What lies inside a version is left to `sample_store.py` and `writer.py`.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import icechunk

from flowpatch.errors import (
    StoreDamagedError,
    StoreError,
    StoreNotFoundError,
    StoreWriteError,
)

BRANCH = "main"

# Icechunk warns on every local store that committers must not meet; `writer_lock` sees to that.
# Its other log lines repeat what its exceptions say.
icechunk.set_logs_filter("off")


@dataclass(frozen=True)
class VersionInfo:
    """One committed state: its id, when it was written, and its content hash."""

    version: str
    written_at: datetime
    message: str
    content_hash: str


def open_repository(path: Path) -> icechunk.Repository:
    """The repository at a path.

    Raises:
        StoreNotFoundError: there is none.
        StoreDamagedError: it cannot be read.
    """
    if not is_there(path, StoreNotFoundError):
        raise StoreNotFoundError(
            f"No sample store at '{path}'. Build one: flowpatch preprocess --store {path} ..."
        )
    if not _is_repository(path):
        raise StoreNotFoundError(f"'{path}' is no sample store. Check the path.")
    with reading(path):
        return icechunk.Repository.open(icechunk.local_filesystem_storage(str(path)))


def versions(path: Path, repository: icechunk.Repository) -> list[VersionInfo]:
    """Every committed version, newest first."""
    with reading(path):
        return [
            VersionInfo(
                snapshot.id,
                snapshot.written_at.astimezone(UTC),
                snapshot.message,
                str(snapshot.metadata["content_hash"]),
            )
            for snapshot in repository.ancestry(branch=BRANCH)
            if "content_hash" in snapshot.metadata
        ]


def has_version(path: Path) -> bool:
    """Whether a store with a finished version is at a path."""
    return _is_repository(path) and bool(versions(path, open_repository(path)))


def is_unfinished(path: Path) -> bool:
    """An empty folder, or a repository whose first build was stopped before any commit.

    A repository with commits that are not ours belongs to somebody else.
    """
    if not _is_repository(path):
        return path.is_dir() and not os.listdir(path)  # noqa: PTH208
    repository = open_repository(path)
    with reading(path):
        only_root = all(one.parent_id is None for one in repository.ancestry(branch=BRANCH))
        return only_root and set(repository.list_branches()) == {BRANCH}


def _is_repository(path: Path) -> bool:
    return path.is_dir() and ((path / "refs").is_dir() or (path / "repo").is_file())


def is_there(path: Path, refusal: type[StoreError]) -> bool:
    """Whether anything is at a path, a broken link included."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise refusal(f"No sample store can be at '{path}': {_first_line(error)}.") from error
    return True


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong while reading inside this block is a StoreDamagedError."""
    try:
        yield
    except (StoreError, MemoryError):
        raise
    # Damaged metadata may parse into anything, so that Zarr trips over it anywhere.
    except Exception as error:
        raise StoreDamagedError(
            f"The sample store '{path}' is damaged or unreadable: {_first_line(error)}. Check the "
            "disk, take an older version or a copy, or build it again in another folder."
        ) from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A write that the file system refuses inside this block is a StoreWriteError."""
    try:
        yield
    except (icechunk.IcechunkError, OSError) as error:
        free = _free_bytes(path) / 1e6
        raise StoreWriteError(
            f"Cannot write the sample store '{path}' ({free:,.0f} MB free there): "
            f"{_first_line(error)}. Nothing was committed. Free some space, check the permissions, "
            "or give another --store; then build again."
        ) from error


def _free_bytes(path: Path) -> int:
    for place in (path.absolute(), *path.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return 0


def _first_line(error: Exception) -> str:
    """What went wrong, without the frames and drawings that Icechunk adds."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = [line.strip(" |│╰╭-▶→×") for line in str(error).splitlines() if line.strip()]
    return lines[0].removeprefix("x ").rstrip(".") if lines else type(error).__name__
