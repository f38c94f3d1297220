"""Batches cut to a size that can be sent in one piece."""

from collections.abc import Iterable, Iterator

import pyarrow as pa

PIECE_BYTES = 2 << 20


def pieces(batches: Iterable[pa.RecordBatch], max_rows: int = 1 << 20) -> Iterator[pa.RecordBatch]:
    """The same rows, in batches of about two megabytes (or one row) and at most `max_rows` rows."""
    for batch in batches:
        row_bytes = max(1, batch.nbytes // max(1, batch.num_rows))
        n_rows = max(1, min(max_rows, PIECE_BYTES // row_bytes))
        for start in range(0, batch.num_rows, n_rows):
            yield batch.slice(start, n_rows)
