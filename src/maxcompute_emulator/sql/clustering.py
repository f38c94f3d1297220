"""CLUSTERED BY: kept and told, without a meaning for how rows are stored here."""

from __future__ import annotations

from maxcompute_emulator.sql.reader import Reader
from maxcompute_emulator.warehouse import Clustering


def read_clustering(reader: Reader) -> Clustering | None:
    """`[RANGE] CLUSTERED BY (...) [SORTED BY (...)] [INTO n BUCKETS]`, if that comes next."""
    if reader.accept("RANGE", "CLUSTERED", "BY"):
        kind = "range"
    elif reader.accept("CLUSTERED", "BY"):
        kind = "hash"
    else:
        return None
    columns = reader.names()
    order = reader.listed(lambda: _read_ordered(reader)) if reader.accept("SORTED", "BY") else []
    buckets = 0
    if reader.accept("INTO"):
        buckets = reader.integer()
        reader.expect("BUCKETS")
    return Clustering(kind, tuple(columns), tuple(order), buckets)


def _read_ordered(reader: Reader) -> tuple[str, str]:
    name = reader.name()
    if reader.accept("DESC"):
        return name, "desc"
    reader.accept("ASC")
    return name, "asc"
