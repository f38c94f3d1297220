"""The two scripts of the original guide, as commands: raw table -> sample table -> training."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from flowpatch.cli.groups import MAXCOMPUTE
from flowpatch.cli.sample_tables import OF_CITY, fetch_store
from flowpatch.cli.train import RunFolderPath, fetch_once, train_store
from flowpatch.errors import needing_extra
from flowpatch.maxcompute.names import TableName, is_address
from flowpatch.maxcompute.settings import MaxComputeSettings
from flowpatch.model.settings import ModelSettings
from flowpatch.preprocessing.settings import BuildSettings, PreprocessSettings
from flowpatch.tables.settings import FetchSettings, PublishSettings, default_metadata_file
from flowpatch.training.settings import TrainSettings

if TYPE_CHECKING:
    from flowpatch.tables.schema import Metadata


class GuideSettings(BuildSettings):
    """How the guide's raw records become a series."""

    time_zone: str = "Asia/Shanghai"
    """Zone of the wall-clock time."""


_DEFAULT_BUILD = GuideSettings()
_DEFAULT_PUBLISH = PublishSettings()
_DEFAULT_FETCH = FetchSettings()
_DEFAULT_MAXCOMPUTE = MaxComputeSettings()
_DEFAULT_MODEL = ModelSettings()
_DEFAULT_TRAINING = TrainSettings()


def preprocess_app() -> App:
    """The command of `preprocess_to_samples.py`."""
    return _app("preprocess_to_samples.py", preprocess_to_samples)


def train_app() -> App:
    """The command of `train_from_samples.py`."""
    return _app("train_from_samples.py", train_from_samples)


def preprocess_to_samples(
    *,
    odps_table: str,
    odps_meta_table: str,
    output_table: str,
    metadata_file: Path | None = None,
    store: str | None = None,
    build: Annotated[GuideSettings, Parameter(name="*")] = _DEFAULT_BUILD,
    publishing: Annotated[PublishSettings, Parameter(name="*")] = _DEFAULT_PUBLISH,
    maxcompute: Annotated[MaxComputeSettings, MAXCOMPUTE] = _DEFAULT_MAXCOMPUTE,
) -> None:
    """Raw records in MaxCompute to a table of samples, by way of a sample store.

    Parameters
    ----------
    odps_table
        Table of raw records.
    odps_meta_table
        Table of nodes, with latitude and longitude.
    output_table
        Table of samples to write.
    metadata_file
        Where the metadata goes; by default metadata_OUTPUT_TABLE.json in this folder.
    store
        The sample store, a folder or s3://BUCKET/PATH; by default OUTPUT_TABLE.store in this
        folder. It trains too.
    """
    project = maxcompute.project()
    table = TableName.of_text(output_table, project)
    settings = PreprocessSettings(
        **build.model_dump(),
        records=TableName.of_text(odps_table, project).address,
        nodes=TableName.of_text(odps_meta_table, project).address,
        store=store or f"{table.table}.store",
        overwrite=True,
    )
    # Imported here: --help must not wait for the engines.
    with needing_extra("maxcompute"):
        from flowpatch.maxcompute.connection import Connection
        from flowpatch.tables.publish import check_publishable, publish
    from flowpatch.preprocessing.build import preprocess

    connection = Connection.of_settings(maxcompute, project)
    metadata_file = metadata_file or default_metadata_file(table.table)
    # Before an hour's work, not after it.
    check_publishable(connection, table, metadata_file, publishing)
    built = preprocess(settings, maxcompute, keep_if_same=True)
    publish(connection, built, table, metadata_file, publishing, workers=maxcompute.parallel)
    print(metadata_file)


def train_from_samples(
    *,
    sample_table: str,
    metadata_file: Path | None = None,
    cuda: int | None = None,
    run: RunFolderPath = None,
    model: Annotated[ModelSettings, Parameter(name="*")] = _DEFAULT_MODEL,
    training: Annotated[TrainSettings, Parameter(name="*")] = _DEFAULT_TRAINING,
    fetching: Annotated[FetchSettings, MAXCOMPUTE] = _DEFAULT_FETCH,
    maxcompute: Annotated[MaxComputeSettings, MAXCOMPUTE] = _DEFAULT_MAXCOMPUTE,
) -> None:
    """Train PatchSTG from a table of samples. Read once, they are kept in a local cache.

    Parameters
    ----------
    sample_table
        Table of samples.
    metadata_file
        Its metadata; by default metadata_SAMPLE_TABLE.json in this folder.
    cuda
        Number of the GPU to train on; without any GPU the CPU serves. By default the first GPU.
    run
        Folder of the run; by default runs/SAMPLE_TABLE-TIME.
    """
    from flowpatch.tables.schema import read_metadata

    bare = TableName.of_text(sample_table, "project").table
    metadata_file = metadata_file or default_metadata_file(bare)
    metadata = read_metadata(metadata_file)
    table = _sample_table(sample_table, metadata, maxcompute)
    # Imported here: --help must not wait for torch.
    from flowpatch.training.world import joined

    with joined() as world:
        store = fetch_once(
            world,
            lambda: fetch_store(table, metadata_file, fetching, maxcompute, hint=_first_script),
        )
        if cuda is not None:
            training = training.replace(device=_device(cuda))
        train_store(world, store, table.table, run, model, training)


def _sample_table(name: str, metadata: "Metadata", maxcompute: MaxComputeSettings) -> TableName:
    """The table of that name: in the project of the flag, else of the metadata, else elsewhere."""
    if maxcompute.odps_project is None and metadata.table is not None:
        published = TableName.of_address(metadata.table)
        if published.table == name:
            return published
    if maxcompute.odps_project is None and metadata.project is not None:
        maxcompute = maxcompute.replace(odps_project=metadata.project)
    return TableName.of_text(name, maxcompute.project())


def _first_script(table: TableName, recipe: Mapping[str, Any]) -> str:
    """The first script's command that makes a sample table."""
    records, nodes = (
        TableName.of_address(recipe[name]).table if is_address(recipe.get(name, "")) else unknown
        for name, unknown in (("records", "RAW_TABLE"), ("nodes", "META_TABLE"))
    )
    flags = "".join(f" --{name} {recipe[name]}" for name in OF_CITY if recipe.get(name))
    return (
        f"python preprocess_to_samples.py --odps_project {table.project} --odps_table {records} "
        f"--odps_meta_table {nodes} --output_table {table.table}{flags}"
    )


def _device(number: int) -> str:
    # Imported here: --help must not wait for torch.
    from flowpatch.training.device import cuda_or_cpu

    return cuda_or_cpu(number)


def _app(name: str, command: Callable[..., None]) -> App:
    app = App(
        name=name,
        help_format="markdown",
        suppress_keyboard_interrupt=False,
        default_parameter=Parameter(negative_iterable=()),
    )
    app.default(command)
    return app
