"""A city whose records come day by day, and what its store must hold, computed from the values."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flowpatch.preprocessing.settings import PreprocessSettings
from flowpatch.store.arrays import hash_values
from flowpatch.store.manifest import hash_content
from flowpatch.store.sample_store import SampleStore, open_store

FIRST = np.datetime64("2025-03-03")
STEPS = 24
DAYS_BEFORE = 4
DAYS = 12


@dataclass(frozen=True)
class GrowingCity:
    """A folder of records, a file a day, and a node table."""

    folder: Path
    nodes: int = 8

    def __post_init__(self) -> None:
        self.records.mkdir(parents=True, exist_ok=True)
        rows = [f"{100 + i},{56 + i / 100},{10 + i / 50}" for i in range(self.nodes)]
        self.node_table.write_text("\n".join(["sensor_id,lat,lng", *rows]) + "\n")

    @property
    def records(self) -> Path:
        return self.folder / "records"

    @property
    def node_table(self) -> Path:
        return self.folder / "nodes.csv"

    def file_of(self, day: int) -> Path:
        return self.records / f"{day:03}.parquet"

    def write_days(self, days: Iterable[int], seed: int = 0) -> None:
        for day in days:
            pq.write_table(self.table(day, seed), self.file_of(day))

    def table(self, day: int, seed: int = 0) -> pa.Table:
        generator = np.random.default_rng([day, seed])
        step, node = np.nonzero(generator.random((STEPS, self.nodes)) < 0.9)
        instant = (FIRST + day).astype("datetime64[ms]") + step * np.timedelta64(60, "m")
        return pa.table(
            {
                "sensor_id": 100 + node,
                "passts_time": pa.array(instant, pa.timestamp("ms")),
                "flow_label": generator.normal(20, 5, len(step)).astype(np.float32),
            }
        )

    def settings(self, store: Path, **changes: Any) -> PreprocessSettings:
        given = {
            "records": str(self.records),
            "nodes": str(self.node_table),
            "node_columns": "sensor_id",
            "step_minutes": 60,
            "input_len": 3,
            "output_len": 2,
            "store": store,
        }
        return PreprocessSettings(**{**given, **changes})

    def command(self, store: Path, *more: str) -> list[str]:
        """The build as it is typed."""
        return [
            "preprocess", "--records", str(self.records), "--nodes", str(self.node_table),
            "--node-columns", "sensor_id", "--step-minutes", "60", "--input-len", "3",
            "--output-len", "2", "--store", str(store), *more,
        ]  # fmt: skip


@dataclass(frozen=True)
class Grown:
    """A city of twelve days, of which a store holds four; one of these has changed since.

    `before` is that store and `hash_before` the content of its only version. `hash_after` is the
    content of a store of all days as they are now, built without an interruption.
    """

    city: GrowingCity
    before: Path
    hash_before: str
    hash_after: str

    def store_before(self, to: Path) -> Path:
        """A copy of the store."""
        return copy_of(self.before, to)


def recomputed_hash(store: SampleStore) -> str:
    """The content hash of what reading gives, and not of what the manifest says."""
    steps, values = store.axis.steps_a_day, store.read()
    days = [hash_values(values[i : i + steps]) for i in range(0, len(values), steps)]
    return hash_content(store.axis, store.nodes, store.splits, store.statistics, days)


def hashes_of(path: Path) -> dict[str, str]:
    """The content hash of every version of a store, newest first, each computed from its values."""
    found = {}
    for info in open_store(path).versions():
        store = open_store(path, info.version)
        found[info.version] = recomputed_hash(store)
        assert found[info.version] == store.manifest.content_hash == info.content_hash
    return found


def copy_of(store: Path, to: Path) -> Path:
    shutil.copytree(store, to)
    return to
