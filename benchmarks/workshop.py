"""What the rows work on: simulated cities and their stores, made once and shared by the rows."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.measuring import flowpatch, run
from benchmarks.rows import Row

Kind = Literal["parquet", "csv"]
STEP_MINUTES = 1
SEED = 1
NODES = 15_946
RECORDS_A_NODE_AND_DAY = 2060
"""1.43 a cell: 230 million records in a week of 15,946 nodes."""


@dataclass(frozen=True)
class City:
    """A simulated city on disk."""

    folder: Path
    kind: Kind
    days: int
    nodes: int

    @property
    def records(self) -> Path:
        """The folder of its records."""
        return self.folder / "records"

    @property
    def node_table(self) -> Path:
        """Its nodes, as CSV."""
        return self.folder / "nodes.csv"

    @property
    def files(self) -> list[Path]:
        """The files of its records, in order of time."""
        return sorted(self.records.rglob(f"*.{self.kind}"))

    @property
    def bytes(self) -> int:
        """Size of its records."""
        return sum(path.stat().st_size for path in self.files)

    def count(self) -> int:
        """How many records it has."""
        # Imported here: a machine that is there for its GPU may be without.
        import duckdb

        reader = "read_parquet" if self.kind == "parquet" else "read_csv"
        query = f"SELECT count(*) FROM {reader}(?)"
        found = duckdb.connect().execute(query, [[str(path) for path in self.files]]).fetchone()
        return int(found[0]) if found else 0

    def preprocess(self, store: Path) -> list[str]:
        """The command that builds its store, as words."""
        places = ("--records", self.records, "--nodes", self.node_table, "--store", store)
        return flowpatch("preprocess", *places, "--step-minutes", STEP_MINUTES)


@dataclass(frozen=True)
class Workshop:
    """A folder to work in. `quick` makes everything so small that figures mean nothing."""

    folder: Path
    quick: bool

    def city(self, kind: Kind, days: int, nodes: int = NODES) -> City:
        """A simulated city, unless it is there already; by default one of 230 million records a
        week.
        """
        nodes = min(nodes, 60) if self.quick else nodes
        days = min(days, 2) if self.quick else days
        records = nodes * days * RECORDS_A_NODE_AND_DAY
        folder = self.folder / f"city-{kind}-{nodes}-nodes-{days}-days"
        if not (folder / "nodes.csv").is_file():
            say(f"    simulating {records:,} records as {kind}")
            run(
                flowpatch(
                    *("simulate", "--out", folder, "--overwrite", "--seed", SEED, "--format", kind),
                    *("--nodes", nodes, "--days", days, "--step-minutes", STEP_MINUTES),
                    *("--records", records),
                )
            )
        return City(folder, kind, days, nodes)

    def week(self) -> City:
        """The city that the bounds speak of: seven days in Parquet."""
        return self.city("parquet", 7)

    def store(self) -> Path:
        """The store of that week."""
        city = self.week()
        path = city.folder.with_suffix(".store")
        if not path.is_dir():
            say("    building its store")
            unfinished = self.new(f"{path.name}.unfinished")
            run(city.preprocess(unfinished))
            unfinished.rename(path)
        return path

    def new(self, name: str) -> Path:
        """A path where nothing is."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        return path

    def rounds(self, wanted: int) -> int:
        """How often to measure: once when quick."""
        return 1 if self.quick else wanted

    def check_disk(self, rows: Sequence[Row]) -> None:
        """Makes sure that the rows have room.

        Raises:
            OSError: they do not.
        """
        needed = 0.2 if self.quick else sum(row.disk_gb for row in rows)
        there = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        free = shutil.disk_usage(self.folder).free / 1e9
        if free + there / 1e9 < needed:
            raise OSError(
                f"{free:.1f} GB are free in '{self.folder}', and these rows need {needed:.1f} GB. "
                "Name a folder with more room: --work FOLDER, or measure fewer rows."
            )


def say(message: str) -> None:
    """One line of progress, on standard error."""
    print(message, file=sys.stderr, flush=True)


def millions(count: int) -> str:
    """A number of records, rounded for reading."""
    return f"{count / 1e6:,.1f} M" if count >= 100_000 else f"{count:,}"
