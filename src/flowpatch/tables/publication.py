"""What is to be published: which samples, in which rows and blocks, with which metadata."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version as installed_version

import numpy as np
from numpy.typing import NDArray

from flowpatch.errors import SampleTableError
from flowpatch.maxcompute.names import TableName
from flowpatch.maxcompute.writing import BLOCKS, Block
from flowpatch.series.splits import SPLIT_NAMES
from flowpatch.store.sample_store import SampleStore
from flowpatch.tables.samples import RowMaker, Sample, choose_samples, node_groups
from flowpatch.tables.schema import Metadata
from flowpatch.tables.settings import PublishSettings

BLOCK_BYTES = 64 * 2**20
"""What MaxCompute advises for a block at least."""


@dataclass(frozen=True)
class Publication:
    """A store version as rows of a table; the same for the same version and settings.

    Raises:
        SettingsError: the stride leaves steps out, or a cell cannot hold one node.
        PeriodError: a split has no origin.
    """

    store: SampleStore
    table: TableName
    settings: PublishSettings
    input_len: int
    output_len: int

    @cached_property
    def samples(self) -> list[Sample]:
        """Splits and origins, in order of time."""
        splits, stride = self.store.splits, self.settings.sample_stride
        return choose_samples(splits, self.input_len, self.output_len, stride)

    @cached_property
    def groups(self) -> list[NDArray[np.int64]]:
        """The nodes of each row of an origin."""
        steps = max(self.input_len, self.output_len)
        return node_groups(self.store.nodes.coordinates, steps, self.settings.encoding)

    @property
    def rows(self) -> int:
        """Rows in all."""
        return len(self.samples) * len(self.groups)

    @property
    def maker(self) -> RowMaker:
        """What makes the rows of a block's task."""
        return RowMaker(
            self.store.path,
            self.store.version,
            self.input_len,
            self.output_len,
            self.settings.encoding,
            self.groups,
        )

    @cached_property
    def blocks(self) -> list[Block]:
        """Samples in blocks of few enough bytes, judged by the one in the middle."""
        middle = self.samples[len(self.samples) // 2]
        bytes_each = max(1, self.maker([middle]).nbytes)
        samples = min(self.settings.batch_size, max(1, BLOCK_BYTES // bytes_each))
        samples = max(samples, -(-len(self.samples) // BLOCKS))
        return [
            Block(number, tuple(self.samples[first : first + samples]))
            for number, first in enumerate(range(0, len(self.samples), samples))
        ]

    def plan(self, endpoint: str) -> str:
        """A hash of everything that decides which rows are in which block of which table."""
        content = [
            endpoint,
            self.table.address,
            self.store.manifest.content_hash,
            self.settings.model_dump(),
            [self.input_len, self.output_len, len(self.blocks), len(self.groups)],
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def metadata(self, project: str, endpoint: str) -> Metadata:
        """The metadata of a table that holds this publication and nothing else."""
        store, axis = self.store, self.store.axis
        splits = [split for split, _ in self.samples]
        return Metadata(
            table=self.table.address,
            project=project,
            endpoint=endpoint,
            encoding=self.settings.encoding,
            partitioned=self.settings.partitioned,
            input_len=self.input_len,
            output_len=self.output_len,
            sample_stride=self.settings.sample_stride,
            step_minutes=axis.step_minutes,
            time_zone=axis.time_zone,
            start=str(axis.start),
            length=axis.length,
            splits=store.splits.to_json(),
            samples={name: splits.count(name) for name in SPLIT_NAMES},
            rows=self.rows,
            mean=store.statistics.mean,
            deviation=store.statistics.deviation,
            content_hash=store.manifest.content_hash,
            store_version=store.version,
            code_version=installed_version("flowpatch"),
            recipe=store.manifest.recipe,
            nodes=store.nodes.to_json(),
        )


def appended(metadata: Metadata, before: Metadata) -> Metadata:
    """The metadata of a table that holds more than was published last: its rows tell the rest.

    Raises:
        SampleTableError: the rows to append are of other windows or nodes than those there.
    """
    same = ("input_len", "output_len", "step_minutes", "time_zone", "nodes")
    differing = [name for name in same if getattr(before, name) != getattr(metadata, name)]
    if differing:
        raise SampleTableError(
            f"Samples to append to {metadata.table} differ from those there in "
            f"{', '.join(differing)}, says its metadata file. Publish them as another table."
        )
    unknown = ("start", "length", "splits", "samples", "rows", "content_hash", "store_version")
    return metadata.model_copy(update=dict.fromkeys(unknown))
