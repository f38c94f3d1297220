"""The files of a simulated city: its node table, and one file of records a day.

Suffixes of array names: N nodes, R records of one table.
"""

import csv
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from flowpatch.sources.simulated_flow import DayRecords
from flowpatch.sources.simulated_network import Network

ROW_GROUP = 1_000_000

NODE_COLUMNS = ("nds_id", "next_nds_id", "inter_id", "lat", "lng")

PARQUET_SCHEMA = pa.schema(
    {
        "nds_id": pa.int64(),
        "next_nds_id": pa.int64(),
        "passts_time": pa.timestamp("ms"),
        "flow_label": pa.int32(),
    }
)

# Whole seconds are written as 'YYYY-MM-DD HH:MM:SS', milliseconds with a fraction.
CSV_SCHEMA = PARQUET_SCHEMA.set(2, pa.field("passts_time", pa.timestamp("s")))


def write_nodes(path: Path, network: Network) -> None:
    """Writes the node table as CSV: key, intersection, and degrees."""
    columns = (
        network.nds_id.tolist(),
        network.next_nds_id.tolist(),
        network.inter_id.tolist(),
        # Six decimals are a tenth of a metre.
        network.lat.round(6).tolist(),
        network.lng.round(6).tolist(),
    )
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(NODE_COLUMNS)
        writer.writerows(zip(*columns, strict=True))


def is_node_table(path: Path) -> bool:
    """Whether a file begins as `write_nodes` begins it."""
    heading = ",".join(NODE_COLUMNS).encode() + b"\n"
    with path.open("rb") as file:
        return file.read(len(heading)) == heading


def write_records(path: Path, records: DayRecords, network: Network, on: date) -> Iterator[int]:
    """Writes the records of the day `on`, and yields how many after each row group.

    Args:
        path: the file; `.csv` or `.parquet` says which kind it is.
        records: what to write, in this order.
        network: gives the nodes' keys.
        on: the date that the records' seconds count from.
    """
    schema = CSV_SCHEMA if path.suffix == ".csv" else PARQUET_SCHEMA
    with _open_writer(path, schema) as writer:
        for first in range(0, len(records), ROW_GROUP):
            table = _table(records, slice(first, first + ROW_GROUP), network, on, schema)
            writer.write_table(table)
            yield len(table)


def _open_writer(path: Path, schema: pa.Schema) -> pa_csv.CSVWriter | pq.ParquetWriter:
    if schema is CSV_SCHEMA:
        options = pa_csv.WriteOptions(quoting_style="none", quoting_header="none")
        return pa_csv.CSVWriter(path, schema, write_options=options)
    # All columns repeat few distinct values (a day has 86,400 seconds), so dictionaries do most of
    # the packing, and the fastest compression is enough for the rest.
    return pq.ParquetWriter(path, schema, compression="zstd", compression_level=1)


def _table(
    records: DayRecords, rows: slice, network: Network, on: date, schema: pa.Schema
) -> pa.Table:
    """Some of the records as columns; not all at once, as keys and instants take space."""
    node_R = records.node[rows]
    columns = (
        network.nds_id[node_R],
        network.next_nds_id[node_R],
        np.datetime64(on, "s") + records.second[rows],
        records.flow[rows],
    )
    arrays = [
        pa.array(column).cast(kind) for column, kind in zip(columns, schema.types, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)
