"""A store version -> a sample table, all of it or nothing.

    new table    rows go into a temporary table, which takes the name in the end
    in place     rows go into an upload session of the table itself, seen at its commit
    partitioned  rows go into a temporary table, and from there by one query into the partitions

Whatever fails on the way leaves the table as it was. The blocks that were written are remembered
beside the metadata file, and the same command goes on with them for a day.
"""

import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from flowpatch.errors import MaxComputeError, OutOfPatienceError, SampleTableError, StoppedByUser
from flowpatch.interruption import Interruption, StopAskedError, noting_interruption
from flowpatch.maxcompute.connection import Connection
from flowpatch.maxcompute.names import TableName
from flowpatch.maxcompute.patience import Patience
from flowpatch.maxcompute.queries import TEMPORARY_PREFIX
from flowpatch.maxcompute.sessions import SessionExpiredError
from flowpatch.maxcompute.writing import Upload
from flowpatch.places.lock import writer_lock
from flowpatch.progress import say, track
from flowpatch.store.sample_store import SampleStore
from flowpatch.tables.destination import Destination
from flowpatch.tables.publication import Publication, appended
from flowpatch.tables.schema import Metadata, make_folder_of, read_metadata, write_metadata
from flowpatch.tables.settings import PublishSettings
from flowpatch.tables.unfinished import Unfinished, was_begun


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
    publication = Publication(
        store,
        table,
        settings,
        input_len or store.manifest.input_len,
        output_len or store.manifest.output_len,
    )
    make_folder_of(metadata_file)
    with noting_interruption() as interruption, writer_lock(metadata_file):
        publishing = _Publishing(
            connection, publication, metadata_file, settings, interruption, workers
        )
        try:
            return publishing.run()
        except StopAskedError:
            raise StoppedByUser(
                f"Stopped; {table.address} is as it was. Run the command again to go on."
            ) from None
        except OutOfPatienceError as error:
            raise OutOfPatienceError(
                f"{error} {table.address} is as it was, and what was written is kept for a day."
            ) from None


def check_publishable(
    connection: Connection, table: TableName, metadata_file: Path, settings: PublishSettings
) -> None:
    """Makes sure that a table may be written, before any work is done for it.

    Raises:
        TableExistsError: it is there, and `if_exists` is fail.
        SampleTableError: it is no sample table, or partitioned otherwise.
    """
    if not was_begun(metadata_file, table):
        Destination(connection, table, settings).existing()


@dataclass
class _Publishing:
    connection: Connection
    publication: Publication
    metadata_file: Path
    settings: PublishSettings
    interruption: Interruption
    workers: int
    unfinished: Unfinished = field(init=False)
    destination: Destination = field(init=False)
    furthest: int = 0

    def __post_init__(self) -> None:
        plan = self.publication.plan(self.connection.endpoint)
        self.unfinished = Unfinished(self.metadata_file, self.publication.table, plan)
        self.destination = Destination(self.connection, self.publication.table, self.settings)

    def run(self) -> Metadata:
        metadata = self._metadata()
        if not self._is_placed():
            self._write_table()
            self.unfinished.place()
        write_metadata(self.metadata_file, metadata)
        self.unfinished.forget()
        say(
            f"{self.publication.rows:,} rows of {len(self.publication.samples):,} samples in "
            f"{self.publication.table.address}; metadata in '{self.metadata_file}'"
        )
        return metadata

    def _metadata(self) -> Metadata:
        metadata = self.publication.metadata(self.connection.project, self.connection.endpoint)
        if self.settings.if_exists != "append":
            return metadata
        if not self.metadata_file.exists():
            table = self.publication.table
            if self.unfinished.staging is None and self.destination.existing() is not None:
                raise SampleTableError(
                    f"{table.address} is there, and its metadata file '{self.metadata_file}' is "
                    "not: name it with --metadata-file, so that what is appended can be compared."
                )
            return metadata
        return appended(metadata, read_metadata(self.metadata_file))

    def _is_placed(self) -> bool:
        """Whether an earlier try got as far as putting the rows where they belong.

        It may have died before it could write that down: then its temporary table is gone, and the
        table has just the rows that it should have.
        """
        staging, table = self.unfinished.staging, self.publication.table
        if staging is None or staging == table:
            return False
        if self.unfinished.is_placed:
            return True
        if self.destination.exists(staging) or not self.destination.exists(table):
            return False
        before = self.unfinished.rows_before if self.settings.if_exists == "append" else 0
        return self.destination.rows_of(table) == before + self.publication.rows

    def _write_table(self) -> None:
        existing = self.destination.existing()
        # Overwriting is the same however often it is done; anything else goes by way of a table
        # of our own, so that no row is ever there twice.
        in_place = (
            existing is not None
            and not existing.partition_columns
            and self.settings.if_exists == "replace"
        )
        before = self.destination.rows_of(self.publication.table) if existing is not None else 0
        staging = self._upload(in_place, before)
        rows = self.publication.rows
        self.destination.check_rows(staging, rows)
        if in_place:
            return
        if existing is None:
            self.destination.take_name(staging, rows)
        elif self.settings.if_exists == "replace":
            self.destination.replace(staging, rows)
        else:
            self.destination.append(staging, rows, self.unfinished.rows_before)
        self.destination.drop_in_the_end(staging)

    def _upload(self, in_place: bool, rows_before: int) -> TableName:
        """Writes all blocks and commits them; returns the table that holds them then."""
        upload, staging = self._begin(in_place, rows_before)
        waiting = Patience(self.connection.patience_s)
        while not upload.is_committed:
            try:
                self._write(upload, waiting)
                upload.commit([block.id for block in self.publication.blocks])
                break
            except SessionExpiredError as error:
                waiting.check(f"Writing {self.publication.table.address}", error)
                upload, staging = self._begin_anew(in_place, rows_before)
        return staging

    def _begin(self, in_place: bool, rows_before: int) -> tuple[Upload, TableName]:
        """The upload session that an earlier try left, or a new one."""
        session_id, staging = self.unfinished.session_id, self.unfinished.staging
        # A table that came or went meanwhile is written in another way than before.
        same_way = (staging == self.publication.table) == in_place
        if session_id is not None and staging is not None and same_way:
            with suppress(MaxComputeError, SessionExpiredError):
                upload = Upload(self.connection, staging, session_id, overwrite=in_place)
                return upload, staging
        return self._begin_anew(in_place, rows_before)

    def _begin_anew(self, in_place: bool, rows_before: int) -> tuple[Upload, TableName]:
        table = self.publication.table
        staging = table if in_place else self.unfinished.staging
        if staging is None or (staging == table and not in_place):
            staging = table.sibling(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
        if not in_place:
            self.destination.create_staging(staging)
        upload = Upload(self.connection, staging, overwrite=in_place)
        self.unfinished.remember(upload.id, staging, rows_before)
        return upload, staging

    def _write(self, upload: Upload, waiting: Patience) -> None:
        blocks, written = self.publication.blocks, upload.written()
        missing = [block for block in blocks if block.id not in written]
        if written:
            say(f"{len(written):,} of {len(blocks):,} blocks were written before")
        samples = sum(len(block.task) for block in missing)
        workers = 0 if len(missing) <= 1 else self.workers
        with track("publish", total=samples, unit="samples") as task:
            for block in upload.write(missing, self.publication.maker, workers):
                written.add(block.id)
                if len(written) > self.furthest:
                    self.furthest = len(written)
                    waiting.moved()
                task.advance(len(block.task))
                self.interruption.raise_if_asked()
