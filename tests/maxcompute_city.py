"""A small city in an emulated MaxCompute, and the same city in files: what both should give."""

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from odps import ODPS

from flowpatch.maxcompute.connection import Connection
from flowpatch.maxcompute.credentials import KEY_ID, KEY_SECRET
from flowpatch.maxcompute.names import TableName
from flowpatch.preprocessing.settings import PreprocessSettings

PROJECT = "demo"
KINDS = [
    "throttled",
    "unavailable",
    "reset_before",
    "reset_inside",
    "empty_body",
    "expired_session",
    "lost_commit",
    "lost_submit",
    "slow",
]
"""Every fault that the emulator knows."""
KEYS = {KEY_ID: "id-of-the-tests-key", KEY_SECRET: "secret-of-the-tests-key"}


class Service:
    """An emulator, its control address, and the real client on it."""

    def __init__(self, endpoint: str, control: str) -> None:
        self.endpoint, self.control = endpoint, control
        self.client = ODPS(
            KEYS[KEY_ID], KEYS[KEY_SECRET], PROJECT, endpoint, overwrite_global=False
        )

    def connection(self, patience_s: float = 20.0) -> Connection:
        return Connection(self.endpoint, PROJECT, patience_s=patience_s)

    def name(self, stem: str) -> TableName:
        """A table's name that no other test has."""
        return TableName(PROJECT, f"{stem}_{uuid.uuid4().hex[:12]}")

    def load(self, table: TableName, rows: pa.Table, columns: str, ds: Sequence[str] | None = None):
        """Writes rows as a table; `ds` gives each row's partition."""
        schema = columns if ds is None else (columns, "ds string")
        made = self.client.create_table(table.table, schema)
        if ds is None:
            with made.open_writer(arrow=True) as writer:
                writer.write(rows)
            return
        for value in dict.fromkeys(ds):
            of_partition = rows.filter(pa.array([other == value for other in ds]))
            with made.open_writer(f"ds={value}", create_partition=True, arrow=True) as writer:
                writer.write(of_partition)

    def rows(self, table: TableName, columns: Sequence[str] | None = None) -> list[tuple[Any, ...]]:
        """All rows as the plain client reads them."""
        found = self.client.get_table(table.table)
        specs = (
            [str(part) for part in found.partitions] if found.table_schema.partitions else [None]
        )
        result = []
        for spec in specs:
            with found.open_reader(partition=spec, columns=columns) as reader:
                result += [tuple(record.values) for record in reader]
        return result

    def tables(self) -> set[str]:
        return {table.name for table in self.client.list_tables()}

    def faults(self, *rules: dict[str, Any]) -> None:
        self._call("PUT", "faults", list(rules))

    def no_faults(self) -> None:
        self._call("DELETE", "faults")

    def requests(self, containing: str = "") -> list[dict[str, Any]]:
        found = self._call("GET", "requests")
        return [
            entry
            for entry in found
            if containing in f"{entry['method']} {entry['path']}?{entry['query']}"
        ]

    def forget_requests(self) -> None:
        self._call("DELETE", "requests")

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(f"{self.control}/{path}", data, method=method)) as answer:  # noqa: S310
            return json.load(answer)


class City:
    """Raw records of 8 nodes and 3 days at 30 minutes, with the dirt that records have."""

    columns = (
        "nds_id string, next_nds_id string, passts_time string, flow_label bigint, adcode string"
    )

    def __init__(self, seed: int = 3) -> None:
        generator = np.random.default_rng(seed)
        steps, nodes = 3 * 48, 8
        step, node = np.nonzero(generator.random((steps, nodes)) < 0.9)
        # Some cells have several records, and some of another city must not count.
        step, node = (np.concatenate([each, each[: len(each) // 5]]) for each in (step, node))
        minute = generator.integers(0, 30, len(step))
        instant = np.datetime64("2025-09-19T00:00:00") + (step * 30 + minute).astype("m8[m]")
        value = generator.poisson(10 + node).astype(object)
        value[::97] = None
        nds = np.array([f"{1000 + n}" for n in node], dtype=object)
        nds[::101] = "no such node"
        adcode = np.where(np.arange(len(step)) % 50 == 0, "120000", "110000")
        time = np.char.replace(instant.astype(str), "T", " ").astype(object)
        time[5::211] = None
        order = generator.permutation(len(step))
        self.records = pa.table(
            {
                "nds_id": pa.array(nds, pa.string()),
                "next_nds_id": pa.array([f"{2000 + n}" for n in node], pa.string()),
                "passts_time": pa.array(time, pa.string()),
                "flow_label": pa.array(value, pa.int64()),
                "adcode": pa.array(adcode, pa.string()),
            }
        ).take(order)
        days = np.char.replace(instant.astype("M8[D]").astype(str), "-", "")[order]
        self.ds = [str(day) for day in days]
        self.nodes = pa.table(
            {
                "nds_id": [f"{1000 + n}" for n in range(nodes)],
                "next_nds_id": [f"{2000 + n}" for n in range(nodes)],
                "inter_id": [f"{n // 4}" for n in range(nodes)],
                "lat": 39.9 + generator.random(nodes) / 10,
                "lng": 116.3 + generator.random(nodes) / 10,
            }
        )

    def write(self, folder: Path) -> tuple[Path, Path]:
        """The city in files."""
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(self.records, folder / "records.parquet")
        pq.write_table(self.nodes, folder / "nodes.parquet")
        return folder / "records.parquet", folder / "nodes.parquet"

    def load(self, service: Service) -> tuple[TableName, TableName]:
        """The city in MaxCompute."""
        raw, meta = service.name("raw"), service.name("meta")
        service.load(raw, self.records, self.columns, self.ds)
        columns = "nds_id string, next_nds_id string, inter_id string, lat double, lng double"
        service.load(meta, self.nodes, columns)
        return raw, meta


def settings(records: object, nodes: object, store: Path, **changes: Any) -> PreprocessSettings:
    """The build of a city, wherever it lies."""
    given = {"step_minutes": 30, "adcode": "110000", "input_len": 6, "output_len": 6, **changes}
    return PreprocessSettings(records=str(records), nodes=str(nodes), store=store, **given)
