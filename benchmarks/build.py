"""Raw records to a store: seconds beside a bare scan, peak memory, bytes on disk.

Build and scan are whole commands, each in a fresh process, and take turns. A first build that is
not timed brings the records into the page cache and is watched for its memory.
"""

import io
import shutil
import time
from datetime import datetime
from pathlib import Path

import numpy as np

from benchmarks.baselines.parse_loop import build_matrix
from benchmarks.baselines.window_text import write_windows
from benchmarks.measuring import alternate, run, run_child
from benchmarks.rows import Found, FoundRow
from benchmarks.workshop import STEP_MINUTES, City, Workshop, millions
from flowpatch.store.sample_store import open_store

FIRST_DAY = datetime(2025, 3, 3)
CSV_DAYS = 2
PARSED_ROWS = 300_000
WRITTEN_WINDOWS = 20
MEGABYTE = 1e6


def measure_parquet(workshop: Workshop) -> FoundRow:
    """Seconds and peak memory of a build from Parquet."""
    city = workshop.week()
    peak = _build(workshop, city, memory=True)
    built, scanned = alternate(
        workshop.rounds(3), lambda: _build(workshop, city), lambda: _scan(city)
    )
    note = f"{millions(city.count())} records"
    return {
        "seconds": Found(built, scanned, note),
        "memory": Found([peak], note=f"{note}; one run, the process and its workers"),
    }


def measure_csv(workshop: Workshop) -> FoundRow:
    """Seconds of a build from CSV, beside a scan and beside a loop."""
    city = workshop.city("csv", CSV_DAYS)
    built, scanned = alternate(
        workshop.rounds(3), lambda: _build(workshop, city), lambda: _scan(city)
    )
    records = city.count()
    parsed, _ = run_child("benchmarks.build:parse", folder=str(city.folder), days=city.days)
    return {
        "seconds": Found(built, scanned, f"{millions(records)} records"),
        "parse_loop": Found(
            built,
            [parsed["seconds"] * records / parsed["records"]],
            f"{millions(records)} records, {parsed['records']:,} of them parsed by the loop",
        ),
    }


def measure_disk(workshop: Workshop) -> FoundRow:
    """Bytes of the store, beside those of its records and of its windows as text."""
    city, path = workshop.week(), workshop.store()
    store = open_store(path)
    size = store.bytes_on_disk() / MEGABYTE
    windows, text_bytes = _text_of_windows(path)
    return {
        "raw": Found([size], [city.bytes / MEGABYTE]),
        "text": Found(
            [size],
            [text_bytes * windows / WRITTEN_WINDOWS / MEGABYTE],
            f"{windows:,} windows, {WRITTEN_WINDOWS} of them written",
        ),
    }


def parse(folder: str, days: int) -> dict[str, float]:
    """Seconds in which the loop parses the first records of a city."""
    city = City(Path(folder), "csv", days, 0)
    records = min(PARSED_ROWS, city.count())
    started = time.perf_counter()
    build_matrix(city.files, city.node_table, FIRST_DAY, days, STEP_MINUTES, records)
    return {"seconds": time.perf_counter() - started, "records": records}


def _build(workshop: Workshop, city: City, *, memory: bool = False) -> float:
    """Seconds of a build, or its peak memory in MB."""
    store = workshop.new("built.store")
    ran = run(city.preprocess(store), memory=memory)
    shutil.rmtree(store)
    return ran.peak_bytes / MEGABYTE if memory else ran.seconds


def _scan(city: City) -> float:
    files = [str(path) for path in city.files]
    _, ran = run_child("benchmarks.baselines.bare_scan:scan", files=files, kind=city.kind)
    return ran.seconds


def _text_of_windows(path: Path) -> tuple[int, int]:
    """How many windows a store has, and the bytes of some of them as text, evenly spread."""
    store = open_store(path)
    input_len, output_len = store.manifest.input_len, store.manifest.output_len
    first, stop = input_len, store.axis.length - output_len
    size = 0
    for origin in np.linspace(first, stop, WRITTEN_WINDOWS, dtype=np.int64):
        values = store.read(int(origin) - input_len, int(origin) + output_len)
        out = io.StringIO()
        write_windows(out, values, store.axis, [input_len], input_len, output_len)
        size += len(out.getvalue())
    return stop - first + 1, size
