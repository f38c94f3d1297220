"""The arrays of a version as they are made and filled; what each means is in `arrays.py`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from flowpatch.series.nodes import NodeTable
from flowpatch.store.arrays import COMPRESSOR, chunk_steps, key_array_names
from flowpatch.time_axis import TimeAxis

CHECKSUM = Crc32cCodec()
"""Behind the compression of every array: a flipped bit is an error, not another value."""
EVERY_CHUNK: Any = {"write_empty_chunks": True}
"""A chunk without values is written too, so that one that is not there was lost."""


@dataclass(frozen=True)
class ArrayWriter:
    """The arrays in the group of a version that is being written."""

    group: zarr.Group
    axis: TimeAxis
    nodes: NodeTable

    def opened_value(self) -> Any:
        """The array of values as it is."""
        value: Any = self.group["value"]
        # How it is written is not kept with it.
        return value.with_config(EVERY_CHUNK)

    def create_value(self, *, overwrite: bool = False) -> Any:
        """The array of values, empty."""
        names = key_array_names(self.nodes.key_columns)
        return self.group.create_array(
            "value",
            shape=(self.axis.length, len(self.nodes)),
            dtype="float32",
            chunks=(chunk_steps(self.axis, len(self.nodes)), len(self.nodes)),
            fill_value=float("nan"),
            compressors=[COMPRESSOR, CHECKSUM],
            dimension_names=("time", "node"),
            config=EVERY_CHUNK,
            attributes={"coordinates": " ".join(["latitude", "longitude", *names[1:], *names[:1]])},
            overwrite=overwrite,
        )

    def put_time(self) -> None:
        """The minutes of the axis."""
        since = {
            "units": f"minutes since {str(self.axis.start).replace('T', ' ')}:00",
            "calendar": "proleptic_gregorian",
            "time_zone": self.axis.time_zone,
        }
        minutes = np.arange(self.axis.length, dtype=np.int64) * self.axis.step_minutes
        self.put("time", ("time",), minutes, since)

    def put_nodes(self) -> None:
        """Keys and places of the nodes."""
        names = key_array_names(self.nodes.key_columns)
        self.put("node", ("node",), self.nodes.labels)
        if len(names) > 1:
            for name, column in zip(names, self.nodes.keys, strict=True):
                self.put(name, ("node",), column)
        self.put("latitude", ("node",), self.nodes.latitude, {"units": "degrees_north"})
        self.put("longitude", ("node",), self.nodes.longitude, {"units": "degrees_east"})

    def put(
        self,
        name: str,
        dimensions: tuple[str, ...],
        values: NDArray[Any],
        attributes: dict[str, Any] | None = None,
    ) -> None:
        """An array whole, in place of one of that name."""
        array = self.group.create_array(
            name,
            shape=values.shape,
            dtype=str if values.dtype == object else values.dtype,
            compressors=[ZstdCodec(level=1), CHECKSUM],
            config=EVERY_CHUNK,
            dimension_names=dimensions,
            attributes=attributes or {},
            overwrite=True,
        )
        array[:] = values
