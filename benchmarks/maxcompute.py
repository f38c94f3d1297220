"""MaxCompute: bytes and seconds of publishing, fetching and reading, against the emulator.

The emulator runs beside the measured process on the same cores, so seconds are an upper bound;
bytes, ratios and memory are not touched by that. With the cap on, every stream gets the 10 MB/s
that the real service gives.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq
from odps import ODPS

from benchmarks.measuring import run
from flowpatch.store.sample_store import open_store
from flowpatch.tables.samples import RowMaker, choose_samples, node_groups

ROOT = Path(__file__).resolve().parent.parent
CAP = 10_000_000
PROJECT, RAW, META, SAMPLES = "bench", "raw", "meta", "samples"
KEYS = {
    "ALIBABA_CLOUD_ACCESS_KEY_ID": "benchmark-key-id",
    "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "benchmark-key-secret",
}


def measure(*, quick: bool) -> dict[str, Any]:
    """All figures; `quick` takes a city so small that they mean nothing."""
    os.environ.update(KEYS)
    nodes, millions = (50, (0.05, 0.2)) if quick else (2000, (3.3, 33.0))
    with tempfile.TemporaryDirectory() as folder, emulator(Path(folder)) as service:
        os.environ["FLOWPATCH_CACHE"] = f"{folder}/cache"
        return {
            "samples": measure_samples(service, Path(folder), nodes),
            "records": [
                measure_records(service, Path(folder), size, plain=size == millions[0])
                for size in millions
            ],
        }


class Service:
    """The emulator's addresses and a plain client."""

    def __init__(self, endpoint: str, control: str) -> None:
        self.endpoint, self._control = endpoint, control
        self.client = ODPS(*KEYS.values(), PROJECT, endpoint)

    def control(self, method: str, path: str, body: object = None) -> Any:
        """Calls the control address."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self._control}/{path}", data, method=method)  # noqa: S310
        with urlopen(request) as answer:  # noqa: S310
            return json.load(answer)

    def cap(self, bytes_per_second: int | None) -> None:
        """Caps every stream of data."""
        self.control("PUT", "bandwidth", {"bytes_per_second": bytes_per_second})

    def moved(self, action: Callable[[], Any]) -> dict[str, int]:
        """Bytes and requests of data that an action took."""
        self.control("DELETE", "requests")
        action()
        data = [
            entry
            for entry in self.control("GET", "requests")
            if "rowrange" in entry["query"] or "blockid" in entry["query"]
        ]
        return {
            "bytes_out": sum(entry["bytes_out"] for entry in data),
            "bytes_in": sum(entry["bytes_in"] for entry in data),
            "requests": len(data),
        }


def measure_samples(service: Service, folder: Path, nodes: int) -> dict[str, Any]:
    """A week of a city at 5 minutes as a sample table: written, fetched, trained from."""
    city, store = folder / "week", folder / "week.store"
    flowpatch(f"simulate --out {city} --nodes {nodes} --days 7 --step-minutes 5", folder)
    flowpatch(
        f"preprocess --records {city}/records --nodes {city}/nodes.csv --store {store}", folder
    )
    found: dict[str, Any] = {"nodes": nodes, "cells": sizes(store)}
    table = f"odps://{PROJECT}/{SAMPLES} --odps-endpoint {service.endpoint}"
    for name, cap in (("uncapped", None), ("capped", CAP)):
        service.cap(cap)
        publish = f"samples publish {store} {table} --if-exists replace"
        if name == "uncapped":
            publish = publish.replace(" --if-exists replace", "")
        seconds, moved = timed(service, publish, folder)
        found[f"publish_{name}"] = {"seconds": seconds, **moved}
        seconds, moved = timed(service, f"samples fetch {table}", folder)
        found[f"fetch_{name}"] = {"seconds": seconds, **moved}
    service.cap(None)
    whole = service.moved(lambda: read_whole(service))["bytes_out"]
    found["table_bytes_over_fetched"] = round(whole / found["fetch_uncapped"]["bytes_out"], 1)
    for text in ("text", "shortest_text"):
        found[f"{text}_over_published"] = round(found["cells"][text] / found["cells"]["zstd"], 2)
    steps = sorted(first_step(service, folder / f"second{number}") for number in range(3))
    found["second_run_to_first_step_s"] = {"median": steps[1], "all": steps}
    return found


def sizes(store: Path) -> dict[str, int]:
    """Characters of a table's cells in both encodings, from every fiftieth sample.

    `text` is as Python prints floats (12.0), `shortest_text` without the needless `.0`.
    """
    opened = open_store(store)
    lengths = (opened.manifest.input_len, opened.manifest.output_len)
    chosen = choose_samples(opened.splits, *lengths, 1)
    found = {}
    for encoding in ("zstd", "text"):
        groups = node_groups(opened.nodes.coordinates, max(lengths), encoding)
        maker = RowMaker(store, opened.version, *lengths, encoding, groups)
        part = [maker([sample]) for sample in chosen[::50]]
        characters = sum(
            pc.sum(pc.utf8_length(column)).as_py() for rows in part for column in rows.columns
        )
        found[encoding] = round(characters * len(chosen) / len(part))
        if encoding == "text":
            points = sum(
                pc.sum(pc.count_substring(rows[name], ".0,")).as_py()
                for rows in part
                for name in ("x", "y")
            )
            found["shortest_text"] = round((characters - 2 * points) * len(chosen) / len(part))
    return found


def read_whole(service: Service) -> None:
    """Every cell of the sample table, as a client reads that does not choose rows."""
    with service.client.get_table(SAMPLES).open_reader(arrow=True) as reader:
        for _ in reader:
            pass


def first_step(service: Service, folder: Path) -> float:
    """Seconds from the command to its first optimiser step, the samples being cached already."""
    script = ROOT / "train_from_samples.py"
    folder.mkdir()
    run = folder / "run"
    metadata = folder.parent / f"metadata_{SAMPLES}.json"
    command = [sys.executable, str(script), "--sample_table", SAMPLES, "--run", str(run)]
    command += ["--odps_project", PROJECT, "--odps_endpoint", service.endpoint]
    command += ["--metadata_file", str(metadata)]
    started = time.monotonic()
    process = subprocess.Popen(  # noqa: S603
        [*command, "--log-every", "1", "--batch-size", "4"], cwd=folder, stderr=subprocess.DEVNULL
    )
    rows = run / "metrics.jsonl"
    while process.poll() is None and not (rows.exists() and rows.stat().st_size):
        time.sleep(0.01)
    seconds = time.monotonic() - started
    process.kill()
    process.wait()
    if not rows.exists():
        raise RuntimeError("the training ended before its first step")
    return round(seconds, 2)


def measure_records(
    service: Service, folder: Path, millions: float, *, plain: bool
) -> dict[str, Any]:
    """Raw records by both ways: rows a second and peak memory; the plain client's loop beside."""
    table = f"{RAW}_{round(millions * 1000)}k"
    records = load_records(service, folder, table, millions)
    found: dict[str, Any] = {"records": records}
    for pushdown in ("tunnel", "sql"):
        store = folder / f"{table}-{pushdown}.store"
        command = (
            f"preprocess --records odps://{PROJECT}/{table} --nodes odps://{PROJECT}/{META} "
            f"--store {store} --odps-endpoint {service.endpoint} --pushdown {pushdown}"
        )
        command_words = [sys.executable, "-m", "flowpatch", *command.split()]
        ran = run(command_words, folder, memory=True)
        found[pushdown] = {
            "seconds": round(ran.seconds, 1),
            "rows_per_second": round(records / ran.seconds),
            "peak_mb": round(ran.peak_bytes / 1e6),
        }
    if plain:
        seconds = plain_loop(service, table, rows=min(records, 300_000))
        found["plain_client"] = {"rows_per_second": round(min(records, 300_000) / seconds)}
    return found


def load_records(service: Service, folder: Path, table: str, millions: float) -> int:
    """A simulated city's records, written as a raw table."""
    city = folder / table
    records = round(millions * 1e6)
    flowpatch(f"simulate --out {city} --nodes 2000 --days 7 --records {records}", folder)
    columns = "nds_id string, next_nds_id string, passts_time string, flow_label bigint"
    raw = service.client.create_table(table, (columns, "ds string"))
    written = 0
    for path in sorted((city / "records").rglob("*.parquet")):
        rows = pq.read_table(path)
        day = rows["passts_time"][0].as_py().strftime("%Y%m%d")
        with raw.open_writer(f"ds={day}", create_partition=True, arrow=True) as writer:
            for batch in rows.to_batches(max_chunksize=500_000):
                writer.write(as_raw(batch))
        written += len(rows)
    if not service.client.exist_table(META):
        nodes = pyarrow.dataset.dataset(city / "nodes.csv", format="csv").to_table()
        columns = "nds_id string, next_nds_id string, inter_id string, lat double, lng double"
        with service.client.create_table(META, columns).open_writer(arrow=True) as writer:
            names = ("nds_id", "next_nds_id", "inter_id")
            keys = {name: pc.cast(nodes[name], pa.string()) for name in names}
            writer.write(pa.table({**keys, "lat": nodes["lat"], "lng": nodes["lng"]}))
    return written


def as_raw(batch: pa.RecordBatch) -> pa.Table:
    """Records with the types of the guide's raw table."""
    return pa.table(
        {
            "nds_id": pc.cast(batch["nds_id"], pa.string()),
            "next_nds_id": pc.cast(batch["next_nds_id"], pa.string()),
            "passts_time": pc.strftime(
                pc.cast(batch["passts_time"], pa.timestamp("s")), "%Y-%m-%d %H:%M:%S"
            ),
            "flow_label": pc.cast(batch["flow_label"], pa.int64()),
        }
    )


def plain_loop(service: Service, table: str, rows: int) -> float:
    """Seconds of the client's own loop over so many records."""
    raw = service.client.get_table(table)
    started, left = time.monotonic(), rows
    for partition in raw.partitions:
        with partition.open_reader() as reader:
            for _ in reader:
                left -= 1
                if not left:
                    return time.monotonic() - started
    return time.monotonic() - started


@contextmanager
def emulator(folder: Path) -> Iterator[Service]:
    """An emulator in a process of its own, its state in a file."""
    command = [sys.executable, "-m", "maxcompute_emulator", "--port", "0", "--project", PROJECT]
    process = subprocess.Popen(  # noqa: S603
        [*command, "--database", str(folder / "state.duckdb")], stdout=subprocess.PIPE, text=True
    )
    try:
        ready = process.stdout.readline() if process.stdout else ""
        endpoint = ready.split(" at ")[1].split(" ")[0]
        yield Service(endpoint, endpoint.removesuffix("/api") + "/emulator")
    finally:
        process.terminate()
        process.wait()


def flowpatch(arguments: str, folder: Path, environment: Mapping[str, str] | None = None) -> None:
    """Runs a command as a user would."""
    subprocess.run(  # noqa: S603
        [sys.executable, "-m", "flowpatch", *arguments.split()],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        check=True,
        stdout=subprocess.DEVNULL,
    )


def timed(service: Service, arguments: str, folder: Path) -> tuple[float, dict[str, int]]:
    """Seconds of a command, and what it moved."""
    started = time.monotonic()
    moved = service.moved(lambda: flowpatch(arguments, folder))
    return round(time.monotonic() - started, 1), moved
