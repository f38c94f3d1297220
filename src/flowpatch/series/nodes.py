"""The nodes of a series, in the one order that every array of a store follows."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowpatch.errors import NodeTableError
from flowpatch.sources.contract import (
    NODE_WITHOUT_COORDINATES,
    KeyColumn,
    NodeIndex,
    NodeRecords,
)


@dataclass(frozen=True)
class NodeTable:
    """N nodes, sorted by key: numbers by value, text by code point, first column first.

    `keys` has one (N,) column, int64 or text, for each name in `key_columns`; `latitude` and
    `longitude` are (N,) float64 degrees. Sorting by key makes the order, and with it every array
    of a store, independent of the order of rows in the file.
    """

    key_columns: tuple[str, ...]
    keys: tuple[KeyColumn, ...]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.latitude)

    @property
    def coordinates(self) -> NDArray[np.float64]:
        """(N, 2) latitude and longitude."""
        return np.stack([self.latitude, self.longitude], axis=1)

    @property
    def labels(self) -> KeyColumn:
        """(N,) one label a node: its key, or its key's parts joined as `100->200`."""
        if len(self.keys) == 1:
            return self.keys[0]
        rows = zip(*self.keys, strict=True)
        return np.array(["->".join(map(str, row)) for row in rows], dtype=object)

    def positions_in(self, other: "NodeTable") -> NDArray[np.int64]:
        """(N,) position of each node among those of a table that holds all of them.

        Raises:
            NodeTableError: it does not.
        """
        places = {key: position for position, key in enumerate(zip(*other.keys, strict=True))}
        found = [places.get(key, -1) for key in zip(*self.keys, strict=True)]
        if self.key_columns != other.key_columns or -1 in found:
            raise NodeTableError("a node of the series is not in the table of its next version")
        return np.array(found, dtype=np.int64)

    def fingerprint(self) -> str:
        """A hash of names, keys and coordinates, equal for equal tables."""
        digest = hashlib.sha256(repr(self.key_columns).encode())
        for column in self.keys:
            digest.update(column.dtype.kind.encode())
            digest.update(json.dumps(column.tolist()).encode())
        digest.update(self.coordinates.astype("<f8").tobytes())
        return digest.hexdigest()

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return {
            "key_columns": list(self.key_columns),
            "keys": [column.tolist() for column in self.keys],
            "latitude": self.latitude.tolist(),
            "longitude": self.longitude.tolist(),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "NodeTable":
        """The table that `to_json` described."""
        keys = [np.array(column) for column in content["keys"]]
        return cls(
            tuple(content["key_columns"]),
            tuple(key if key.dtype == np.int64 else key.astype(object) for key in keys),
            np.array(content["latitude"], dtype=np.float64),
            np.array(content["longitude"], dtype=np.float64),
        )


@dataclass(frozen=True)
class LocatedNodes:
    """The nodes that have coordinates, and the index that records of every node get."""

    table: NodeTable
    index: NodeIndex
    without_coordinates: int


def locate(records: NodeRecords) -> LocatedNodes:
    """Sorts the nodes and leaves out those without coordinates, but remembers their keys.

    Raises:
        NodeTableError: the table is empty, repeats a key, or gives no coordinates at all.
    """
    order = np.lexsort([_sortable(column) for column in reversed(records.keys)])
    keys = tuple(column[order] for column in records.keys)
    latitude, longitude = records.latitude[order], records.longitude[order]
    located = np.isfinite(latitude) & np.isfinite(longitude)
    _check(records.key_columns, keys, located)

    index = np.full(len(order), NODE_WITHOUT_COORDINATES, dtype=np.int32)
    index[located] = np.arange(located.sum(), dtype=np.int32)
    table = NodeTable(
        records.key_columns,
        tuple(column[located] for column in keys),
        latitude[located],
        longitude[located],
    )
    return LocatedNodes(table, NodeIndex(records.key_columns, keys, index), int((~located).sum()))


def _sortable(column: KeyColumn) -> NDArray[Any]:
    # lexsort cannot order objects; numpy's fixed-width text sorts by code point.
    return column if column.dtype == np.int64 else column.astype(str)


def _check(names: tuple[str, ...], keys: tuple[KeyColumn, ...], located: NDArray[np.bool_]) -> None:
    if not len(located):
        raise NodeTableError("The node table has no rows. Check --nodes and --adcode.")
    repeats = np.flatnonzero(np.logical_and.reduce([column[1:] == column[:-1] for column in keys]))
    if len(repeats):
        examples = [
            ", ".join(f"{name}={column[i]}" for name, column in zip(names, keys, strict=True))
            for i in repeats[:3]
        ]
        raise NodeTableError(
            f"The node table repeats {len(repeats)} keys, such as {'; '.join(examples)}. "
            "Keep one row a node, or name all columns of the key with --node-columns."
        )
    if not located.any():
        raise NodeTableError(
            "No node has coordinates: every latitude or longitude is empty, not a number or out "
            "of range (-90..90, -180..180 degrees). Check --lat-column and --lng-column."
        )
