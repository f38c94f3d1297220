"""Which source of raw records the settings name."""

from pathlib import Path

from flowpatch.errors import needing_extra
from flowpatch.maxcompute.names import TableName, is_address
from flowpatch.maxcompute.settings import MaxComputeSettings
from flowpatch.places.address import is_bucket_address
from flowpatch.preprocessing.settings import PreprocessSettings
from flowpatch.sources.columns import RecordColumns
from flowpatch.sources.contract import RecordSource
from flowpatch.sources.files import FilesSource


def open_source(settings: PreprocessSettings, maxcompute: MaxComputeSettings) -> RecordSource:
    """The source of raw records that the settings name.

    Raises:
        MissingExtraError: records are in MaxCompute, whose client is not installed.
    """
    columns = RecordColumns(
        node_columns=settings.node_columns,
        time_column=settings.time_column,
        value_column=settings.value_column,
        time_format=settings.time_format,
        time_zone=settings.time_zone,
        latitude_column=settings.lat_column,
        longitude_column=settings.lng_column,
        adcode=settings.adcode,
        adcode_column=settings.adcode_column,
    )
    if not is_address(settings.records):
        return FilesSource(
            settings.records, settings.nodes, columns, scratch=folder_around(settings.store)
        )
    with needing_extra("maxcompute"):
        from flowpatch.maxcompute.connection import Connection
        from flowpatch.sources.maxcompute import MaxComputeSource
    project = TableName.of_address(settings.records).project
    return MaxComputeSource(
        settings.records,
        settings.nodes,
        columns,
        Connection.of_settings(maxcompute, project),
        aggregate=settings.aggregate,
        null_value=settings.null_value,
        start_date=settings.start_date,
        end_date=settings.end_date,
        pushdown=settings.pushdown,
        workers=settings.workers or maxcompute.parallel,
    )


def folder_around(store: str) -> Path | None:
    """The folder that is there around a store or its place to be; None for one in a bucket.

    A passing copy of records lies there: the system's folder for such may be in memory.
    """
    if is_bucket_address(store):
        return None
    return next(parent for parent in Path(store).absolute().parents if parent.is_dir())
