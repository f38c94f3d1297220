"""How samples are published and fetched. Free of engines, so that `--help` need not load them."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from flowpatch.settings import Settings

IfExists = Literal["fail", "append", "replace"]


class PublishSettings(Settings):
    """How a store version becomes a sample table."""

    if_exists: IfExists = "fail"
    """What to do where the table exists: fail, append its rows, or replace them."""
    sample_stride: Annotated[int, Field(ge=1)] = 1
    """Write every so many origins of a split, and its last."""
    encoding: Literal["zstd", "text"] = "zstd"
    """How arrays are written: zstd (compressed, base64) or text (numbers and commas)."""
    partitioned: bool = False
    """Partition the table by split."""
    lifecycle_days: Annotated[int, Field(ge=1)] | None = None
    """Days after which MaxCompute drops the table; by default it stays."""
    batch_size: Annotated[int, Field(ge=1)] = 10_000
    """Samples of one block at most; a block also stays within 64 MB."""


class FetchSettings(Settings):
    """How a sample table becomes a store."""

    max_conflict_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of the cells seen twice that may contradict each other before it is an error."""


def default_metadata_file(table: str) -> Path:
    """`metadata_TABLE.json` in the current folder."""
    return Path(f"metadata_{table}.json")
