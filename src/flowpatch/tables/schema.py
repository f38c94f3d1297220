"""The eight columns of a sample table, and the metadata file beside it.

sample_id     one text a row, never twice
split         train, val or test
X             (input_len, nodes, 1) values before the origin
Y             (output_len, nodes, 1) values from it
TE_X, TE_Y    (input_len, 2), (output_len, 2): time-of-day index, day-of-week index (0 Monday)
node_indices  the indices of the row's nodes, in the metadata's order
timestamp     the origin, local wall-clock time, `2025-09-19 08:00:00`
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flowpatch.errors import FlowpatchError, OutputError, SampleTableError
from flowpatch.series.nodes import NodeTable
from flowpatch.series.splits import Splits
from flowpatch.tables.codec import Encoding
from flowpatch.time_axis import TimeAxis, check_step_minutes, check_time_zone

FORMAT = 1
COLUMNS = ("sample_id", "split", "X", "Y", "TE_X", "TE_Y", "node_indices", "timestamp")
PARTITION_COLUMN = "split"
DATA_COLUMNS = tuple(name for name in COLUMNS if name != PARTITION_COLUMN)

ARROW_SCHEMA = pa.schema([(name.lower(), pa.string()) for name in COLUMNS])
"""MaxCompute keeps names of columns in lower case."""


class Metadata(BaseModel):
    """What the rows of a sample table do not say: where nodes lie, how long a step is, ...

    Written by others, it may hold more, which is left alone, and less: only the lengths, the step
    and the nodes are needed; what else is missing is taken from the rows.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    format: int = FORMAT
    table: str | None = None
    project: str | None = None
    endpoint: str | None = None
    encoding: Encoding = "zstd"
    partitioned: bool = False
    input_len: int = Field(ge=1)
    output_len: int = Field(ge=1)
    sample_stride: int = Field(default=1, ge=1)
    step_minutes: int
    time_zone: str = "UTC"
    start: str | None = None
    """First instant of the series, a midnight."""
    length: int | None = None
    """Steps of the series."""
    splits: dict[str, int] | None = None
    """Borders as steps of the series."""
    samples: dict[str, int] | None = None
    """Origins of each split that were written."""
    rows: int | None = None
    """Rows that were written: as many as samples, more where a city is cut into several."""
    mean: float | None = None
    deviation: float | None = None
    content_hash: str | None = None
    """Hash of the store version that was published, where all of it can be rebuilt."""
    store_version: str | None = None
    code_version: str | None = None
    recipe: dict[str, Any] | None = None
    """How the store was built from raw records."""
    nodes: dict[str, Any]

    @property
    def node_table(self) -> NodeTable:
        """The nodes, in the order that `node_indices` counts."""
        return NodeTable.from_json(self.nodes)

    @property
    def borders(self) -> Splits | None:
        """The splits, where they are written."""
        return None if self.splits is None else Splits.from_json(self.splits)


def make_folder_of(path: Path) -> None:
    """Makes the folder of a metadata file, before any work is done for it.

    Raises:
        OutputError: it cannot be made or written.
    """
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(path, error) from None


def write_metadata(path: Path, metadata: Metadata) -> None:
    """Writes the file at once: a reader sees the old or the new one.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(
            json.dumps(metadata.model_dump(), ensure_ascii=False) + "\n", encoding="utf-8"
        )
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _refused(path, error) from None


def _refused(path: Path, error: OSError) -> OutputError:
    return OutputError(f"Cannot write '{path}': {error.strerror}. Check --metadata-file.")


def read_metadata(path: Path) -> Metadata:
    """The metadata of a sample table.

    Raises:
        SampleTableError: no such file, or it lacks something that rows cannot tell.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SampleTableError(
            f"No metadata file '{path}'. It is written beside the table when samples are "
            "published; name it with --metadata-file."
        ) from None
    except (OSError, ValueError) as error:
        raise SampleTableError(f"'{path}' is no metadata file: {error}.") from None
    return check_metadata(content, str(path))


def check_metadata(content: Any, place: str) -> Metadata:
    """The metadata, if it tells what is needed; `place` is named in errors."""
    try:
        metadata = Metadata.model_validate(content)
        if metadata.format > FORMAT:
            raise SampleTableError(
                f"'{place}' has format {metadata.format}, of a later flowpatch; this one reads "
                f"formats up to {FORMAT}. Upgrade: pip install --upgrade flowpatch."
            )
        check_step_minutes(metadata.step_minutes)
        check_time_zone(metadata.time_zone)
        coordinates = metadata.node_table.coordinates
        if not len(coordinates) or not np.isfinite(coordinates).all():
            raise ValueError(
                "nodes need a finite latitude and longitude each, and there must be any"
            )
        if len(metadata.node_table.labels) != len(coordinates):
            raise ValueError("nodes have as many keys as coordinates")
        if metadata.start is not None and metadata.length is not None:
            start = np.datetime64(metadata.start, "m")
            TimeAxis(start, metadata.step_minutes, metadata.length, metadata.time_zone)
        _ = metadata.borders
    except SampleTableError:
        raise
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors()
        )
        raise SampleTableError(f"'{place}' is no sample table's metadata: {wrong}.") from None
    except (LookupError, TypeError, ValueError, FlowpatchError) as error:
        raise SampleTableError(f"'{place}' is no sample table's metadata: {error!r}.") from None
    return metadata
