"""The way to MaxCompute and, where a table is one of samples, what its rows hold."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from flowpatch.maxcompute.connection import Connection
from flowpatch.maxcompute.diagnosis import PATIENCE_S, Finding, diagnose, look_at
from flowpatch.maxcompute.metadata import describe_table
from flowpatch.maxcompute.names import TableName
from flowpatch.maxcompute.patience import Patience
from flowpatch.tables.row_index import read_row_index
from flowpatch.tables.schema import COLUMNS


def diagnose_all(connection: Connection, table: TableName | None) -> Iterator[Finding]:
    """The findings of every step, in order, each as soon as it is there."""
    for finding in diagnose(connection, table):
        yield finding
        columns = map(str.lower, finding.facts.get("columns", ()))
        if table is not None and {name.lower() for name in COLUMNS} <= set(columns):
            yield look_at("samples", lambda: _count_samples(connection, table))


def _count_samples(connection: Connection, table: TableName) -> tuple[str, dict[str, Any]]:
    patience = Patience(PATIENCE_S)
    info = describe_table(connection, patience, table)
    index = read_row_index(connection, patience, info, with_nodes=False)
    samples = {
        str(split): len(np.unique(index.minutes[index.split == split]))
        for split in dict.fromkeys(index.split)
    }
    first, last = (
        np.datetime64(int(end), "m") for end in (index.minutes.min(), index.minutes.max())
    )
    shown = ", ".join(f"{count:,} {split}" for split, count in samples.items())
    return (
        f"{sum(samples.values()):,} samples ({shown}), origins from {first} to {last}",
        {"samples": samples, "first": str(first), "last": str(last)},
    )
