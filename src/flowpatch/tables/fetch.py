"""A sample table -> a local store, cached under the table's identity.

    timestamps   the narrow columns of all rows: which windows there are
    covering     the few rows that hold every step (`covering.py`)
    rebuilding   their cells, read in parallel, into the series (`rebuild.py`)
    store        one commit, as if the series had been built here

A fetch that was stopped goes on where it was: rows that have come are not read again.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowpatch.errors import (
    OutOfPatienceError,
    SampleTableError,
    StoppedByUser,
    StoreExistsError,
    TableNotFoundError,
)
from flowpatch.interruption import Interruption, StopAskedError, noting_interruption
from flowpatch.maxcompute.connection import Connection
from flowpatch.maxcompute.metadata import TableInfo, describe_table
from flowpatch.maxcompute.names import TableName
from flowpatch.maxcompute.patience import Patience
from flowpatch.maxcompute.reading import Reader, RowRange
from flowpatch.places.address import is_bucket_address
from flowpatch.places.lock import writer_lock
from flowpatch.places.place import Place, place_of
from flowpatch.progress import say, track
from flowpatch.series.splits import Splits
from flowpatch.store.draft import Origin
from flowpatch.store.repository import has_version
from flowpatch.store.sample_store import SampleStore, open_store
from flowpatch.store.writer import StoreWriter
from flowpatch.tables.decoding import ARRAY_COLUMNS, DecodeRows
from flowpatch.tables.rebuild import Rebuilding
from flowpatch.tables.row_index import RowIndex, read_row_index
from flowpatch.tables.schema import COLUMNS, Metadata
from flowpatch.tables.settings import FetchSettings
from flowpatch.time_axis import TimeAxis

SETTLING_S = 2.0
"""A table written more lately than this may be written again within the same second."""
FEW_CELLS = 4_000_000
"""Not worth starting processes for."""


def fetch(
    connection: Connection,
    table: TableName,
    metadata: Metadata,
    settings: FetchSettings,
    *,
    workers: int,
    store: str | Path | None = None,
    preprocess_hint: str = "flowpatch preprocess",
) -> SampleStore:
    """The store of a sample table: from the cache where the table is as it was, else rebuilt.

    Args:
        connection: where the table is.
        table: its name.
        metadata: what its rows do not say.
        settings: how many contradictions to bear.
        workers: processes that read at once.
        store: where to put the store; by default in the cache.
        preprocess_hint: the command that would make the table, named where it is missing.

    Raises:
        TableNotFoundError: there is no such table.
        SampleTableError: its rows do not make one series.
        OutOfPatienceError: MaxCompute did not answer for too long; run again to go on.
        StoppedByUser: Ctrl-C; the next call goes on.
    """
    patience = Patience(connection.patience_s)
    try:
        info = _settled(lambda: describe_table(connection, patience, table))
    except TableNotFoundError as error:
        raise TableNotFoundError(
            f"{error}\nIf the samples were never made, make them: {preprocess_hint}"
        ) from None
    _check_columns(info)
    place = place_of(store or cached_store(connection, info, metadata))
    if has_version(place):
        _check_same(place, info)
        say(f"{table.address} is as it was: samples come from '{place}', none are read anew")
        return open_store(place)
    folder = _partial_folder(place, _key(connection, info, metadata))
    folder.mkdir(parents=True, exist_ok=True)
    with writer_lock(folder), noting_interruption() as interruption:
        fetching = _Fetching(connection, patience, info, metadata, folder, interruption, workers)
        try:
            rebuilding, axis, splits = fetching.rebuild()
        except StopAskedError:
            raise StoppedByUser(
                "Stopped. Run the command again to go on with the rows that are missing."
            ) from None
        except OutOfPatienceError as error:
            raise OutOfPatienceError(f"{error} Rows that have come are kept.") from None
        _check_overlaps(rebuilding, table, settings)
        found = _write(place, rebuilding, axis, splits, metadata, info)
        shutil.rmtree(folder, ignore_errors=True)
    return found


def _partial_folder(place: Place, key: str) -> Path:
    """Where rows that have come are kept: beside a store in a folder, else in the cache.

    Named after the table's state: cells of two states must never meet in one folder.
    """
    beside = (
        cache_folder() if is_bucket_address(place.address) else Path(place.path).absolute().parent
    )
    return beside / f".{place.name}.{key}.partial"


def _settled(describe: Callable[[], TableInfo]) -> TableInfo:
    """The table's identity, once a later write is sure to change it: times are whole seconds."""
    info = describe()
    for _ in range(3):
        written = datetime.fromisoformat(info.modified) if info.modified else None
        age_s = (datetime.now(UTC) - written).total_seconds() if written else SETTLING_S
        if not 0 <= age_s < SETTLING_S:
            break
        time.sleep(SETTLING_S - age_s)
        info = describe()
    return info


def cached_store(connection: Connection, info: TableInfo, metadata: Metadata) -> Path:
    """Where the store of a table in exactly this state is kept."""
    name = ".".join(part for part in (info.name.project, info.name.schema, info.name.table) if part)
    return cache_folder() / name / f"{_key(connection, info, metadata)}.store"


def _key(connection: Connection, info: TableInfo, metadata: Metadata) -> str:
    """A hash of everything that decides what is fetched."""
    known = [connection.endpoint, info.identity, metadata.model_dump(exclude={"endpoint"})]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


def cache_folder() -> Path:
    """`$FLOWPATCH_CACHE`, or flowpatch's folder in the user's cache."""
    if chosen := os.environ.get("FLOWPATCH_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "flowpatch" / "tables"


@dataclass
class _Fetching:
    """One table on its way into the files of a folder."""

    connection: Connection
    patience: Patience
    info: TableInfo
    metadata: Metadata
    folder: Path
    interruption: Interruption
    workers: int

    def rebuild(self) -> tuple[Rebuilding, TimeAxis, Splits]:
        """Reads the rows that are needed; returns the series, its axis and its splits."""
        index = self._index(with_nodes=self._is_cut)
        if not self._is_cut and len(np.unique(index.minutes)) < len(index):
            index = self._index(with_nodes=True)
        axis = index.axis(self.metadata)
        origins = index.origins(axis, self.metadata)
        rebuilding = Rebuilding(self.folder, axis.length, len(self.metadata.node_table))
        self._read(rebuilding, index, origins)
        if self._lacks_nodes(rebuilding, origins):
            # Rows of one origin each, but not all of them hold every node.
            index = self._index(with_nodes=True)
            self._read(rebuilding, index, origins)
        return rebuilding, axis, index.splits(origins, self.metadata)

    @property
    def _is_cut(self) -> bool:
        """Whether the metadata tells of several rows an origin."""
        rows, samples = self.metadata.rows, self.metadata.samples
        return rows is not None and samples is not None and rows != sum(samples.values())

    def _index(self, *, with_nodes: bool) -> RowIndex:
        return read_row_index(self.connection, self.patience, self.info, with_nodes=with_nodes)

    def _lacks_nodes(self, rebuilding: Rebuilding, origins: NDArray[np.int64]) -> bool:
        held = np.zeros(rebuilding.steps, dtype=np.bool_)
        for offset in range(-self.metadata.input_len, self.metadata.output_len):
            held[origins + offset] = True
        return bool((held & rebuilding.unseen()).any())

    def _read(self, rebuilding: Rebuilding, index: RowIndex, origins: NDArray[np.int64]) -> None:
        metadata, done = self.metadata, _Done(self.folder / "done.jsonl")
        wanted = list(index.covering(origins, metadata))
        missing = [row_range for row_range in wanted if row_range not in done]
        rows = sum(row_range.count for row_range in missing)
        before = sum(row_range.count for row_range in wanted) - rows
        say(
            f"{self.info.name.address}: {len(index):,} rows, of which {rows:,} are read"
            + (f" and {before:,} were read before" if before else "")
        )
        decoding = DecodeRows(metadata.input_len, metadata.output_len, rebuilding.nodes)
        cells = rows * rebuilding.nodes * (metadata.input_len + metadata.output_len)
        workers = 0 if cells < FEW_CELLS else self.workers
        with (
            track("fetch", total=rows, unit="rows") as task,
            Reader(self.connection, ARRAY_COLUMNS, decoding, workers) as reader,
        ):
            for row_range, windows in reader.read(missing):
                for origin, nodes, x, y in windows:
                    rebuilding.place(origin - metadata.input_len, nodes, x, labels=False)
                    rebuilding.place(origin, nodes, y, labels=True)
                done.add(row_range)
                task.advance(row_range.count)
                self.interruption.raise_if_asked()


class _Done:
    """The ranges whose cells are placed, remembered in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self._known = {line for line in lines if line.endswith("]")}

    def __contains__(self, row_range: RowRange) -> bool:
        return self._line(row_range) in self._known

    def add(self, row_range: RowRange) -> None:
        line = self._line(row_range)
        self._known.add(line)
        with self._path.open("a") as file:
            file.write(line + "\n")

    @staticmethod
    def _line(row_range: RowRange) -> str:
        part = row_range.part.partition
        return json.dumps([part, row_range.start, row_range.count])


def _check_same(place: Place, info: TableInfo) -> None:
    """In the cache the name tells; a place of the user's own may hold anything."""
    source = open_store(place).manifest.source
    if source != _source(info):
        raise StoreExistsError(
            f"'{place}' holds other data than {info.name.address} has now. Give another --store, "
            "or none to use the cache."
        )


def _source(info: TableInfo) -> dict[str, Any]:
    return {"kind": "sample table", **info.identity}


def _check_columns(info: TableInfo) -> None:
    missing = [name for name in COLUMNS if name.lower() not in map(str.lower, info.columns)]
    if missing:
        raise SampleTableError(
            f"{info.name.address} is no sample table: it lacks {', '.join(missing)}. Columns "
            f"there: {', '.join(info.columns)}."
        )
    types = {name: kind for name, kind in info.columns.items() if not _is_text(kind)}
    wrong = [name for name in types if name.lower() in map(str.lower, COLUMNS)]
    if wrong:
        listed = ", ".join(f"{name} {types[name]}" for name in wrong if name != "timestamp")
        if listed:
            raise SampleTableError(
                f"{info.name.address} has columns that are no text: {listed}. Write them as STRING."
            )


def _is_text(kind: str) -> bool:
    return kind == "string" or kind.startswith(("varchar", "char"))


def _check_overlaps(rebuilding: Rebuilding, table: TableName, settings: FetchSettings) -> None:
    overlaps = rebuilding.overlaps()
    if not overlaps.contradicted:
        return
    what = (
        f"{overlaps.contradicted:,} of {overlaps.twice:,} cells that two windows hold contradict "
        f"each other ({overlaps.share:.1%})"
    )
    if overlaps.share > settings.max_conflict_share:
        raise SampleTableError(
            f"{table.address}: {what}. Allowed: {settings.max_conflict_share:.1%}. The rows are of "
            "different series, or scaled; mend the table, or allow more with "
            "--max-conflict-share."
        )
    say(f"{what}; labels were taken over inputs")


def _write(
    place: Place,
    rebuilding: Rebuilding,
    axis: TimeAxis,
    splits: Splits,
    metadata: Metadata,
    info: TableInfo,
) -> SampleStore:
    nodes = metadata.node_table
    unseen = int(rebuilding.unseen()[splits.first : splits.stop].sum())
    if unseen:
        say(f"{unseen:,} of {splits.stop - splits.first:,} steps are in no row for some nodes")
    recipe = {"table": info.name.address, "metadata": metadata.model_dump(exclude={"nodes"})}
    origin = Origin(recipe, _source(info), axis.to_json(), nodes.fingerprint(), base=None)
    with (
        StoreWriter(place, axis, nodes, origin) as writer,
        writer.stretch(0, axis.length),
    ):
        for first in range(0, axis.length, writer.block_steps):
            writer.write(
                first, rebuilding.read(first, min(first + writer.block_steps, axis.length))
            )
        if not writer.quality().observed:
            raise SampleTableError(f"Every value in {info.name.address} is missing.")
        store = writer.commit(
            input_len=metadata.input_len,
            output_len=metadata.output_len,
            counts=writer.counts(),
            nodes_without_coordinates=0,
            splits=splits,
        )
    _say_content(store, metadata)
    return store


def _say_content(store: SampleStore, metadata: Metadata) -> None:
    held = (
        f"{len(store.nodes):,} nodes, {store.axis.length:,} steps, "
        f"{store.manifest.quality.coverage:.1%} of cells observed, in '{store.place}'"
    )
    if metadata.content_hash is None:
        say(held)
    elif store.manifest.content_hash == metadata.content_hash:
        say(f"{held}, equal to what was published, value for value")
    else:
        say(f"{held}; it differs from what was published: rows were changed, or are missing")
