"""The store behind a sample table, for every command that takes one."""

from pathlib import Path
from typing import TYPE_CHECKING

from flowpatch.errors import needing_extra
from flowpatch.maxcompute.names import TableName
from flowpatch.maxcompute.settings import MaxComputeSettings
from flowpatch.tables.settings import FetchSettings, default_metadata_file

if TYPE_CHECKING:
    from flowpatch.store.sample_store import SampleStore

HINT = (
    "flowpatch preprocess --records odps://{project}/RAW_TABLE --nodes odps://{project}/META_TABLE "
    "--store {table}.store, then flowpatch samples publish {table}.store {address}"
)


def fetch_store(
    table: TableName,
    metadata_file: Path | None,
    settings: FetchSettings,
    maxcompute: MaxComputeSettings,
    store: Path | None = None,
    hint: str = HINT,
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
        preprocess_hint=hint.format(
            project=table.project, table=table.table, address=table.address
        ),
    )
