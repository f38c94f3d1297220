"""StoreWriter: blocks in, one commit, and nothing to see before it."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.metadata import version as installed_version
from pathlib import Path
from types import TracebackType
from typing import Any

import icechunk
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from flowpatch.errors import StoreExistsError, StoreWriteError
from flowpatch.series.dense import RecordCounts
from flowpatch.series.nodes import NodeTable
from flowpatch.series.quality import Quality
from flowpatch.series.splits import Splits
from flowpatch.series.statistics import StepMoments
from flowpatch.store.arrays import (
    ATTRIBUTE,
    COMPRESSOR,
    block_days,
    chunk_steps,
    hash_values,
    key_array_names,
)
from flowpatch.store.lock import writer_lock
from flowpatch.store.manifest import Manifest, hash_content
from flowpatch.store.repository import BRANCH, has_version, is_there, is_unfinished, writing
from flowpatch.store.sample_store import SampleStore, open_store
from flowpatch.time_axis import TimeAxis

CHECKSUM = Crc32cCodec()
"""Behind the compression of every array: a flipped bit is an error, not another value."""
EVERY_CHUNK: Any = {"write_empty_chunks": True}
"""A chunk without values is written too, so that one that is not there was lost."""


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
        with writing(self.path):
            self.path.absolute().parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(writer_lock(self.path))
            check_free(self.path, overwrite=self._overwrite)
            if not has_version(self.path):
                # Nothing is there, or what a build left that was killed: start from nothing.
                shutil.rmtree(self.path, ignore_errors=True)
                stack.callback(self._remove_unless_committed)
            with writing(self.path):
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
        with writing(self.path), ThreadPoolExecutor(1, "looking") as beside:
            # What is known of the values is found on one core while another compresses them.
            looked = beside.submit(self._look_at, first_step, values)
            self._value[first_step : first_step + len(values)] = values
            looked.result()

    def _look_at(self, first_step: int, values: NDArray[np.float32]) -> None:
        """Takes the moments of whole days, and their hashes."""
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
        with writing(self.path):
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
        names = key_array_names(self.nodes.key_columns)
        value = self._group.create_array(
            "value",
            shape=(self.axis.length, len(self.nodes)),
            dtype="float32",
            chunks=(chunk_steps(self.axis, len(self.nodes)), len(self.nodes)),
            fill_value=float("nan"),
            compressors=[COMPRESSOR, CHECKSUM],
            dimension_names=("time", "node"),
            config=EVERY_CHUNK,
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
            config=EVERY_CHUNK,
            dimension_names=dimensions,
            attributes=attributes or {},
        )
        array[:] = values


def check_free(path: Path, *, overwrite: bool) -> None:
    """Makes sure that a store may be written at `path`, before any work is done for it.

    Raises:
        StoreExistsError: a store, or something that is no store, is there.
    """
    if not is_there(path, StoreWriteError):
        return
    if has_version(path):
        if not overwrite:
            raise StoreExistsError(
                f"A sample store is already at '{path}'. Give another --store, or --overwrite to "
                "write a new version of it."
            )
    elif not is_unfinished(path):
        raise StoreExistsError(
            f"'{path}' exists and is no sample store. Give another --store; nothing was touched."
        )
