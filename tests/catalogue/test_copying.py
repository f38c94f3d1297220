"""copy_store: the copy of one state, whoever writes beside it, or no store at all."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowpatch.catalogue import changing
from flowpatch.catalogue.copying import copy_store
from flowpatch.catalogue.expiry import Rule, expire
from flowpatch.catalogue.verification import verify
from flowpatch.errors import (
    StoreDamagedError,
    StoreLockedError,
    StoreNotFoundError,
    StoreWriteError,
)
from flowpatch.places.folder import Folder
from flowpatch.places.place import place_of
from flowpatch.store.repository import open_repository
from flowpatch.store.sample_store import open_store
from tiny_stores import build, content


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for seed in range(3):
        build(tmp_path / "store", content(seed, 2))
    changing.tag(tmp_path / "store", "best")
    return tmp_path / "store"


def state(path: Path) -> tuple[Any, ...]:
    repository = open_repository(place_of(path))
    return repository.versions(), repository.find(), repository.tags()


class StoppedError(Exception):
    pass


def stop_after(writes: int, patched: pytest.MonkeyPatch) -> None:
    """So many objects are written whole, and then no more."""
    write, left = Folder.write, [writes]

    def write_some(self: Folder, name: str, content: bytes) -> None:
        if not left[0]:
            raise StoppedError
        left[0] -= 1
        write(self, name, content)

    patched.setattr(Folder, "write", write_some)


def test_an_interrupted_copy_is_no_store_and_goes_on(store: Path, tmp_path: Path) -> None:
    names = list(place_of(store).names())
    objects = sum(not name.startswith("overwritten/") for name in names)
    snapshots = len(list((store / "snapshots").iterdir()))
    # The last ones are the references, in the order that counts.
    for stop in sorted({*range(0, objects, 9), *range(objects - 3, objects)}):
        copied = tmp_path / f"copy{stop}"
        with pytest.MonkeyPatch.context() as patched:
            stop_after(stop, patched)
            with pytest.raises(StoppedError):
                copy_store(store, copied)
        with pytest.raises((StoreNotFoundError, StoreDamagedError)):
            open_store(copied)
        done = copy_store(store, copied)
        assert done.objects_written <= objects - stop + snapshots + 2, "nothing is copied twice"
        assert state(copied) == state(store)
        verify(copied, all_versions=True)


def test_a_copy_beside_a_writer_is_of_one_state(store: Path, tmp_path: Path) -> None:
    stopped = threading.Event()
    failures: list[BaseException] = []

    def write() -> None:
        seed = 10
        try:
            while not stopped.is_set():
                build(store, content(seed, 2))
                changing.tag(store, "newest")
                if seed % 3 == 0:
                    expire(store, Rule(keep=2))
                seed += 1
                stopped.wait(0.1)
        except BaseException as error:
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(12):
            try:
                copy_store(store, tmp_path / f"copy{number}")
            except StoreLockedError:
                # It never stood still: said, and no store left.
                with pytest.raises((StoreNotFoundError, StoreDamagedError)):
                    open_store(tmp_path / f"copy{number}")
                continue
            versions, current, tags = state(tmp_path / f"copy{number}")
            assert current in versions
            assert {*tags.values()} <= {info.version for info in versions}
            verify(tmp_path / f"copy{number}", all_versions=True)
    finally:
        stopped.set()
        writer.join()
    assert failures == []
    copy_store(store, tmp_path / "last")
    assert state(tmp_path / "last") == state(store)


def test_an_expiry_while_it_copies_loses_no_version(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stays after it has names of its own by then, which the copy must have too."""
    changing.tag(store, "first", open_repository(place_of(store)).versions()[-1].version)
    read, done = Folder.read, []

    def read_and_expire(self: Folder, name: str) -> bytes:
        found = read(self, name)
        if name.startswith("transactions/") and not done:
            done.append(expire(store, Rule(keep=1)))
        return found

    monkeypatch.setattr(Folder, "read", read_and_expire)
    copy_store(store, tmp_path / "copy")
    assert len(done) == 1
    assert state(tmp_path / "copy") == state(store)
    verify(tmp_path / "copy", all_versions=True)


def test_a_backup_made_again_follows_the_store(store: Path, tmp_path: Path) -> None:
    copy_store(store, tmp_path / "copy")
    build(store, content(7, 3))
    changing.untag(store, "best")
    expire(store, Rule(keep=2))
    changing.rollback(store, open_repository(place_of(store)).versions()[1].version)
    done = copy_store(store, tmp_path / "copy", overwrite=True)
    assert state(tmp_path / "copy") == state(store)
    assert done.tags == ()
    assert np.array_equal(
        open_store(tmp_path / "copy").read(), open_store(store).read(), equal_nan=True
    )


def test_an_object_that_cannot_be_read_is_named(store: Path, tmp_path: Path) -> None:
    chunk = next((store / "chunks").iterdir())
    read = Folder.read

    def fail(self: Folder, name: str) -> bytes:
        if name.endswith(chunk.name):
            raise OSError(5, "Input/output error")
        return read(self, name)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Folder, "read", fail)
        with pytest.raises(StoreDamagedError, match=f"chunks/{chunk.name}.*Input/output error"):
            copy_store(store, tmp_path / "copy")


def test_a_full_disk_says_so_and_the_copy_goes_on(
    store: Path, small_disk: Path, fill_disk: Any
) -> None:
    fill_disk(8_000)
    with pytest.raises(StoreWriteError, match="goes on from there"):
        copy_store(store, small_disk / "copy")
    (small_disk / "filler").unlink()
    copy_store(store, small_disk / "copy")
    assert state(small_disk / "copy") == state(store)


def test_objects_that_are_none_of_a_store_stay_behind(store: Path, tmp_path: Path) -> None:
    (store / "thesis").touch()
    (store / "chunks/.ABC.17.partial").touch()
    copy_store(store, tmp_path / "copy")
    assert not (tmp_path / "copy/thesis").exists()
    assert not list(tmp_path.glob("copy/**/.*"))
