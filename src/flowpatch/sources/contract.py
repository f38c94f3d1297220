"""What every source of raw records gives, whatever engine stands behind it.

    read_nodes()   the node table as it is written
    survey()       how many records there are, and from when to when
    parts()        what of it can change by itself: files, partitions; and the state of each
    only()         the same records, restricted to some parts
    read_blocks()  blocks of (step, node, value), in any order, for a stretch of the time axis:
                   records as they are, parts of them that any thread can read, or cells where
                   the engine has aggregated them already

A source finds records and numbers their steps and nodes. It drops none without a trace: what it
cannot number is marked, and counted by whoever takes the block (`series/dense.py`).
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from flowpatch.time_axis import TimeAxis

UNKNOWN_NODE = -1
"""Node index of a record whose key is not in the node table."""

NODE_WITHOUT_COORDINATES = -2
"""Node index of a record whose node has no place on the map."""

MANY_RECORDS = 5_000_000
"""From here on, compiled loops over records repay what loading them costs (`compiled.py`)."""

KeyColumn = NDArray[Any]
"""One column of node keys: int64, or text as objects."""


@dataclass(frozen=True)
class NodeRecords:
    """The node table as the source holds it: N rows, not yet checked or sorted.

    `keys` has one (N,) column for each name in `key_columns`; `latitude` and `longitude` are (N,)
    float64 degrees, NaN where the source gives none.
    """

    key_columns: tuple[str, ...]
    keys: tuple[KeyColumn, ...]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]

    def __post_init__(self) -> None:
        lengths = {len(column) for column in (*self.keys, self.latitude, self.longitude)}
        if len(self.keys) != len(self.key_columns) or len(lengths) != 1:
            raise ValueError("a node table's columns differ in length or number")


@dataclass(frozen=True)
class NodeIndex:
    """Which index the records of a key get: an index in the series, or NODE_WITHOUT_COORDINATES."""

    key_columns: tuple[str, ...]
    keys: tuple[KeyColumn, ...]
    index: NDArray[np.int32]


@dataclass(frozen=True)
class Survey:
    """How many records there are after filtering, and from when to when.

    `first` and `last` are None where no record has a readable instant; `time_example` is one that
    could not be read.
    """

    records: int
    without_time: int
    first: np.datetime64 | None
    last: np.datetime64 | None
    time_example: str | None = None

    def __add__(self, other: "Survey") -> "Survey":
        """Both together; in which order makes no difference."""
        firsts = [first for first in (self.first, other.first) if first is not None]
        lasts = [last for last in (self.last, other.last) if last is not None]
        examples = (self.time_example, other.time_example)
        return Survey(
            self.records + other.records,
            self.without_time + other.without_time,
            min(firsts, default=None),
            max(lasts, default=None),
            min((example for example in examples if example is not None), default=None),
        )

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads: plain JSON, instants as ISO text."""
        return {
            "records": self.records,
            "without_time": self.without_time,
            "first": None if self.first is None else str(self.first),
            "last": None if self.last is None else str(self.last),
            "time_example": self.time_example,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Survey":
        """The survey that `to_json` described.

        Raises:
            KeyError, ValueError: it is none.
        """
        first, last = (
            None if content[end] is None else np.datetime64(content[end], "ms")
            for end in ("first", "last")
        )
        return cls(
            content["records"], content["without_time"], first, last, content["time_example"]
        )


NO_RECORDS = Survey(0, 0, None, None)
"""The survey of nothing; any other plus this one is itself."""


@dataclass(frozen=True)
class SourcePart:
    """What of a source can change by itself: a file, a partition, or a table without any.

    `name` is the path as the source names it, or the partition, '' for a table without any.
    `identity` is plain JSON that differs where the records may differ: bytes and changed_ns of a
    file; modified of a partition; created, modified and bytes of a table. `survey` is what the
    part holds, None where nobody looked.
    """

    name: str
    identity: dict[str, Any]
    survey: Survey | None = None

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads; every value is plain JSON."""
        return {
            "name": self.name,
            "identity": self.identity,
            "survey": None if self.survey is None else self.survey.to_json(),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "SourcePart":
        """The part that `to_json` described.

        Raises:
            KeyError, ValueError: it is none.
        """
        survey = content["survey"]
        return cls(
            content["name"],
            content["identity"],
            None if survey is None else Survey.from_json(survey),
        )


@dataclass(frozen=True)
class RecordBlock:
    """K records of the stretch asked for, each array (K,).

    `step` counts from the first step of the stretch; `node` is an index in the series,
    UNKNOWN_NODE or NODE_WITHOUT_COORDINATES; `value` is NaN where the record has no number;
    `instant_ms` is the wall-clock instant, given only where the aggregate needs an order.
    """

    step: NDArray[np.signedinteger[Any]]
    node: NDArray[np.int32]
    value: NDArray[np.float32]
    instant_ms: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class CellBlock:
    """The records of K (step, node) aggregated where they lie, each array (K,); no pair twice.

    `step` and `node` are as in a RecordBlock. `value` is the sum of the `used` records for the
    aggregates mean and sum, the value itself for max and last, and NaN where none was used.
    `not_a_number` and `null_value` count the others; where the node is not in the series, only
    the three together have a meaning.
    """

    step: NDArray[np.int64]
    node: NDArray[np.int64]
    value: NDArray[np.float64]
    used: NDArray[np.int64]
    not_a_number: NDArray[np.int64]
    null_value: NDArray[np.int64]


@runtime_checkable
class RecordPart(Protocol):
    """Records of the stretch that are still to be read, by any thread, beside other parts."""

    def read(self) -> Iterator[RecordBlock]:
        """The records, block by block."""


class RecordReader(Protocol):
    """What gives the records of any stretch."""

    def read_blocks(
        self, nodes: NodeIndex, axis: TimeAxis, first_step: int, stop_step: int, *, in_order: bool
    ) -> Iterator[RecordBlock | RecordPart | CellBlock]:
        """The records of steps first_step .. stop_step; `in_order` asks for `instant_ms`."""


class RecordSource(RecordReader, Protocol):
    """A place that holds raw records."""

    def describe(self) -> dict[str, Any]:
        """Which records these are, for the manifest: kind, place, size, time of last change."""

    def read_nodes(self) -> NodeRecords:
        """The node table.

        Raises:
            SourceError: it is missing or lacks a column.
        """

    def survey(self) -> Survey:
        """Counts the records and finds their first and last instant.

        Raises:
            SourceError: the records are missing or lack a column.
        """

    def parts(self) -> tuple[SourcePart, ...]:
        """Every part, in order of name; no record is read, no survey is given.

        States are those from before this source read anything: what changes later, even while it
        is read, differs from them, as another source will see.

        Raises:
            SourceError: the records are missing.
        """

    def surveyed_parts(self) -> tuple[SourcePart, ...]:
        """The same with what each part holds, as `survey` counts it: all together are its sum."""

    def only(self, names: Collection[str]) -> "RecordSource":
        """The same records, restricted to some parts; closed for itself, before or after this.

        Raises:
            SourceError: a part is not there, or none is named.
        """

    def close(self) -> None:
        """Gives back connections, workers and what was made for reading; nothing is read after."""
