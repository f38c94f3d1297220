"""How raw records become a sample store. Free of engines, so that `--help` need not load them."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from flowpatch.maxcompute.names import TableName, check_code, column, is_address
from flowpatch.maxcompute.settings import MOST_WORKERS, Pushdown
from flowpatch.places.address import StoreAddress
from flowpatch.series.splits import Ratios, check_ratios
from flowpatch.settings import Date, Names, Settings
from flowpatch.sources.aggregation import Aggregate
from flowpatch.time_axis import check_step_minutes, check_time_zone

SplitPolicy = Literal["ratio", "fixed"]
NodePolicy = Literal["keep", "extend"]


_NOT_IN_RECIPE = {"store", "overwrite", "resume", "dask", "workers"}
_SCHEMES = ("tcp", "tls", "ws", "wss")
"""Of Dask's addresses."""


def check_scheduler(address: str) -> str:
    """The address itself, if a Dask scheduler can be there.

    Raises:
        ValueError: it cannot.
    """
    with suppress(ValueError):  # A port that is no number.
        parts = urlsplit(address)
        if parts.scheme in _SCHEMES and parts.hostname and parts.port:
            return address
    raise ValueError(
        f"--dask '{address}' is no address of a Dask scheduler. Give one such as "
        f"tcp://scheduler:8786; allowed schemes: {', '.join(_SCHEMES)}."
    )


class Places(Settings):
    """Where raw records come from and where the store goes."""

    records: str
    """Raw records: a Parquet or CSV file, a quoted pattern, a folder (hive partitions too), or
    odps://PROJECT/TABLE."""
    nodes: str
    """Node table with coordinates: Parquet, CSV, or odps://PROJECT/TABLE."""
    store: StoreAddress
    """The sample store to write: a folder, or s3://BUCKET/PATH."""


class BuildSettings(Settings):
    """How raw records become a series, wherever they lie and wherever it goes."""

    node_columns: Names = ("nds_id", "next_nds_id")
    """Columns that make up a node's key, in records and node table, separated by commas."""
    time_column: str = "passts_time"
    """Column of the instant, local wall-clock time."""
    value_column: str = "flow_label"
    """Column of the value."""
    lat_column: str | None = None
    """Column of the latitude; by default lat or latitude."""
    lng_column: str | None = None
    """Column of the longitude; by default lng, lon, long or longitude."""
    time_format: str | None = None
    """How text instants are written, such as %Y%m%d%H%M, or unix_s, unix_ms for numbers."""
    time_zone: str = "UTC"
    """Zone of the wall-clock time, such as Asia/Shanghai."""
    step_minutes: int = 5
    """Length of a step in minutes; divides a day."""
    start_date: Date | None = None
    """First day, such as 20250919; by default that of the first record."""
    end_date: Date | None = None
    """Last day, itself included; by default that of the last record."""
    adcode: str | None = None
    """Keep only records and nodes of this city code."""
    adcode_column: str = "adcode"
    """Column of the city code."""
    aggregate: Aggregate = "mean"
    """How several records in one step and node become one value."""
    null_value: float | None = None
    """A value that means missing, such as 0 for LargeST."""
    max_dropped_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of unusable records above which the build fails."""
    input_len: Annotated[int, Field(ge=1)] = 12
    """Steps of a window before its origin; training may choose another."""
    output_len: Annotated[int, Field(ge=1)] = 12
    """Steps of a window from its origin; training may choose another."""
    train_ratio: float = 0.6
    """Share of the period for training."""
    val_ratio: float = 0.2
    """Share of the period for validation."""
    test_ratio: float = 0.2
    """Share of the period for the test."""
    split_policy: SplitPolicy = "ratio"
    """What an update does to the splits: cut the whole period by ratio again, or leave the borders
    fixed, so that new days are in the test."""
    val_start: Date | None = None
    """First day of validation, in place of the ratios; with test_start."""
    test_start: Date | None = None
    """First day of the test, in place of the ratios; with val_start."""
    pushdown: Pushdown = "auto"
    """How records in MaxCompute are read: aggregated there by sql, row by row through the tunnel,
    or the cheaper of both."""

    @property
    def ratios(self) -> Ratios:
        """The ratios of train, val and test."""
        return self.train_ratio, self.val_ratio, self.test_ratio

    @field_validator("node_columns")
    @classmethod
    def _check_node_columns(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names or len(set(names)) != len(names):
            raise ValueError(
                f"--node-columns '{','.join(names)}' must name one or more different columns, "
                "such as nds_id,next_nds_id."
            )
        return names

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        check_step_minutes(self.step_minutes)
        check_time_zone(self.time_zone)
        check_ratios(self.ratios)
        if (self.val_start is None) != (self.test_start is None):
            raise ValueError("--val-start and --test-start go together: give both, or neither.")
        if self.val_start and self.test_start and self.test_start <= self.val_start:
            raise ValueError(
                f"--test-start {self.test_start} must lie after --val-start {self.val_start}."
            )
        if self.start_date and self.end_date and self.end_date < self.start_date:
            raise ValueError(
                f"--end-date {self.end_date} lies before --start-date {self.start_date}. "
                "The end date is the last day, itself included."
            )
        return self


class PreprocessSettings(BuildSettings, Places):
    """How raw records become a sample store."""

    overwrite: bool = False
    """Write a new version where a store exists."""
    resume: bool = False
    """Go on with a build that was stopped; give the same settings."""
    dask: str | None = None
    """Build on the workers of a Dask scheduler, such as tcp://scheduler:8786."""
    workers: Annotated[int | None, Field(ge=1, le=MOST_WORKERS)] = None
    """Build on so many processes of this machine, by default one. From MaxCompute, so many read the
    tunnel, 10 MB/s each; by default twice the cores, 8 at most."""

    @field_validator("dask")
    @classmethod
    def _check_dask(cls, address: str | None) -> str | None:
        return None if address is None else check_scheduler(address)

    @model_validator(mode="after")
    def _check_places(self) -> Self:
        if self.dask is not None and self.workers is not None:
            raise ValueError(
                f"--dask {self.dask} and --workers {self.workers} exclude each other: the first "
                "names workers that run already, the second starts some on this machine."
            )
        if self.dask is not None and is_address(self.records):
            raise ValueError(
                f"--dask builds from files, and --records '{self.records}' is in MaxCompute. Leave "
                "it out: records are aggregated there (--pushdown sql), or read through the tunnel "
                "by --workers processes."
            )
        if is_address(self.nodes) and not is_address(self.records):
            raise ValueError(
                f"--nodes '{self.nodes}' is in MaxCompute and --records '{self.records}' is not. "
                "Nodes in a file go with records anywhere; nodes there with records there."
            )
        if not is_address(self.records):
            return self
        if self.adcode is not None:
            check_code(self.adcode, "--adcode")
        for name in (*self.node_columns, self.time_column, self.value_column, self.adcode_column):
            column(name)
        for address in (self.records, self.nodes):
            if is_address(address):
                TableName.of_address(address)
        return self

    @property
    def on_cluster(self) -> bool:
        """Whether days are built by the workers of a Dask cluster."""
        several = self.workers is not None and self.workers > 1 and not is_address(self.records)
        return self.dask is not None or several

    def recipe(self) -> dict[str, Any]:
        """What a later build needs to do the same again: all settings but where to write, and by
        how many processes.
        """
        recipe = self.model_dump(mode="json", exclude=_NOT_IN_RECIPE)
        for name in ("records", "nodes"):
            if not is_address(recipe[name]):
                # A later update may run in another folder.
                recipe[name] = str(Path(recipe[name]).expanduser().absolute())
        return recipe


class UpdateSettings(Settings):
    """How a store is brought up to date."""

    until: Date | None = None
    """Last day, itself included; by default that of the last record."""
    revise: Annotated[int, Field(ge=0)] = 0
    """Read the last DAYS days again as well, whatever the source says of when it changed."""
    nodes: NodePolicy = "keep"
    """Nodes that are new in the node table are left out (keep), or taken (extend)."""
    keep_days: Annotated[int, Field(ge=1)] | None = None
    """Days that the store holds at most: the oldest are dropped."""
    resume: bool = False
    """Go on with an update that was stopped; give the same settings."""
