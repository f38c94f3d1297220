"""The writer's lock of a folder: what only a lock file has. The rest: `test_writer_lock.py`."""

from pathlib import Path

import pytest

from flowpatch.errors import StoreLockedError, StoreWriteError
from flowpatch.places.lock import writer_lock


def test_two_names_of_one_folder_meet_at_one_lock(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/link").symlink_to(tmp_path / "real")
    with (
        writer_lock(tmp_path / "real"),
        pytest.raises(StoreLockedError),
        writer_lock(tmp_path / "elsewhere/link"),
    ):
        pass


def test_an_error_inside_passes_through_and_drops_the_lock(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="mine"), writer_lock(tmp_path / "s"):
        raise OSError("mine")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_hold_a_lock_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for store in (tmp_path / "file" / "s", tmp_path / ("n" * 250)):
        with pytest.raises(StoreWriteError, match=r"lock file beside.*--store"), writer_lock(store):
            pass
