"""Cells of rows -> windows, checked against what the metadata says."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flowpatch.errors import SampleTableError
from flowpatch.maxcompute.reading import RowRange
from flowpatch.tables.codec import decode

ARRAY_COLUMNS = ["x", "y", "node_indices"]

Windows = list[tuple[int, NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]]
"""Of each row: the step of its origin, its nodes, its (input_len, K) X and (output_len, K) Y."""


@dataclass
class DecodeRows:
    """The cells of rows -> windows, in the worker that read them."""

    input_len: int
    output_len: int
    nodes: int

    def __call__(self, rows: pa.Table, row_range: RowRange) -> Windows:
        """Decodes the rows; the range's task holds the steps of their origins."""
        place = row_range.part.place
        windows: Windows = []
        columns = [rows.column(name).to_pylist() for name in ARRAY_COLUMNS]
        for number, (origin, x, y, indices) in enumerate(
            zip(row_range.task, *columns, strict=True)
        ):
            where = f"Row {row_range.start + number} of {place}"
            if x is None or y is None:
                raise SampleTableError(f"{where} has an empty X or Y.")
            nodes = self._node_indices(indices, where)
            windows.append(
                (
                    origin,
                    nodes,
                    self._window(x, self.input_len, nodes, f"X of {where}"),
                    self._window(y, self.output_len, nodes, f"Y of {where}"),
                )
            )
        return windows

    def _node_indices(self, cell: str | None, where: str) -> NDArray[np.int64]:
        if not cell:
            return np.arange(self.nodes)
        numbers = decode(cell, f"node_indices of {where}", self.nodes)
        nodes = np.nan_to_num(numbers, nan=-1).astype(np.int64)
        if len(np.unique(nodes)) != len(nodes):
            raise SampleTableError(f"node_indices of {where} name a node twice.")
        if (nodes != numbers).any() or (nodes < 0).any() or (nodes >= self.nodes).any():
            raise SampleTableError(
                f"node_indices of {where} are not all whole numbers in 0..{self.nodes - 1}: the "
                "metadata is of another table."
            )
        return nodes

    def _window(
        self, cell: str, steps: int, nodes: NDArray[np.int64], where: str
    ) -> NDArray[np.float32]:
        values = decode(cell, where, steps * len(nodes))
        if len(values) != steps * len(nodes):
            raise SampleTableError(
                f"{where} has {len(values):,} numbers; {steps} steps of {len(nodes):,} nodes are "
                f"{steps * len(nodes):,}. The metadata is of another table."
            )
        return values.reshape(steps, len(nodes))
