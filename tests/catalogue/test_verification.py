"""verify: whatever differs from what was written is found, and named."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
import zarr

from flowpatch.catalogue.verification import verify
from flowpatch.errors import StoreDamagedError, StoreError
from flowpatch.store.manifest import hash_json
from flowpatch.store.sample_store import open_store
from tiny_stores import A_DAY, build, commit, content, writer_of

FORMATS = Path(__file__).resolve().parents[1] / "formats"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of four days, each in a chunk of its own."""
    monkeypatch.setattr("flowpatch.store.arrays.BLOCK_BYTES", 1)
    build(tmp_path / "s", content(5, 4))
    return tmp_path / "s"


def tamper(store: Path, change: Callable[[Any], None], **metadata: Any) -> None:
    """Commits a change as somebody would who knows Icechunk: every checksum is right."""
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(store)))
    session = repository.writable_session("main")
    change(zarr.open_group(session.store, mode="a"))
    content_hash = open_store(store).manifest.content_hash
    session.commit("tampered", {"content_hash": content_hash, **metadata})


def cell(name: str, place: Any, value: float) -> Callable[[Any], None]:
    def change(group: Any) -> None:
        assert not np.array_equal(group[name][place], value)
        group[name][place] = value

    return change


def manifest(*keys: str, value: Any) -> Callable[[Any], None]:
    def change(group: Any) -> None:
        found = group.attrs["flowpatch"]
        part = found
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value
        # With a hash of its own that fits, as whoever wrote it on purpose would give it.
        group.attrs["flowpatch"] = {**found, "manifest_hash": hash_json(found, "manifest_hash")}

    return change


TAMPERED = {
    "a value": (cell("value", (A_DAY, 0), 99), "2025-03-04 have another hash"),
    "a value that is gone": (cell("value", (A_DAY * 3, 0), np.nan), "2025-03-06 have another"),
    "a key": (cell("node", 2, 9), "content hash"),
    "a place": (cell("latitude", 1, 9), "content hash"),
    "time": (cell("time", 3, 9), "'time'"),
    "step_count": (cell("step_count", 2, 9), "'step_count' is not what the values give"),
    "step_mean": (cell("step_mean", 2, 9), "'step_mean'"),
    "step_m2": (cell("step_m2", 2, 9), "'step_m2'"),
    "zeros": (cell("day_counts", (1, -1), 9), "'day_counts'"),
    "extremes": (cell("day_extremes", (0, 1), 999), "'day_extremes'"),
    "node_observed": (cell("node_observed", 0, 1), "'node_observed'"),
    "node_stuck": (cell("node_stuck", 0, 1), "'node_stuck'"),
    "mean": (manifest("statistics", "mean", value=3.0), "statistics"),
    "splits": (manifest("splits", "val_start", value=7), "statistics"),
    "splits behind the end": (manifest("splits", "stop", value=99), "splits reach behind"),
    "quality": (manifest("quality", "zeros", value=99), "findings"),
    "a day's hash": (manifest("day_hashes", value=["x"] * 4), "2025-03-03 have another hash"),
    "hashes of too few days": (manifest("day_hashes", value=["x"]), "1 hashes of 4 days"),
    "content hash": (manifest("content_hash", value="x"), "another version"),
    "nodes": (manifest("nodes", value=2), "not the array"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_whatever_does_not_fit_is_found(name: str, store: Path) -> None:
    change, words = TAMPERED[name]
    tamper(store, change)
    with pytest.raises(StoreDamagedError, match=words):
        verify(store)
    tampered, whole = (info.version for info in open_store(store).versions())
    assert verify(store, whole)[0].version == whole
    with pytest.raises(StoreDamagedError, match=words):
        verify(store, all_versions=True)
    assert tampered != whole


def test_all_damaged_days_are_named(store: Path) -> None:
    def change(group: Any) -> None:
        group["value"][0, 0] = group["value"][A_DAY * 2, 0] = 99

    tamper(store, change)
    with pytest.raises(StoreDamagedError, match=r"2025-03-03 have .*2025-03-05 have "):
        verify(store)


@pytest.mark.parametrize("how", ["flipped", "truncated", "missing", "empty"])
def test_every_damaged_file_is_found(how: str, store: Path, tmp_path: Path) -> None:
    """Any file of a version of its own, one after the other."""
    files = [file for file in store.rglob("*") if file.is_file()]
    # What no version needs: what changed from one to the next, and references as they were.
    read = [file for file in files if file.parent.name not in ("transactions", "overwritten")]
    found = 0
    for file in read:
        copied = shutil.copytree(store, tmp_path / "copy")
        damaged = copied / file.relative_to(store)
        whole = damaged.read_bytes()
        damaged.write_bytes(
            {
                "flipped": whole[: len(whole) // 2]
                + bytes([whole[len(whole) // 2] ^ 1])
                + whole[len(whole) // 2 + 1 :],
                "truncated": whole[: len(whole) // 2],
                "missing": b"",
                "empty": b"",
            }[how]
        )
        if how == "missing":
            damaged.unlink()
        try:
            verify(copied, all_versions=True)
        except StoreError:
            found += 1
        else:
            # Then nothing that anybody reads was hit.
            again = open_store(copied)
            assert np.array_equal(again.read(), content(5, 4).values, equal_nan=True)
            assert again.nodes.fingerprint() == content(5, 4).nodes.fingerprint()
        shutil.rmtree(copied)
    assert found >= len(read) - 2


@pytest.mark.parametrize("name", ["store-1", "store-1-zstd"])
def test_stores_of_older_formats_are_whole(name: str) -> None:
    (found,) = verify(FORMATS / name)
    assert (found.format, found.days, found.nodes) == (1, 6, 4)
    assert "step_m2" in found.checked


def test_values_near_the_largest_float_are_whole(tmp_path: Path) -> None:
    wanted = content(5, 2)
    wanted.values[:, 1] = np.array([3e38, -3e38] * A_DAY)
    wanted.values[0, 0] = 1e-45
    with np.errstate(all="ignore"), writer_of(tmp_path / "s", wanted) as writer:
        with writer.stretch(0, len(wanted.values)):
            writer.write(0, wanted.values)
        commit(writer, wanted)
        assert verify(tmp_path / "s")
