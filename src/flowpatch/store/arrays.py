"""The arrays of a version: their names, their chunks, and the hash of their values.

value      (time, node) float32, NaN where nothing was observed
time       (time,)  minutes since the first step, CF style: xarray labels it
node       (node,)  the key, or its parts joined; each part of a longer key has its own array
latitude, longitude (node,) degrees
step_*, day_*, node_* what is known of every step, day and node, see `ledger.py`
attribute  the manifest
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from flowpatch.series.filling import shifted
from flowpatch.time_axis import TimeAxis

ATTRIBUTE = "flowpatch"
CHUNK_BYTES = 8 * 2**20
"""Largest chunk: a few in flight fit a CPU cache's reach, and a read is spread over all cores."""
COMPRESSOR = BloscCodec(cname="lz4", clevel=9, shuffle="bitshuffle", typesize=4, blocksize=2**16)
"""Of the values. Others are read as well: older stores have Zstandard and a byte shuffle."""
BLOCK_BYTES = 2**20
"""Smallest write: below it a chunk costs more in bookkeeping than in bytes."""
LEDGER_DIMENSIONS: Mapping[str, tuple[str, ...]] = {
    "step_count": ("time",),
    "step_mean": ("time",),
    "step_m2": ("time",),
    "day_counts": ("day", "cause"),
    "day_extremes": ("day", "extreme"),
    "node_observed": ("node",),
    "node_stuck": ("node",),
}
"""The arrays that a ledger is kept in."""
HASHED_BYTES = 2**18
"""Hashed at a time: what stays in a core's own cache between the passes over it."""
_OWN_NAMES = {"value", "time", "node", "latitude", "longitude", *LEDGER_DIMENSIONS}


def key_array_names(key_columns: Sequence[str]) -> list[str]:
    """The array that holds each key column; `node` itself where the key is one column.

    A column whose name is no plain word, or is taken, must not steer where an array is written;
    nor must one named `key_1` take the place of the second column.
    """
    if len(key_columns) == 1:
        return ["node"]
    return [
        f"key_{position}"
        if name in _OWN_NAMES or name.startswith(("key_", "_")) or not name.isidentifier()
        else name
        for position, name in enumerate(key_columns)
    ]


def block_days(axis: TimeAxis, nodes: int) -> int:
    """Days of one written block: one, or more where a day is too small to be worth a chunk.

    However few days there are: the series may grow.
    """
    return max(1, BLOCK_BYTES // (4 * nodes * axis.steps_a_day))


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
    digest = hashlib.sha256()
    rows = max(1, HASHED_BYTES // (4 * max(1, values.shape[1])))
    for first in range(0, len(values), rows):
        part = np.asarray(values[first : first + rows], dtype="<f4", order="C")
        # Adding zero makes -0 a 0.
        canonical = shifted(part, np.zeros(len(part), dtype=np.float32), np.nan)
        digest.update(canonical.data)
    return digest.hexdigest()
