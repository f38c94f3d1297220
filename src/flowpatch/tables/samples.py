"""Windows written out: origins and groups of nodes -> rows of a sample table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flowpatch.errors import SettingsError
from flowpatch.maxcompute.writing import CELL_BYTES
from flowpatch.patches.kdtree import split_equal
from flowpatch.series.splits import SPLIT_NAMES, SplitName, Splits
from flowpatch.store.sample_store import SampleStore, open_store
from flowpatch.tables.codec import LARGEST_WHOLE, Encoding, encode, longest_cell
from flowpatch.tables.schema import ARROW_SCHEMA
from flowpatch.time_axis import TimeAxis
from flowpatch.windows.origins import origins_of

Sample = tuple[SplitName, int]
"""A split and an origin."""


def choose_samples(splits: Splits, input_len: int, output_len: int, stride: int) -> list[Sample]:
    """Every `stride`-th origin of each split, in order of time, and each split's last.

    The last is always there, so that the rows hold every step of the splits.

    Raises:
        SettingsError: so wide a stride leaves steps out.
        PeriodError: a split has no origin.
    """
    if stride > input_len + output_len:
        raise SettingsError(
            f"--sample-stride {stride} leaves out steps between windows of {input_len} + "
            f"{output_len}. Allowed: 1..{input_len + output_len}."
        )
    chosen: list[Sample] = []
    for split in SPLIT_NAMES:
        origins = origins_of(splits, split, input_len, output_len)
        kept = np.union1d(origins[::stride], origins[-1:])
        chosen += [(split, int(origin)) for origin in kept]
    return chosen


def node_groups(
    coordinates: NDArray[np.float64], steps: int, encoding: Encoding
) -> list[NDArray[np.int64]]:
    """Groups of neighbouring nodes, as few as keep every cell of `steps` steps within bounds."""
    nodes = len(coordinates)
    if nodes > LARGEST_WHOLE:
        raise SettingsError(f"A sample table holds {LARGEST_WHOLE:,} nodes at most, not {nodes:,}.")
    widest = (CELL_BYTES - 1024) * LARGEST_WHOLE // longest_cell(LARGEST_WHOLE * steps, encoding)
    if not widest:
        raise SettingsError(f"One node's {steps} steps do not fit a cell of {CELL_BYTES:,} bytes.")
    groups = -(-nodes // widest)
    return [np.sort(group) for group in split_equal(coordinates, groups)]


@dataclass
class RowMaker:
    """Makes the rows of samples; opens the store where it is first used, in a worker."""

    store_path: Path | str
    store_version: str
    input_len: int
    output_len: int
    encoding: Encoding
    groups: Sequence[NDArray[np.int64]]

    def __call__(self, samples: Sequence[Sample]) -> pa.Table:
        """The rows of the samples, one for each group of nodes."""
        origins = [origin for _, origin in samples]
        first = min(origins) - self.input_len
        values = self._store.read(first, max(origins) + self.output_len)
        cells = _Cells(first, values, self.groups, self.encoding)
        rows = [row for split, origin in samples for row in self._rows(split, origin, cells)]
        return pa.Table.from_arrays(
            [pa.array(column, pa.string()) for column in zip(*rows, strict=True)],
            schema=ARROW_SCHEMA,
        )

    def _rows(self, split: SplitName, origin: int, cells: "_Cells") -> Iterator[tuple[str, ...]]:
        axis, begin, end = self._store.axis, origin - self.input_len, origin + self.output_len
        te_x, te_y = (
            encode(time_features(axis, *steps), self.encoding)
            for steps in ((begin, origin), (origin, end))
        )
        instant = str(axis.instant_of(origin)).replace("T", " ") + ":00"
        name = str(axis.instant_of(origin)).replace("-", "").replace(":", "")
        for part, node_indices in enumerate(self._node_indices):
            yield (
                f"{name}-{part:03d}",
                split,
                cells.of(begin, origin, part),
                cells.of(origin, end, part),
                te_x,
                te_y,
                node_indices,
                instant,
            )

    @cached_property
    def _store(self) -> SampleStore:
        return open_store(self.store_path, self.store_version)

    @cached_property
    def _node_indices(self) -> list[str]:
        # The same in every row, and packed once: worth the most that zstd can do.
        return [encode(nodes, self.encoding, level=19) for nodes in self.groups]


class _Cells:
    """Encoded stretches of the values of a block: the Y of one window is the X of a later one."""

    def __init__(
        self,
        first: int,
        values: NDArray[np.float32],
        groups: Sequence[NDArray[np.int64]],
        encoding: Encoding,
    ) -> None:
        self._first, self._values = first, values
        self._groups, self._encoding = groups, encoding
        self._known: dict[tuple[int, int, int], str] = {}

    def of(self, begin: int, end: int, part: int) -> str:
        """The cell of the steps begin .. end and one group of nodes."""
        key = (begin, end, part)
        if key not in self._known:
            values = self._values[begin - self._first : end - self._first, self._groups[part]]
            self._known[key] = encode(values, self._encoding)
        return self._known[key]


def time_features(axis: TimeAxis, first: int, stop: int) -> NDArray[np.int64]:
    """(stop - first, 2) time-of-day index and day-of-week index of steps."""
    return np.stack([axis.time_of_day_index(), axis.day_of_week_index()], axis=1)[first:stop]
