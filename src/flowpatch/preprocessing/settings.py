"""How raw records become a sample store. Free of engines, so that `--help` need not load them."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from flowpatch.series.splits import Ratios, check_ratios
from flowpatch.settings import Date, Names, Settings
from flowpatch.sources.aggregation import Aggregate
from flowpatch.time_axis import check_step_minutes, check_time_zone


class PreprocessSettings(Settings):
    """How raw records become a sample store."""

    records: str
    """Raw records: a Parquet or CSV file, a quoted pattern, or a folder (hive partitions too)."""
    nodes: str
    """Node table with coordinates: Parquet or CSV."""
    store: Path
    """Folder of the sample store to write."""
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
    overwrite: bool = False
    """Write a new version where a store exists."""

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
    def _check_together(self) -> "PreprocessSettings":
        check_step_minutes(self.step_minutes)
        check_time_zone(self.time_zone)
        check_ratios(self.ratios)
        if self.start_date and self.end_date and self.end_date < self.start_date:
            raise ValueError(
                f"--end-date {self.end_date} lies before --start-date {self.start_date}. "
                "The end date is the last day, itself included."
            )
        return self

    def recipe(self) -> dict[str, Any]:
        """What a later build needs to do the same again: all settings but where to write."""
        return self.model_dump(mode="json", exclude={"store", "overwrite"})
