"""The sample table that is written: what is there, and how rows become it by one statement."""

from contextlib import suppress

from flowpatch.errors import MaxComputeError, SampleTableError, TableExistsError
from flowpatch.maxcompute.connection import Connection
from flowpatch.maxcompute.metadata import TableInfo, describe_table, table_exists
from flowpatch.maxcompute.names import TableName, column
from flowpatch.maxcompute.patience import Patience
from flowpatch.maxcompute.queries import TEMPORARY_DAYS, Queries
from flowpatch.maxcompute.reading import open_parts
from flowpatch.tables.schema import COLUMNS, DATA_COLUMNS, PARTITION_COLUMN
from flowpatch.tables.settings import PublishSettings

HINTS = {"odps.sql.allow.fullscan": "true"}


class Destination:
    """A sample table in MaxCompute, there or to be."""

    def __init__(self, connection: Connection, table: TableName, settings: PublishSettings) -> None:
        self.table = table
        self._connection, self._settings = connection, settings
        self._patience = Patience(connection.patience_s)
        self._queries = Queries(connection, self._patience)

    def existing(self) -> TableInfo | None:
        """The table that is there, if it may be written; None where there is none.

        Raises:
            TableExistsError: it is there, and `if_exists` is fail.
            SampleTableError: it is no sample table, or partitioned otherwise.
        """
        if not self.exists(self.table):
            return None
        if self._settings.if_exists == "fail":
            raise TableExistsError(
                f"{self.table.address} is there already. Give another name, or --if-exists append "
                "or replace."
            )
        info = describe_table(self._connection, self._patience, self.table)
        partitioned = PARTITION_COLUMN in map(str.lower, info.partition_columns)
        expected = [*DATA_COLUMNS, PARTITION_COLUMN] if partitioned else COLUMNS
        if list(map(str.lower, info.columns)) != list(map(str.lower, expected)):
            raise SampleTableError(
                f"{self.table.address} has the columns {', '.join(info.columns)}, not those of a "
                f"sample table ({', '.join(COLUMNS)}). Give another name."
            )
        if partitioned != self._settings.partitioned:
            raise SampleTableError(
                f"{self.table.address} is {'' if partitioned else 'not '}partitioned by split. "
                f"Give another name, or {'add' if partitioned else 'leave out'} --partitioned."
            )
        return info

    def exists(self, table: TableName) -> bool:
        """Whether there is such a table."""
        return table_exists(self._connection, self._patience, table)

    def rows_of(self, table: TableName) -> int:
        """How many rows a table has, in all of its partitions."""
        info = describe_table(self._connection, self._patience, table)
        return sum(part.rows for part in open_parts(self._connection, self._patience, info))

    def check_rows(self, table: TableName, expected: int) -> None:
        """Makes sure that a table has as many rows as were written.

        Raises:
            SampleTableError: it has not.
        """
        if (found := self.rows_of(table)) != expected:
            raise SampleTableError(
                f"{table.address} holds {found:,} rows and should hold {expected:,}: somebody else "
                "has written it meanwhile. Look at it before you write it again."
            )

    def create_staging(self, staging: TableName) -> None:
        """An empty temporary table of all columns, whatever was there."""
        self.drop(staging)
        self._create(staging, COLUMNS, "")

    def take_name(self, staging: TableName, rows: int) -> None:
        """The temporary table becomes the sample table."""
        if not self._settings.partitioned:
            self._rename(staging)
            return
        parted = staging.sibling(f"{staging.table}_p")
        self.drop(parted)
        self._create(parted, DATA_COLUMNS, f"PARTITIONED BY ({column(PARTITION_COLUMN)} STRING) ")
        self._insert(staging, parted, "OVERWRITE")
        self.check_rows(parted, rows)
        self._rename(parted)

    def replace(self, staging: TableName, rows: int) -> None:
        """The temporary table's rows take the place of those there."""
        self._insert(staging, self.table, "OVERWRITE")
        self.check_rows(self.table, rows)

    def append(self, staging: TableName, rows: int, rows_before: int) -> None:
        """The temporary table's rows join those there, unless they have done so already."""
        if self.rows_of(self.table) == rows_before:
            self._insert(staging, self.table, "INTO")
        self.check_rows(self.table, rows_before + rows)

    def drop(self, table: TableName) -> None:
        """Drops a table, if it is there."""
        self._queries.run(f"DROP TABLE IF EXISTS {table.sql}", f"Dropping {table.address}")

    def drop_in_the_end(self, table: TableName) -> None:
        """Drops a temporary table; what cannot be dropped expires."""
        with suppress(MaxComputeError):
            self.drop(table)

    def _create(self, table: TableName, names: tuple[str, ...], partitions: str) -> None:
        columns = ", ".join(f"{column(name)} STRING" for name in names)
        self._queries.run(
            f"CREATE TABLE IF NOT EXISTS {table.sql} ({columns}) {partitions}"
            f"LIFECYCLE {TEMPORARY_DAYS}",
            f"Creating {self.table.address}",
        )

    def _insert(self, staging: TableName, target: TableName, verb: str) -> None:
        names: tuple[str, ...] = COLUMNS
        place = target.sql
        if self._settings.partitioned:
            names = (*DATA_COLUMNS, PARTITION_COLUMN)
            place = f"{target.sql} PARTITION ({column(PARTITION_COLUMN)})"
        self._queries.run(
            f"INSERT {verb} TABLE {place} SELECT {', '.join(map(column, names))} "
            f"FROM {staging.sql}",
            f"Writing {self.table.address}",
            HINTS,
        )

    def _rename(self, staging: TableName) -> None:
        """Lifetime first: under its final name the table must not expire.

        A table that cannot take the name gets its day back, so that nothing is left behind.
        """
        what = f"Naming {self.table.address}"
        days = self._settings.lifecycle_days
        life = f"SET LIFECYCLE {days}" if days else "DISABLE LIFECYCLE"
        self._queries.run(f"ALTER TABLE {staging.sql} {life}", what)
        try:
            self._queries.run(
                f"ALTER TABLE {staging.sql} RENAME TO {column(self.table.table)}", what
            )
        except MaxComputeError as error:
            with suppress(MaxComputeError):
                self._queries.run(f"ALTER TABLE {staging.sql} ENABLE LIFECYCLE", what)
                self._queries.run(f"ALTER TABLE {staging.sql} SET LIFECYCLE {TEMPORARY_DAYS}", what)
            if self.exists(self.table):
                raise TableExistsError(
                    f"Somebody else made {self.table.address} meanwhile; nothing of it was "
                    "touched. Give another name, or --if-exists append or replace."
                ) from None
            raise error
