"""SampleStore: one fixed version of a store, whose content never changes, whatever is written.

Which arrays a version has is in `arrays.py`; how one is written, in `writer.py`.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from flowpatch.errors import StoreDamagedError
from flowpatch.places.place import Place, place_of
from flowpatch.series.dense import COUNTED_BY_DAY
from flowpatch.series.nodes import NodeTable
from flowpatch.series.splits import Splits
from flowpatch.series.statistics import Statistics
from flowpatch.store.arrays import ATTRIBUTE, LEDGER_DIMENSIONS, key_array_names
from flowpatch.store.chunks import StepReader, is_readable, read_steps
from flowpatch.store.ledger import Ledger
from flowpatch.store.manifest import Manifest
from flowpatch.store.repository import Repository, VersionInfo, open_repository, reading
from flowpatch.time_axis import TimeAxis

READ_BYTES = 2**25
"""Of a series that passes through day by day: what is read at a time."""
_WIDTHS = {"cause": len(COUNTED_BY_DAY) + 2, "extreme": 2}
"""Of the ledger's arrays: records by cause, zeros and negatives; the lowest and highest value."""


class SampleStore:
    """One fixed version of a sample store, read only; `tag` is the tag that it was asked for by."""

    def __init__(self, repository: Repository, version: str, tag: str | None = None) -> None:
        self.place = repository.place
        self.version, self.tag = version, tag
        self._repository = repository
        with reading(self.place):
            self._session = repository.session(version)
            self._group = zarr.open_group(self._session.store, mode="r")
            content: Any = self._group.attrs.get(ATTRIBUTE)
        if not isinstance(content, dict):
            raise StoreDamagedError(f"Version {version} of '{self.place}' has no manifest.")
        self.manifest = Manifest.from_json(content, str(self.place))

    @property
    def path(self) -> Path | str:
        """Where it lies, as `open_store` takes it."""
        return self.place.path

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
        keys = tuple(self.array(name) for name in names)
        return NodeTable(
            self.manifest.key_columns,
            tuple(key if key.dtype == np.int64 else key.astype(object) for key in keys),
            self.array("latitude"),
            self.array("longitude"),
        )

    @cached_property
    def observed_at(self) -> NDArray[np.int64]:
        """(T,) observed nodes of each step."""
        return self.array("step_count")

    @cached_property
    def ledger(self) -> Ledger | None:
        """What is known of every step, day and node; None in a store of format 1."""
        with reading(self.place):
            if not all(name in self._group for name in LEDGER_DIMENSIONS):
                return None
        arrays = {name: self.array(name) for name in LEDGER_DIMENSIONS}
        return Ledger.of_arrays(arrays, list(self.manifest.day_hashes))

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
        with reading(self.place):
            return read_steps(self._open_array("value"), first, max(first, stop))

    def read_into(self, values: NDArray[np.float32], first_step: int) -> None:
        """Fills (S, N) contiguous values with the steps from `first_step` on.

        For who reads block after block: threads and memory are kept from one to the next.

        Raises:
            StoreDamagedError: a chunk is missing or does not decode.
        """
        with reading(self.place):
            self._step_reader.read_into(values, first_step)

    @cached_property
    def _step_reader(self) -> StepReader:
        return StepReader(self._open_array("value"))

    def days(self, first: int, stop: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Each day of the steps first .. stop, counted from the first: its first step, and its
        (S, N) values. The last may be shorter. Some days are read at a time, and no more.

        Raises:
            StoreDamagedError: a chunk is missing or does not decode.
        """
        a_day = self.axis.steps_a_day
        together = a_day * max(1, READ_BYTES // (4 * self.manifest.nodes * a_day))
        for begin in range(first, stop, together):
            values = self.read(begin, min(begin + together, stop))
            for day in range(0, len(values), a_day):
                yield begin + day, values[day : day + a_day]

    @property
    def chunk_steps(self) -> int:
        """Steps that are read together: what lies in one chunk of the values."""
        with reading(self.place):
            return int(self._open_array("value").chunks[0])

    def versions(self) -> list[VersionInfo]:
        """Every committed version, newest first."""
        return self._repository.versions()

    def bytes_on_disk(self) -> int:
        """Size of everything in the store, all versions together."""
        return self.place.total_bytes()

    def array(self, name: str) -> NDArray[Any]:
        """Any array but the values, whole; `arrays.py` says which there are.

        Raises:
            StoreDamagedError: a chunk is missing or does not decode.
        """
        with reading(self.place):
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
                f"'{name}' in '{self.place}' is not the array that its manifest tells of. Take "
                "an older version or a copy, or build it again in another folder."
            )
        return array

    def _shape(self, name: str) -> tuple[int, ...]:
        steps, nodes = self.axis.length, self.manifest.nodes
        if name == "value":
            return steps, nodes
        lengths = {"time": steps, "day": self.axis.days, "node": nodes, **_WIDTHS}
        dimensions = {"time": ("time",), **LEDGER_DIMENSIONS}.get(name, ("node",))
        return tuple(lengths[dimension] for dimension in dimensions)


def open_store(path: str | Path | Place, version: str | None = None) -> SampleStore:
    """Opens a version of a sample store, by default the current one.

    Args:
        path: its folder, or `s3://BUCKET/PATH`.
        version: a version's id, the beginning of one, or a tag.

    Raises:
        StoreNotFoundError: no store, no finished version, or no such version.
        StoreFormatError: a newer flowpatch wrote it.
        StoreDamagedError: a part of it is missing or does not decode.
    """
    repository = open_repository(place_of(path))
    found = repository.find(version).version
    is_tag = version is not None and version in repository.tags()
    return SampleStore(repository, found, version if is_tag else None)
