"""A store version -> a sample table, all of it or nothing.

    new table    rows go into a temporary table, which takes the name in the end
    in place     rows go into an upload session of the table itself, seen at its commit
    partitioned  rows go into a temporary table, and from there by one query into the partitions

Whatever fails on the way leaves the table as it was. The blocks that were written are remembered
beside the metadata file, and the same command goes on with them for a day.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from flowpatch.errors import (
    MaxComputeError,
    OutOfPatienceError,
    SampleTableError,
    StoppedByUser,
    TableExistsError,
)
from flowpatch.interruption import Interruption, StopAskedError, noting_interruption
from flowpatch.maxcompute.connection import Connection
from flowpatch.maxcompute.metadata import TableInfo, describe_table, table_exists
from flowpatch.maxcompute.names import TableName, column
from flowpatch.maxcompute.patience import Patience
from flowpatch.maxcompute.queries import TEMPORARY_DAYS, TEMPORARY_PREFIX, Queries
from flowpatch.maxcompute.reading import open_part
from flowpatch.maxcompute.sessions import SessionExpiredError
from flowpatch.maxcompute.writing import BLOCKS, Block, Upload
from flowpatch.progress import say, track
from flowpatch.series.splits import SPLIT_NAMES
from flowpatch.store.sample_store import SampleStore
from flowpatch.tables.samples import RowMaker, choose_samples, node_groups
from flowpatch.tables.schema import (
    COLUMNS,
    DATA_COLUMNS,
    PARTITION_COLUMN,
    Metadata,
    read_metadata,
    write_metadata,
)
from flowpatch.tables.settings import PublishSettings

BLOCK_BYTES = 64 * 2**20
"""What MaxCompute advises for a block at least."""
HINTS = {"odps.sql.allow.fullscan": "true"}


def publish(
    connection: Connection,
    store: SampleStore,
    table: TableName,
    metadata_file: Path,
    settings: PublishSettings,
    *,
    workers: int,
    input_len: int | None = None,
    output_len: int | None = None,
) -> Metadata:
    """Writes the samples of a store version as a table, and the metadata file beside it.

    Args:
        connection: where the table goes.
        store: the version.
        table: its name.
        metadata_file: where the metadata goes, once the table is whole.
        settings: how.
        workers: processes that write at once.
        input_len: steps before the origin; by default as the store was built.
        output_len: steps from it; by default as the store was built.

    Raises:
        TableExistsError: the table is there, and `if_exists` is fail.
        SampleTableError: the table there has other columns or nodes.
        OutOfPatienceError: MaxCompute did not answer for too long; run again to go on.
        StoppedByUser: Ctrl-C; the table is as it was, and the next call goes on.
    """
    publishing = _Publishing(
        connection,
        store,
        table,
        metadata_file,
        settings,
        input_len or store.manifest.input_len,
        output_len or store.manifest.output_len,
    )
    with noting_interruption() as interruption:
        try:
            return publishing.run(interruption, workers)
        except StopAskedError:
            raise StoppedByUser(
                f"Stopped; {table.address} is as it was. Run the command again to go on."
            ) from None
        except OutOfPatienceError as error:
            raise OutOfPatienceError(
                f"{error} {table.address} is as it was, and what was written is kept for a day."
            ) from None


def existing_table(
    connection: Connection, patience: Patience, table: TableName, settings: PublishSettings
) -> TableInfo | None:
    """The table that is there, if it may be written; None where there is none.

    Raises:
        TableExistsError: it is there, and `if_exists` is fail.
        SampleTableError: it is no sample table, or partitioned otherwise.
    """
    if not table_exists(connection, patience, table):
        return None
    if settings.if_exists == "fail":
        raise TableExistsError(
            f"{table.address} is there already. Give another name, or --if-exists append or "
            "replace."
        )
    info = describe_table(connection, patience, table)
    partitioned = PARTITION_COLUMN in map(str.lower, info.partition_columns)
    expected = [*DATA_COLUMNS, PARTITION_COLUMN] if partitioned else COLUMNS
    if list(map(str.lower, info.columns)) != list(map(str.lower, expected)):
        raise SampleTableError(
            f"{table.address} has the columns {', '.join(info.columns)}, not those of a sample "
            f"table ({', '.join(COLUMNS)}). Give another name."
        )
    if partitioned != settings.partitioned:
        raise SampleTableError(
            f"{table.address} is {'' if partitioned else 'not '}partitioned by split. Give another "
            f"name, or {'add' if partitioned else 'leave out'} --partitioned."
        )
    return info


def check_publishable(
    connection: Connection, table: TableName, metadata_file: Path, settings: PublishSettings
) -> None:
    """Makes sure that a table may be written, before any work is done for it.

    Raises:
        TableExistsError: it is there, and `if_exists` is fail.
        SampleTableError: it is no sample table, or partitioned otherwise.
    """
    if not _unfinished_file(metadata_file).exists():
        existing_table(connection, Patience(connection.patience_s), table, settings)


class _Publishing:
    def __init__(
        self,
        connection: Connection,
        store: SampleStore,
        table: TableName,
        metadata_file: Path,
        settings: PublishSettings,
        input_len: int,
        output_len: int,
    ) -> None:
        self._connection, self._store, self._table = connection, store, table
        self._metadata_file, self._settings = metadata_file, settings
        self._input_len, self._output_len = input_len, output_len
        self._patience = Patience(connection.patience_s)
        self._queries = Queries(connection, self._patience)
        self._furthest = 0
        self._samples = choose_samples(store.splits, input_len, output_len, settings.sample_stride)
        steps = max(input_len, output_len)
        self._groups = node_groups(store.nodes.coordinates, steps, settings.encoding)

    def run(self, interruption: Interruption, workers: int) -> Metadata:
        blocks = self._blocks()
        unfinished = _Unfinished(self._metadata_file, self._plan(blocks))
        if not self._is_named(unfinished):
            self._write_table(blocks, unfinished, interruption, workers)
        write_metadata(self._metadata_file, self._metadata())
        unfinished.forget()
        say(
            f"{self._rows:,} rows of {len(self._samples):,} samples in {self._table.address}; "
            f"metadata in '{self._metadata_file}'"
        )
        return self._metadata()

    def _is_named(self, unfinished: "_Unfinished") -> bool:
        """Whether an earlier try got as far as giving the new table its name."""
        if unfinished.session_id is None or self._settings.if_exists != "fail":
            return False
        return (
            self._exists(self._table)
            and not self._exists(unfinished.staging(self._table))
            and self._rows_of(self._table) == self._rows
        )

    def _write_table(
        self,
        blocks: list[Block],
        unfinished: "_Unfinished",
        interruption: Interruption,
        workers: int,
    ) -> None:
        existing = existing_table(self._connection, self._patience, self._table, self._settings)
        # Overwriting is the same however often it is done; anything else goes by way of a table
        # of our own, so that no row is ever there twice.
        in_place = (
            existing is not None
            and not existing.partition_columns
            and self._settings.if_exists == "replace"
        )
        staging = self._table if in_place else unfinished.staging(self._table)
        before = self._rows_of(self._table) if existing is not None else 0
        upload = self._begin(staging, unfinished, in_place=in_place, rows_before=before)
        waiting = Patience(self._connection.patience_s)
        while not upload.is_committed:
            try:
                self._write(upload, blocks, waiting, interruption, workers)
                upload.commit([block.id for block in blocks])
                break
            except SessionExpiredError as error:
                waiting.check(f"Writing {self._table.address}", error)
                upload = self._begin_anew(
                    staging, unfinished, in_place=in_place, rows_before=before
                )
        self._check_rows(staging)
        if not in_place:
            self._move(staging, existing, unfinished)

    @property
    def _rows(self) -> int:
        return len(self._samples) * len(self._groups)

    def _metadata(self) -> Metadata:
        store, axis = self._store, self._store.axis
        samples = {name: sum(split == name for split, _ in self._samples) for name in SPLIT_NAMES}
        metadata = Metadata(
            table=self._table.address,
            project=self._connection.project,
            endpoint=self._connection.endpoint,
            encoding=self._settings.encoding,
            partitioned=self._settings.partitioned,
            input_len=self._input_len,
            output_len=self._output_len,
            sample_stride=self._settings.sample_stride,
            step_minutes=axis.step_minutes,
            time_zone=axis.time_zone,
            start=str(axis.start),
            length=axis.length,
            splits=store.splits.to_json(),
            samples=samples,
            rows=self._rows,
            mean=store.statistics.mean,
            deviation=store.statistics.deviation,
            content_hash=store.manifest.content_hash,
            store_version=store.version,
            code_version=installed_version("flowpatch"),
            recipe=store.manifest.recipe,
            nodes=store.nodes.to_json(),
        )
        return self._appended(metadata) if self._settings.if_exists == "append" else metadata

    def _appended(self, metadata: Metadata) -> Metadata:
        """Of a table that holds more than was published now: what its rows tell is left to them."""
        if not self._metadata_file.exists():
            return metadata
        before = read_metadata(self._metadata_file)
        same = ("input_len", "output_len", "step_minutes", "time_zone", "nodes")
        differing = [name for name in same if getattr(before, name) != getattr(metadata, name)]
        if differing:
            raise SampleTableError(
                f"Samples to append to {self._table.address} differ from those there in "
                f"{', '.join(differing)} ('{self._metadata_file}'). Publish them as another table."
            )
        unknown = dict.fromkeys(
            ("start", "length", "splits", "samples", "rows", "content_hash", "store_version")
        )
        return metadata.model_copy(update=unknown)

    def _blocks(self) -> list[Block]:
        """Samples in order of time, in blocks of few enough bytes; the same for the same input."""
        middle = self._samples[len(self._samples) // 2]
        bytes_each = max(1, self._maker()([middle]).nbytes)
        samples = min(self._settings.batch_size, max(1, BLOCK_BYTES // bytes_each))
        samples = max(samples, -(-len(self._samples) // BLOCKS))
        return [
            Block(number, tuple(self._samples[first : first + samples]))
            for number, first in enumerate(range(0, len(self._samples), samples))
        ]

    def _maker(self) -> RowMaker:
        return RowMaker(
            self._store.path,
            self._store.version,
            self._input_len,
            self._output_len,
            self._settings.encoding,
            self._groups,
        )

    def _plan(self, blocks: Sequence[Block]) -> str:
        """A hash of everything that decides which rows are in which block of which table."""
        content = [
            self._connection.endpoint,
            self._table.address,
            self._store.manifest.content_hash,
            self._settings.model_dump(),
            [self._input_len, self._output_len, len(blocks), len(self._groups)],
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _begin(
        self, staging: TableName, unfinished: "_Unfinished", *, in_place: bool, rows_before: int
    ) -> Upload:
        """The upload session that an earlier try left, or a new one."""
        if unfinished.session_id is not None:
            with suppress(MaxComputeError, SessionExpiredError):
                return Upload(self._connection, staging, unfinished.session_id, overwrite=in_place)
        return self._begin_anew(staging, unfinished, in_place=in_place, rows_before=rows_before)

    def _begin_anew(
        self, staging: TableName, unfinished: "_Unfinished", *, in_place: bool, rows_before: int
    ) -> Upload:
        if not in_place:
            self._create(staging)
        upload = Upload(self._connection, staging, overwrite=in_place)
        unfinished.remember(upload.id, staging, rows_before)
        return upload

    def _create(self, staging: TableName) -> None:
        what = f"Creating {self._table.address}"
        columns = ", ".join(f"{column(name)} STRING" for name in COLUMNS)
        self._queries.run(f"DROP TABLE IF EXISTS {staging.sql}", what)
        self._queries.run(
            f"CREATE TABLE IF NOT EXISTS {staging.sql} ({columns}) LIFECYCLE {TEMPORARY_DAYS}", what
        )

    def _write(
        self,
        upload: Upload,
        blocks: list[Block],
        waiting: Patience,
        interruption: Interruption,
        workers: int,
    ) -> None:
        written = upload.written()
        missing = [block for block in blocks if block.id not in written]
        if written:
            say(f"{len(written):,} of {len(blocks):,} blocks were written before")
        samples = sum(len(block.task) for block in missing)
        few = len(missing) < 2
        with track("publish", total=samples, unit="samples") as task:
            for block in upload.write(missing, self._maker(), 0 if few else workers):
                written.add(block.id)
                if len(written) > self._furthest:
                    self._furthest = len(written)
                    waiting.moved()
                task.advance(len(block.task))
                interruption.raise_if_asked()

    def _check_rows(self, table: TableName) -> None:
        found = self._rows_of(table)
        if found != self._rows:
            raise SampleTableError(
                f"{table.address} holds {found:,} rows after {self._rows:,} were written. Somebody "
                "else may have written it: run the command again with --if-exists replace."
            )

    def _rows_of(self, table: TableName) -> int:
        info = describe_table(self._connection, self._patience, table)
        specs = [part.spec for part in info.partitions] if info.partition_columns else [None]
        return sum(open_part(self._connection, self._patience, table, spec).rows for spec in specs)

    def _exists(self, table: TableName) -> bool:
        return table_exists(self._connection, self._patience, table)

    def _move(
        self, staging: TableName, existing: TableInfo | None, unfinished: "_Unfinished"
    ) -> None:
        """The rows of the temporary table to where they belong, by one statement."""
        if existing is None:
            self._name(staging)
            return
        appending = self._settings.if_exists == "append"
        if not appending or self._rows_of(self._table) == unfinished.rows_before:
            self._insert(staging, self._table, "INTO" if appending else "OVERWRITE")
        after = self._rows + (unfinished.rows_before if appending else 0)
        if (found := self._rows_of(self._table)) != after:
            raise SampleTableError(
                f"{self._table.address} holds {found:,} rows and should hold {after:,}: somebody "
                "else has written it meanwhile. Look at it before you write it again."
            )
        self._drop(staging)

    def _name(self, staging: TableName) -> None:
        if not self._settings.partitioned:
            self._rename(staging)
            return
        parted = staging.sibling(f"{staging.table}_p")
        columns = ", ".join(f"{column(name)} STRING" for name in DATA_COLUMNS)
        self._drop(parted)
        self._queries.run(
            f"CREATE TABLE IF NOT EXISTS {parted.sql} ({columns}) PARTITIONED BY "
            f"({column(PARTITION_COLUMN)} STRING) LIFECYCLE {TEMPORARY_DAYS}",
            f"Creating {self._table.address}",
        )
        self._insert(staging, parted, "OVERWRITE")
        self._check_rows(parted)
        self._rename(parted)
        self._drop(staging)

    def _insert(self, staging: TableName, target: TableName, verb: str) -> None:
        names: tuple[str, ...] = COLUMNS
        place = target.sql
        if self._settings.partitioned:
            names = (*DATA_COLUMNS, PARTITION_COLUMN)
            place = f"{target.sql} PARTITION ({column(PARTITION_COLUMN)})"
        self._queries.run(
            f"INSERT {verb} TABLE {place} SELECT {', '.join(map(column, names))} "
            f"FROM {staging.sql}",
            f"Writing {self._table.address}",
            HINTS,
        )

    def _rename(self, staging: TableName) -> None:
        """Lifetime first: under its final name the table must not expire."""
        what = f"Naming {self._table.address}"
        days = self._settings.lifecycle_days
        life = f"SET LIFECYCLE {days}" if days else "DISABLE LIFECYCLE"
        self._queries.run(f"ALTER TABLE {staging.sql} {life}", what)
        self._queries.run(f"ALTER TABLE {staging.sql} RENAME TO {column(self._table.table)}", what)

    def _drop(self, table: TableName) -> None:
        self._queries.run(f"DROP TABLE IF EXISTS {table.sql}", f"Dropping {table.address}")


class _Unfinished:
    """What an earlier try left, in a file beside the metadata file."""

    def __init__(self, metadata_file: Path, plan: str) -> None:
        self._path = _unfinished_file(metadata_file)
        self._plan = plan
        self._found: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            found = json.loads(self._path.read_text())
            if isinstance(found, dict) and found.get("plan") == plan:
                self._found = found

    @property
    def session_id(self) -> str | None:
        """The upload session of the earlier try with the same plan."""
        return self._found.get("session")

    def staging(self, table: TableName) -> TableName:
        """The temporary table of this plan: the same for every try."""
        return table.sibling(f"{TEMPORARY_PREFIX}{self._plan[:24]}")

    @property
    def rows_before(self) -> int:
        """Rows that the table had before anything was written."""
        return int(self._found.get("rows_before", 0))

    def remember(self, session_id: str, staging: TableName, rows_before: int) -> None:
        """Writes down what the next try needs."""
        self._found = {
            "plan": self._plan,
            "session": session_id,
            "staging": staging.address,
            "rows_before": rows_before,
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._found))

    def forget(self) -> None:
        """Nothing is unfinished any more."""
        self._path.unlink(missing_ok=True)


def _unfinished_file(metadata_file: Path) -> Path:
    return metadata_file.with_name(f".{metadata_file.name}.unfinished")
