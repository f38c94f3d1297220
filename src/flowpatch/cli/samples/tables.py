"""`flowpatch samples publish | fetch`: sample tables in MaxCompute."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flowpatch.cli.groups import MAXCOMPUTE
from flowpatch.errors import needing_extra
from flowpatch.maxcompute.names import TableName
from flowpatch.maxcompute.settings import MaxComputeSettings
from flowpatch.tables.settings import FetchSettings, PublishSettings, default_metadata_file

_DEFAULT_MAXCOMPUTE = MaxComputeSettings()
_DEFAULT_PUBLISH = PublishSettings()
_DEFAULT_FETCH = FetchSettings()


def publish(
    store: str,
    table: str,
    *,
    metadata_file: Path | None = None,
    store_version: str | None = None,
    input_len: int | None = None,
    output_len: int | None = None,
    settings: Annotated[PublishSettings, Parameter(name="*")] = _DEFAULT_PUBLISH,
    maxcompute: Annotated[MaxComputeSettings, MAXCOMPUTE] = _DEFAULT_MAXCOMPUTE,
) -> None:
    """Write the samples of a store version as a table in MaxCompute.

    Parameters
    ----------
    store
        The sample store: a folder, or s3://BUCKET/PATH.
    table
        Where the samples go: odps://PROJECT/TABLE.
    metadata_file
        Where the metadata goes; by default metadata_TABLE.json in this folder.
    store_version
        Version of the store; by default the newest.
    input_len
        Steps of a window before its origin; by default as the store was built.
    output_len
        Steps of a window from its origin; by default as the store was built.
    """
    name = TableName.of_address(table)
    # Imported here: --help must not wait for the engines.
    with needing_extra("maxcompute"):
        from flowpatch.maxcompute.connection import Connection
        from flowpatch.tables.publish import publish
    from flowpatch.store.sample_store import open_store

    metadata_file = metadata_file or default_metadata_file(name.table)
    publish(
        Connection.of_settings(maxcompute, name.project),
        open_store(store, store_version),
        name,
        metadata_file,
        settings,
        workers=maxcompute.parallel,
        input_len=input_len,
        output_len=output_len,
    )
    print(metadata_file)


def fetch(
    table: str,
    *,
    metadata_file: Path | None = None,
    store: str | None = None,
    settings: Annotated[FetchSettings, Parameter(name="*")] = _DEFAULT_FETCH,
    maxcompute: Annotated[MaxComputeSettings, MAXCOMPUTE] = _DEFAULT_MAXCOMPUTE,
) -> None:
    """Rebuild a sample store from a table in MaxCompute.

    Parameters
    ----------
    table
        The sample table: odps://PROJECT/TABLE.
    metadata_file
        The table's metadata; by default metadata_TABLE.json in this folder.
    store
        Where the store goes: a folder, or s3://BUCKET/PATH; by default in the cache, from which
        training takes it too.
    """
    # Imported here: --help must not wait for the engines.
    from flowpatch.cli.sample_tables import fetch_store

    print(fetch_store(TableName.of_address(table), metadata_file, settings, maxcompute, store).path)
