"""SampleStore: the versioned home of a series, in Zarr arrays inside an Icechunk repository.

    value      (time, node) float32, NaN where nothing was observed
    time       (time,)  minutes since the first step, CF style: xarray labels it
    node       (node,)  the key, or its parts joined; each part of a longer key has its own array
    latitude, longitude (node,) degrees
    step_count, step_mean, step_m2 (time,) moments of each step, see `series/statistics.py`
    attributes the manifest

A `SampleStore` is one fixed version: what it reads never changes, whatever is written meanwhile.
A `StoreWriter` shows nothing to readers until `commit`.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version as installed_version
from pathlib import Path
from types import TracebackType
from typing import Any

import icechunk
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from flowpatch.errors import (
    StoreDamagedError,
    StoreError,
    StoreExistsError,
    StoreNotFoundError,
    StoreWriteError,
)
from flowpatch.series.dense import RecordCounts
from flowpatch.series.nodes import NodeTable
from flowpatch.series.quality import Quality
from flowpatch.series.splits import Splits
from flowpatch.series.statistics import Statistics, StepMoments
from flowpatch.store.lock import writer_lock
from flowpatch.store.manifest import Manifest, hash_content
from flowpatch.time_axis import TimeAxis

BRANCH = "main"
ATTRIBUTE = "flowpatch"
CHUNK_BYTES = 8 * 2**20
"""Largest chunk: a few in flight fit a CPU cache's reach, and a read is spread over all cores."""
BLOCK_BYTES = 2**20
"""Smallest write: below it a chunk costs more in bookkeeping than in bytes."""
CHECKSUM = Crc32cCodec()
"""Behind the compression of every array: a flipped bit is an error, not another value."""
_OWN_NAMES = {
    "value", "time", "node", "latitude", "longitude", "step_count", "step_mean", "step_m2",
}  # fmt: skip

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


class SampleStore:
    """One fixed version of a sample store, read only."""

    def __init__(self, path: Path, repository: icechunk.Repository, version: str) -> None:
        self.path = path
        self.version = version
        self._repository = repository
        with _reading(path):
            self._session = repository.readonly_session(snapshot_id=version)
            self._group = zarr.open_group(self._session.store, mode="r")
            content: Any = self._group.attrs.get(ATTRIBUTE)
        if not isinstance(content, dict):
            raise StoreDamagedError(f"Version {version} of '{path}' has no manifest.")
        self.manifest = Manifest.from_json(content, str(path))

    @property
    def axis(self) -> TimeAxis:
        """The time axis of the series."""
        return self.manifest.axis

    @property
    def splits(self) -> Splits:
        """The borders of train, val and test."""
        return self.manifest.splits

    @property
    def statistics(self) -> Statistics:
        """Mean and deviation of the observed training values."""
        return self.manifest.statistics

    @cached_property
    def nodes(self) -> NodeTable:
        """The nodes, in the order of the series."""
        names = _key_array_names(self.manifest.key_columns)
        keys = tuple(self._array(name) for name in names)
        return NodeTable(
            self.manifest.key_columns,
            tuple(key if key.dtype == np.int64 else key.astype(object) for key in keys),
            self._array("latitude"),
            self._array("longitude"),
        )

    @cached_property
    def moments(self) -> StepMoments:
        """Count, mean and squared deviation of each step."""
        return StepMoments(*(self._array(f"step_{name}") for name in ("count", "mean", "m2")))

    @property
    def zarr_store(self) -> Any:
        """This version as Zarr: `xarray.open_zarr(store.zarr_store, consolidated=False)`."""
        return self._session.store

    def read(self, first_step: int = 0, stop_step: int | None = None) -> NDArray[np.float32]:
        """(S, N) values of steps first_step .. stop_step, NaN where nothing was observed.

        Raises:
            StoreDamagedError: a chunk is missing or does not decode.
        """
        return self._array("value", first_step, stop_step)

    def versions(self) -> list[VersionInfo]:
        """Every committed version, newest first."""
        return _versions(self.path, self._repository)

    def bytes_on_disk(self) -> int:
        """Size of everything in the store's folder, all versions together."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def _array(self, name: str, first: int = 0, stop: int | None = None) -> NDArray[Any]:
        with _reading(self.path):
            array = self._group[name]
            if not isinstance(array, zarr.Array):
                raise StoreDamagedError(f"'{name}' in '{self.path}' is not an array.")
            return np.asarray(array[first:stop])


def open_store(path: str | Path, version: str | None = None) -> SampleStore:
    """Opens a version of a sample store, by default the newest.

    Raises:
        StoreNotFoundError: no store, no finished version, or no such version.
        StoreFormatError: a newer flowpatch wrote it.
        StoreDamagedError: a part of it is missing or does not decode.
    """
    path = Path(path)
    repository = _open_repository(path)
    known = [info.version for info in _versions(path, repository)]
    if not known:
        raise StoreNotFoundError(
            f"'{path}' has no finished version: its first build was stopped. Build it again with "
            "flowpatch preprocess."
        )
    if version is not None and version not in known:
        raise StoreNotFoundError(
            f"'{path}' has no version '{version}'. Versions there: {', '.join(known)}."
        )
    return SampleStore(path, repository, version or known[0])


class StoreWriter:
    """Writes one new version of a store: blocks in any order, then `commit`.

    Used as a context manager. Left without a commit, it leaves no new version, and no folder
    where there was none before.

    Raises:
        StoreExistsError: a store, or something else, is at the path, and `overwrite` is off.
        StoreLockedError: another process is writing it.
        StoreWriteError: the file system refused a write.
    """

    def __init__(self, path: Path, axis: TimeAxis, nodes: NodeTable, *, overwrite: bool) -> None:
        self.path, self.axis, self.nodes = path, axis, nodes
        self.moments = StepMoments.empty(axis.length)
        self._overwrite = overwrite
        self._day_hashes: list[str] = [""] * axis.days
        self._committed = False

    @property
    def block_steps(self) -> int:
        """Blocks start at multiples of this many steps; only the last may be shorter."""
        return block_days(self.axis, len(self.nodes)) * self.axis.steps_a_day

    def __enter__(self) -> "StoreWriter":
        with _writing(self.path):
            self.path.absolute().parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(writer_lock(self.path))
            check_free(self.path, overwrite=self._overwrite)
            if not _has_version(self.path):
                # Nothing is there, or what a build left that was killed: start from nothing.
                shutil.rmtree(self.path, ignore_errors=True)
                stack.callback(self._remove_unless_committed)
            with _writing(self.path):
                storage = icechunk.local_filesystem_storage(str(self.path))
                repository = icechunk.Repository.open_or_create(storage)
                self._session = repository.writable_session(BRANCH)
                self._group = zarr.create_group(self._session.store, overwrite=True)
                self._value = self._create_arrays()
            self._leave = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave.close()

    def _remove_unless_committed(self) -> None:
        if not self._committed:
            shutil.rmtree(self.path, ignore_errors=True)

    def write(self, first_step: int, values: NDArray[np.float32]) -> None:
        """Writes the (S, N) values of whole blocks that begin at `first_step`."""
        stop = first_step + len(values)
        whole = stop % self.block_steps == 0 or stop == self.axis.length
        if first_step % self.block_steps or not (0 <= first_step < stop <= self.axis.length):
            raise ValueError(f"a block starts at a multiple of {self.block_steps} steps")
        if not whole or values.shape[1] != len(self.nodes):
            raise ValueError(
                f"a block is ({self.block_steps}, {len(self.nodes)}), the last shorter"
            )
        with _writing(self.path):
            self._value[first_step : first_step + len(values)] = values
        self.moments.set(first_step, values)
        for offset in range(0, len(values), self.axis.steps_a_day):
            day = values[offset : offset + self.axis.steps_a_day]
            self._day_hashes[(first_step + offset) // self.axis.steps_a_day] = hash_values(day)

    def commit(
        self,
        *,
        recipe: dict[str, Any],
        source: dict[str, Any],
        input_len: int,
        output_len: int,
        counts: RecordCounts,
        nodes_without_coordinates: int,
        quality: Quality,
        splits: Splits,
    ) -> SampleStore:
        """Makes everything written the newest version, at once, and opens it."""
        if "" in self._day_hashes:
            raise ValueError(f"day {self._day_hashes.index('')} was not written")
        statistics = self.moments.statistics(*splits.bounds("train"))
        content_hash = hash_content(self.axis, self.nodes, splits, statistics, self._day_hashes)
        manifest = Manifest(
            code_version=installed_version("flowpatch"),
            recipe=recipe,
            source=source,
            axis=self.axis,
            key_columns=self.nodes.key_columns,
            nodes=len(self.nodes),
            input_len=input_len,
            output_len=output_len,
            counts=counts,
            nodes_without_coordinates=nodes_without_coordinates,
            quality=quality,
            splits=splits,
            statistics=statistics,
            day_hashes=tuple(self._day_hashes),
            content_hash=content_hash,
        )
        period = f"{self.axis.start} to {self.axis.stop}"
        with _writing(self.path):
            for name in ("count", "mean", "m2"):
                self._put(f"step_{name}", ("time",), getattr(self.moments, name))
            self._group.attrs[ATTRIBUTE] = manifest.to_json()
            version = self._session.commit(
                f"{len(self.nodes)} nodes, {period}", metadata={"content_hash": content_hash}
            )
        self._committed = True
        return open_store(self.path, version)

    def _create_arrays(self) -> Any:
        """Everything but the blocks; returns the array of values."""
        names = _key_array_names(self.nodes.key_columns)
        value = self._group.create_array(
            "value",
            shape=(self.axis.length, len(self.nodes)),
            dtype="float32",
            chunks=(chunk_steps(self.axis, len(self.nodes)), len(self.nodes)),
            fill_value=float("nan"),
            compressors=[
                BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=4),
                CHECKSUM,
            ],
            dimension_names=("time", "node"),
            attributes={"coordinates": " ".join(["latitude", "longitude", *names[1:], *names[:1]])},
        )
        since = {
            "units": f"minutes since {str(self.axis.start).replace('T', ' ')}:00",
            "calendar": "proleptic_gregorian",
            "time_zone": self.axis.time_zone,
        }
        minutes = np.arange(self.axis.length, dtype=np.int64) * self.axis.step_minutes
        self._put("time", ("time",), minutes, since)
        self._put("node", ("node",), self.nodes.labels)
        if len(names) > 1:
            for name, column in zip(names, self.nodes.keys, strict=True):
                self._put(name, ("node",), column)
        self._put("latitude", ("node",), self.nodes.latitude, {"units": "degrees_north"})
        self._put("longitude", ("node",), self.nodes.longitude, {"units": "degrees_east"})
        return value

    def _put(
        self,
        name: str,
        dimensions: tuple[str, ...],
        values: NDArray[Any],
        attributes: dict[str, Any] | None = None,
    ) -> None:
        array = self._group.create_array(
            name,
            shape=values.shape,
            dtype=str if values.dtype == object else values.dtype,
            compressors=[ZstdCodec(level=1), CHECKSUM],
            dimension_names=dimensions,
            attributes=attributes or {},
        )
        array[:] = values


def check_free(path: Path, *, overwrite: bool) -> None:
    """Makes sure that a store may be written at `path`, before any work is done for it.

    Raises:
        StoreExistsError: a store, or something that is no store, is there.
    """
    if not _is_there(path, StoreWriteError):
        return
    if _has_version(path):
        if not overwrite:
            raise StoreExistsError(
                f"A sample store is already at '{path}'. Give another --store, or --overwrite to "
                "write a new version of it."
            )
    elif not _is_unfinished(path):
        raise StoreExistsError(
            f"'{path}' exists and is no sample store. Give another --store; nothing was touched."
        )


def block_days(axis: TimeAxis, nodes: int) -> int:
    """Days of one written block: one, or more where a day is too small to be worth a chunk."""
    return min(axis.days, max(1, BLOCK_BYTES // (4 * nodes * axis.steps_a_day)))


def chunk_steps(axis: TimeAxis, nodes: int) -> int:
    """Steps of one chunk: a block, or the largest even part of a day that is small enough."""
    block = block_days(axis, nodes) * axis.steps_a_day
    if 4 * nodes * block <= CHUNK_BYTES:
        return block
    fitting = [
        steps
        for steps in range(1, axis.steps_a_day + 1)
        if axis.steps_a_day % steps == 0 and 4 * nodes * steps <= CHUNK_BYTES
    ]
    return max(fitting, default=1)


def hash_values(values: NDArray[np.float32]) -> str:
    """SHA-256 of the values as little-endian float32, every NaN and zero written one way."""
    canonical = np.where(np.isnan(values), np.float32(np.nan), values + np.float32(0))
    return hashlib.sha256(np.ascontiguousarray(canonical, dtype="<f4").data).hexdigest()


def _key_array_names(key_columns: Sequence[str]) -> list[str]:
    """The array that holds each key column; `node` itself where the key is one column.

    A column whose name is no plain word, or is taken, must not steer where an array is written;
    nor must one named `key_1` take the place of the second column.
    """
    if len(key_columns) == 1:
        return ["node"]
    return [
        f"key_{position}"
        if name in _OWN_NAMES or name.startswith("key_") or not name.isidentifier()
        else name
        for position, name in enumerate(key_columns)
    ]


def _open_repository(path: Path) -> icechunk.Repository:
    if not _is_there(path, StoreNotFoundError):
        raise StoreNotFoundError(
            f"No sample store at '{path}'. Build one: flowpatch preprocess --store {path} ..."
        )
    if not _is_repository(path):
        raise StoreNotFoundError(f"'{path}' is no sample store. Check the path.")
    with _reading(path):
        return icechunk.Repository.open(icechunk.local_filesystem_storage(str(path)))


def _is_there(path: Path, refusal: type[StoreError]) -> bool:
    """Whether anything is at a path, a broken link included."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise refusal(f"No sample store can be at '{path}': {_first_line(error)}.") from error
    return True


def _is_repository(path: Path) -> bool:
    return path.is_dir() and ((path / "refs").is_dir() or (path / "repo").is_file())


def _is_unfinished(path: Path) -> bool:
    """An empty folder, or a repository whose first build was stopped."""
    return path.is_dir() and (_is_repository(path) or not os.listdir(path))  # noqa: PTH208


def _has_version(path: Path) -> bool:
    return _is_repository(path) and bool(_versions(path, _open_repository(path)))


def _versions(path: Path, repository: icechunk.Repository) -> list[VersionInfo]:
    with _reading(path):
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


@contextmanager
def _reading(path: Path) -> Iterator[None]:
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
def _writing(path: Path) -> Iterator[None]:
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
