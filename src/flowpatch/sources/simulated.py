"""A city of any size, written as raw records, for trying things and for benchmarks.

    out/
    ├── nodes.csv                       nds_id, next_nds_id, inter_id, lat, lng
    └── records/
        ├── ds=20250303/part-0.parquet  nds_id, next_nds_id, passts_time, flow_label
        └── ds=20250304/part-0.parquet

This file holds the settings and sees to it that a city appears whole or not at all. The roads are
made in `simulated_network.py`, the traffic in `simulated_flow.py`, the files in
`simulated_files.py`. Instants are local wall-clock time in whole seconds, and every day
has 24 hours: the simulated clock is never put forward or back.
"""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from flowpatch.errors import OutputError
from flowpatch.progress import track
from flowpatch.settings import Date, Settings
from flowpatch.sources.simulated_files import is_node_table, write_nodes, write_records
from flowpatch.sources.simulated_flow import Traffic, generator
from flowpatch.sources.simulated_network import build_network
from flowpatch.time_axis import MINUTES_A_DAY, check_step_minutes


class SimulateSettings(Settings):
    """What city to simulate, and where to write it."""

    out: Path
    """Folder to write the city to."""
    nodes: Annotated[int, Field(ge=2)] = 2000
    """How many nodes (turning flows) the city has."""
    days: Annotated[int, Field(ge=1)] = 7
    """How many days to simulate."""
    step_minutes: Annotated[int, Field(ge=1)] = 1
    """Length of a step in minutes; it must divide a day."""
    records: Annotated[int, Field(ge=1)] | None = None
    """About how many records to write in total; default: one in each observed cell."""
    missing: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the cells (step, node) without any record."""
    start_date: Date = date(2025, 3, 3)
    """The first day."""
    seed: Annotated[int, Field(ge=0)] = 1
    """Another seed gives another city; the same gives the same bytes."""
    shuffle: bool = True
    """Shuffle the records inside a day, as exports of big tables come."""
    format: Literal["parquet", "csv"] = "parquet"
    """Kind of the record files."""
    overwrite: bool = False
    """Replace a simulated city that is already in the folder."""

    @field_validator("step_minutes")
    @classmethod
    def _divides_a_day(cls, step_minutes: int) -> int:
        return check_step_minutes(step_minutes)

    @model_validator(mode="after")
    def _days_exist(self) -> "SimulateSettings":
        if self.days - 1 > (date.max - self.start_date).days:
            raise ValueError(
                f"Bad value '{self.days}' for days: the last day from start_date "
                f"{self.start_date} on is {date.max}. Choose fewer days."
            )
        return self

    @model_validator(mode="after")
    def _records_fit(self) -> "SimulateSettings":
        # Two records of a cell differ in their instant, and instants are whole seconds.
        most = self.observed_cells * 60 * self.step_minutes
        if self.records is not None and self.records > most:
            raise ValueError(
                f"Bad value '{self.records}' for records: {self.nodes} nodes and {self.days} days "
                f"hold at most {most}, one in a second. Choose fewer records or a larger city."
            )
        return self

    @property
    def observed_cells(self) -> int:
        """About how many cells have a record, when the records are not thinned."""
        cells = self.nodes * self.days * (MINUTES_A_DAY // self.step_minutes)
        return round(cells * (1 - self.missing))

    def records_of_day(self, day: int) -> int | None:
        """The day's part of `records`; the parts add up to the whole."""
        if self.records is None:
            return None
        return self.records * (day + 1) // self.days - self.records * day // self.days


@dataclass(frozen=True)
class SimulatedCity:
    """A city on disk.

    Attributes:
        nodes_path: the node table, a CSV file.
        records_path: the folder of the records, hive-partitioned by day.
        nodes: how many nodes it has.
        records: how many records were written.
        bytes: the size of all files together.
    """

    nodes_path: Path
    records_path: Path
    nodes: int
    records: int
    bytes: int


def simulate(settings: SimulateSettings) -> SimulatedCity:
    """Writes a city; the folder appears when it is whole, or not at all.

    Raises:
        OutputError: `out` is taken, or the file system refused a write.
    """
    out = settings.out
    try:
        _check_free(out, settings.overwrite)
        with _whole_or_nothing(out.resolve()) as folder:
            records = _write_city(folder, settings)
            # Again, as minutes may have passed in which somebody else used the folder.
            _check_free(out, settings.overwrite)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"Cannot write the simulated city '{out}': {error}. No part of it was kept. "
            f"Free some space there, or choose another folder with --out."
        ) from error
    return SimulatedCity(
        nodes_path=out / "nodes.csv",
        records_path=out / "records",
        nodes=settings.nodes,
        records=records,
        bytes=sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
    )


def _check_free(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not _is_city(out):
        raise OutputError(
            f"'{out}' holds something else than a simulated city, and is left as it is. "
            f"Choose another folder with --out; --overwrite replaces only simulated cities."
        )
    if not overwrite:
        raise OutputError(
            f"'{out}' already holds a simulated city. "
            f"Replace it with --overwrite, or choose another folder with --out."
        )


def _is_city(folder: Path) -> bool:
    """Whether nothing but a simulated city is in this folder.

    Real data may be laid out alike, so every name counts, and the heading of the node table.
    """
    if not folder.is_dir() or {path.name for path in folder.iterdir()} != {"nodes.csv", "records"}:
        return False
    days = list((folder / "records").glob("*"))
    if not all(day.name.startswith("ds=") and day.is_dir() for day in days):
        return False
    parts = {path.name for day in days for path in day.iterdir()}
    return parts <= {"part-0.parquet", "part-0.csv"} and is_node_table(folder / "nodes.csv")


@contextmanager
def _whole_or_nothing(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out` that takes its place at the end, or vanishes on an error."""
    mark = uuid.uuid4().hex[:8]
    written, aside = (out.with_name(f".{out.name}.{mark}.{end}") for end in ("new", "old"))
    written.mkdir(parents=True)
    try:
        yield written
        if out.exists():
            out.rename(aside)
        try:
            written.rename(out)
        except BaseException:
            if aside.exists() and not out.exists():
                aside.rename(out)
            raise
    finally:
        shutil.rmtree(written, ignore_errors=True)
    if aside.exists():
        _delete_replaced(aside)


def _delete_replaced(aside: Path) -> None:
    try:
        shutil.rmtree(aside)
    except OSError as error:
        raise OutputError(
            f"The new city is in place, but the replaced one could not be deleted: {error}. "
            f"Delete '{aside}' by hand."
        ) from error


def _write_city(folder: Path, settings: SimulateSettings) -> int:
    """Writes all files of a city, and returns how many records they hold."""
    network = build_network(settings.nodes, generator(settings.seed, "network"))
    write_nodes(folder / "nodes.csv", network)
    traffic = Traffic(network, settings.seed, settings.step_minutes)
    written = 0
    with track("Simulating", settings.records or settings.observed_cells, "records") as task:
        for day in range(settings.days):
            on = settings.start_date + timedelta(days=day)
            target = settings.records_of_day(day)
            records = traffic.day_records(day, on, settings.missing, target)
            if settings.shuffle:
                records = records.shuffled(generator(settings.seed, "order", day))
            partition = folder / "records" / f"ds={on.isoformat().replace('-', '')}"
            partition.mkdir(parents=True)
            path = partition / f"part-0.{settings.format}"
            for count in write_records(path, records, network, on):
                task.advance(count)
                written += count
    return written
