"""The store behind a sample table, for every command that takes one."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowpatch.errors import needing_extra
from flowpatch.maxcompute.names import TableName
from flowpatch.maxcompute.settings import MaxComputeSettings
from flowpatch.tables.settings import FetchSettings, default_metadata_file

if TYPE_CHECKING:
    from flowpatch.store.sample_store import SampleStore

Hint = Callable[[TableName, Mapping[str, Any]], str]
"""The command that makes a sample table, from its name and the recipe of its store."""


def step_by_step(table: TableName, recipe: Mapping[str, Any]) -> str:
    """The commands of this program that make a sample table."""
    records = recipe.get("records", f"odps://{table.project}/RAW_TABLE")
    nodes = recipe.get("nodes", f"odps://{table.project}/META_TABLE")
    flags = "".join(
        f" --{name.replace('_', '-')} {recipe[name]}" for name in OF_CITY if recipe.get(name)
    )
    return (
        f"flowpatch preprocess --records {records} --nodes {nodes}{flags} --store "
        f"{table.table}.store, then flowpatch samples publish {table.table}.store {table.address}"
    )


OF_CITY = ("adcode", "start_date", "end_date")
"""Settings of a build that differ from one table of samples to the next."""


def fetch_store(
    table: TableName,
    metadata_file: Path | None,
    settings: FetchSettings,
    maxcompute: MaxComputeSettings,
    store: str | None = None,
    hint: Hint = step_by_step,
) -> "SampleStore":
    """The store of a sample table, from the cache or rebuilt.

    Endpoint and project that neither flags nor environment name are taken from the metadata.
    """
    with needing_extra("maxcompute"):
        from flowpatch.maxcompute.connection import Connection
        from flowpatch.tables.fetch import fetch
    from flowpatch.tables.schema import read_metadata

    metadata = read_metadata(metadata_file or default_metadata_file(table.table))
    if maxcompute.odps_endpoint is None and metadata.endpoint is not None:
        maxcompute = maxcompute.with_endpoint(metadata.endpoint)
    return fetch(
        Connection.of_settings(maxcompute, table.project),
        table,
        metadata,
        settings,
        workers=maxcompute.parallel,
        store=store,
        preprocess_hint=hint(table, metadata.recipe or {}),
    )
