"""Blocks of the records in files that were surveyed: read here or, sent there pickled, elsewhere.

Every process reads them alike: types, dialect and sizes are those that the first one found, and a
copy of text that it made is not made again. Which way of reading is taken is decided here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from flowpatch.sources.columns import RecordColumns
from flowpatch.sources.contract import NodeIndex, RecordBlock, RecordPart
from flowpatch.sources.listing import Listing
from flowpatch.sources.record_relation import RecordRelation
from flowpatch.time_axis import TimeAxis

if TYPE_CHECKING:
    from flowpatch.sources.plain_csv import PlainCsv
    from flowpatch.sources.row_groups import RowGroups


@dataclass(frozen=True)
class FileRecords:
    """The records of `files`; `readable` is what stands for them, a copy where `is_copy` says so.

    `many` says that compiled loops over them pay.
    """

    files: Listing
    columns: RecordColumns
    readable: "RecordRelation | PlainCsv"
    is_copy: bool
    many: bool

    def read_blocks(
        self, nodes: NodeIndex, axis: TimeAxis, first_step: int, stop_step: int, *, in_order: bool
    ) -> Iterator[RecordBlock | RecordPart]:
        """One scan of the records. See `RecordSource.read_blocks`."""
        whole_keys = all(keys.dtype == np.int64 for keys in nodes.keys)
        if self.many and whole_keys and not in_order and self._row_groups is not None:
            return self._row_groups.parts(nodes, axis, first_step, stop_step)
        found = self.readable.blocks(
            nodes, axis, first_step, stop_step, in_order=in_order, many=self.many
        )
        # Of a copy it no longer matters what becomes of the files.
        return found if self.is_copy else self._whole(found)

    def _whole(self, found: Iterator[RecordBlock]) -> Iterator[RecordBlock]:
        """What was found in the files, if they are still all there."""
        yield from found
        self.files.check_whole()

    @cached_property
    def _row_groups(self) -> "RowGroups | None":
        if self.files.format != "parquet":
            return None
        # Imported here: few records need not wait for the compiler.
        from flowpatch.sources.row_groups import find_row_groups

        return find_row_groups(self.files, self.columns)

    def use_threads(self, threads: int) -> None:
        """Reads with so many threads, by default as many as there are cores."""
        self.readable.use_threads(threads)

    def close(self) -> None:
        """Closes what a process opened that got them pickled; what they stand for stays."""
        self.readable.close()
