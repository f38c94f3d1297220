"""A store larger than a test may hold, written day by day."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flowpatch.series.nodes import NodeTable
from flowpatch.series.splits import Splits
from flowpatch.store.draft import Origin
from flowpatch.store.writer import StoreWriter
from flowpatch.time_axis import TimeAxis

A_DAY = 1440


def large_store(path: Path, nodes: int, days: int) -> NDArray[np.float32]:
    """Days of one-minute steps, the last two of them not for training; gives the value of each.

    A step has one value for all nodes, so that little is written.
    """
    axis = TimeAxis.of_days(np.datetime64("2025-01-01"), days, 1)
    keys = np.arange(nodes)
    table = NodeTable(("node",), (keys,), 50 + keys / 1e4, 10 + keys / 1e4)
    origin = Origin({}, {"kind": "test"}, axis.to_json(), table.fingerprint(), None)
    of_step = np.random.default_rng(1).integers(0, 100, axis.length).astype(np.float32)
    val, test = (days - 2) * A_DAY, (days - 1) * A_DAY
    with StoreWriter(path, axis, table, origin) as writer, writer.stretch(0, axis.length):
        for first in range(0, axis.length, A_DAY):
            day = of_step[first : first + A_DAY, None]
            writer.write(first, np.ascontiguousarray(np.broadcast_to(day, (A_DAY, nodes))))
        writer.commit(
            input_len=12, output_len=12, counts=writer.counts(), nodes_without_coordinates=0,
            splits=Splits(0, val, test, axis.length),
        )  # fmt: skip
    return of_step
