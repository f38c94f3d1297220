"""SampleStore: one fixed version of a store, whose content never changes, whatever is written.

Which arrays a version has is in `arrays.py`; how one is written, in `writer.py`.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import zarr
from numpy.typing import NDArray

from flowpatch.errors import StoreDamagedError, StoreNotFoundError
from flowpatch.series.nodes import NodeTable
from flowpatch.series.splits import Splits
from flowpatch.series.statistics import Statistics, StepMoments
from flowpatch.store.arrays import ATTRIBUTE, TIME_ARRAYS, key_array_names
from flowpatch.store.chunks import is_readable, read_steps
from flowpatch.store.manifest import Manifest
from flowpatch.store.repository import VersionInfo, open_repository, reading, versions
from flowpatch.time_axis import TimeAxis


class SampleStore:
    """One fixed version of a sample store, read only."""

    def __init__(self, path: Path, repository: icechunk.Repository, version: str) -> None:
        self.path = path
        self.version = version
        self._repository = repository
        with reading(path):
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
        names = key_array_names(self.manifest.key_columns)
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
        first, stop, _ = slice(first_step, stop_step).indices(self.axis.length)
        with reading(self.path):
            return read_steps(self._open_array("value"), first, max(first, stop))

    def versions(self) -> list[VersionInfo]:
        """Every committed version, newest first."""
        return versions(self.path, self._repository)

    def bytes_on_disk(self) -> int:
        """Size of everything in the store's folder, all versions together."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def _array(self, name: str) -> NDArray[Any]:
        """Any array but the values, whole."""
        with reading(self.path):
            array = self._open_array(name)
            # Zarr reads a chunk that is not there as empty; here every chunk was written.
            missing = array.nchunks - array.nchunks_initialized
            if missing:
                raise ValueError(f"{missing} chunks of '{name}' are missing")
            return np.asarray(array[:])

    def _open_array(self, name: str) -> zarr.Array[Any]:
        array = self._group[name]
        if (
            not isinstance(array, zarr.Array)
            or array.shape != self._shape(name)
            or (name == "value" and not is_readable(array))
        ):
            raise StoreDamagedError(
                f"'{name}' in '{self.path}' is not the array that its manifest tells of. Take "
                "an older version or a copy, or build it again in another folder."
            )
        return array

    def _shape(self, name: str) -> tuple[int, ...]:
        steps, nodes = self.axis.length, self.manifest.nodes
        if name == "value":
            return steps, nodes
        return (steps,) if name in TIME_ARRAYS else (nodes,)


def open_store(path: str | Path, version: str | None = None) -> SampleStore:
    """Opens a version of a sample store, by default the newest.

    Raises:
        StoreNotFoundError: no store, no finished version, or no such version.
        StoreFormatError: a newer flowpatch wrote it.
        StoreDamagedError: a part of it is missing or does not decode.
    """
    path = Path(path)
    repository = open_repository(path)
    known = [info.version for info in versions(path, repository)]
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
