"""Records sorted into buckets of neighbouring cells, then reduced bucket by bucket, compiled.

    record -> bucket 0 | page page page        a bucket: CELLS cells whose sums fit a core's cache
              bucket 1 | page                  a page:   WORDS words of 4 bytes
              ...

    record    offset of cell, 0, upper half of the value      16 + 1 + 15 bits: most are so
              offset of cell, 1, unused | the value           where that would lose something

Adding a record straight to its cell is a miss of every cache where records come shuffled; writing
it behind the last one of its bucket is not. The pages are a pool of fixed size: when it is full,
what lies in it is reduced to sums and counts, and gathering goes on.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowpatch.series.dense import COUNTED_BY_DAY, DayCounts
from flowpatch.sources.aggregation import Aggregate
from flowpatch.sources.compiled import compiled, frozen
from flowpatch.sources.contract import UNKNOWN_NODE, RecordBlock

BUCKET_BITS = 16
CELLS = 2**BUCKET_BITS
WORDS = 4096 + 64
"""Of a page. A power of two would bring the ends of all buckets, which fill alike, to the same few
lines of a cache."""
POOL_WORDS = 80_000_000
"""Held before they are reduced: one a record, or two, and no memory until they come."""
_LONG = 2**15
"""The bit of a record's first word that says that the value is in a second one."""
_LOWER = 2**16 - 1
"""Bits of a value for which a short record has no room; its sign has the place of _LONG."""

_READ, _USED, _UNKNOWN, _WITHOUT_PLACE, _NO_NUMBER, _NULL = range(len(COUNTED_BY_DAY))
_MEAN, _SUM, _MAX = 0, 1, 2
_RULES: Mapping[Aggregate, int] = {"mean": _MEAN, "sum": _SUM, "max": _MAX}
"""The rules that are carried out here: `last` needs an order."""


_END, _FULL = 0, 1
"""Of the last page of a bucket: where its words end, and from where on it has no room for two."""

_Pages = tuple[NDArray[np.uint32], NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]
"""All words; of each page the one before it in its bucket, and where its words end; of some threads
each bucket's last page."""


class Buckets:
    """(S, N) cells under one rule, stretch after stretch, filled by several threads at a time.

    Each thread, told by its number, has pages of its own; together they hold `pool_words`.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        day_steps: int,
        aggregate: Aggregate,
        null_value: np.float32,
        threads: int = 1,
        pool_words: int = POOL_WORDS,
    ) -> None:
        self._rule, self._null_value = _RULES[aggregate], null_value
        self._cells, self._nodes = shape[0] * shape[1], shape[1]
        self._day_of_step = np.arange(shape[0]) // day_steps
        buckets = -(-self._cells // CELLS)
        self._own_pages = buckets + max(1, pool_words // threads // WORDS)
        # Whatever a record takes lies side by side: one line of the cache a bucket, not two.
        # One more, as the word behind a record is looked at whether it belongs to it or not.
        self._pool = np.empty(threads * self._own_pages * WORDS + 1, dtype=np.uint32)
        self._before = np.empty(threads * self._own_pages, dtype=np.int32)
        self._stop = np.empty(threads * self._own_pages, dtype=np.int64)
        self._open = np.empty((threads, buckets, 2), dtype=np.int64)
        self._taken = np.empty((threads, 1), dtype=np.int64)
        days = -(-shape[0] // day_steps)
        self._counted = np.zeros((threads, days, len(COUNTED_BY_DAY)), dtype=np.int64)
        self._partial: tuple[NDArray[np.float64], NDArray[np.int32]] | None = None
        self._partial_lock = Lock()
        self._values = np.empty(self._cells, dtype=np.float32)
        for thread in range(threads):
            self._begin(thread)

    def add(self, block: RecordBlock, thread: int = 0) -> None:
        """Takes a block of records."""
        step, node, value = frozen(block.step), frozen(block.node), frozen(block.value)
        placed = 0
        while True:
            placed = _place(
                step,
                node,
                value,
                value.view(np.uint32),
                placed,
                self._nodes,
                self._null_value,
                self._pool,
                self._before,
                self._stop,
                self._open[thread].ravel(),
                self._taken[thread],
                (thread + 1) * self._own_pages,
                self._day_of_step,
                self._counted[thread],
            )
            if placed == len(step):
                return
            self._keep_partial(thread)

    def counted(self) -> DayCounts:
        """How many records of this stretch went where, day by day."""
        return np.asarray(self._counted.sum(axis=0))

    def finish(self, cells: int) -> tuple[NDArray[np.float32], float]:
        """(cells,) values of the first cells, NaN where no record fell; and the largest size of any
        before it was rounded, or 0 where all are finite. The next stretch begins; no thread may be
        adding.

        The values stand until the next stretch is finished, which takes their memory.
        """
        threads, buckets = self._open.shape[:2]
        if self._partial is not None:
            for thread in range(threads):
                self._keep_partial(thread)
        partial = self._partial or (np.empty(0), np.empty(0, dtype=np.int32))
        values = self._values[:cells]
        borders = np.linspace(0, buckets, threads + 1).astype(int).tolist()

        def reduce(first: int, stop: int) -> float:
            pages = self._pages(slice(None))
            return _reduce(*pages, first, stop, self._rule, cells, *partial, values)

        with ThreadPoolExecutor(threads) as reducing:
            largest = max(reducing.map(reduce, borders[:-1], borders[1:]))
        self._partial = None
        self._counted[:] = 0
        for thread in range(threads):
            self._begin(thread)
        return values, largest

    def _begin(self, thread: int) -> None:
        first, buckets = thread * self._own_pages, self._open.shape[1]
        self._open[thread, :, _END] = WORDS * (first + np.arange(buckets))
        self._open[thread, :, _FULL] = self._open[thread, :, _END] + WORDS - 1
        self._before[first : first + buckets] = -1
        self._taken[thread] = first + buckets

    def _pages(self, threads: slice) -> "_Pages":
        return self._pool, self._before, self._stop, self._open[threads]

    def _keep_partial(self, thread: int) -> None:
        """Empties a thread's pages into sums and counts, to which later ones are added."""
        with self._partial_lock:
            if self._partial is None:
                self._partial = np.zeros(self._cells), np.zeros(self._cells, dtype=np.int32)
            pages = self._pages(slice(thread, thread + 1))
            _gather(*pages, self._rule, self._cells, *self._partial)
        self._begin(thread)


@compiled
def _place(
    step: NDArray[np.signedinteger[Any]],
    node: NDArray[np.int32],
    value: NDArray[np.float32],
    bits: NDArray[np.uint32],
    first: int,
    nodes: int,
    null_value: np.float32,
    pool: NDArray[np.uint32],
    before: NDArray[np.int32],
    stops: NDArray[np.int64],
    last: NDArray[np.int64],
    taken: NDArray[np.int64],
    pages: int,
    day_of_step: NDArray[np.int64],
    counted: NDArray[np.int64],
) -> int:
    """Records from `first` on, until `pages` are taken; returns where it stopped."""
    step, node, value, bits = step[first:], node[first:], value[first:], bits[first:]
    stop, left_out = len(step), 0
    one_day = len(counted) == 1
    for i in range(len(step)):
        if node[i] < 0 or np.isnan(value[i]) or value[i] == null_value:
            left_out += 1
            counted[day_of_step[step[i]], _cause(node[i], value[i])] += 1
            continue
        cell = step[i] * nodes + node[i]
        # Unsigned: an index that may be negative is tested for that.
        bucket = np.uint64(2) * (np.uint64(cell) >> np.uint64(BUCKET_BITS))
        full = bucket + np.uint64(1)
        at, whole = np.uint64(last[bucket]), np.int64(bits[i])
        word = ((cell & (CELLS - 1)) << 16) | (whole >> 16) | (_LONG * ((whole & _LOWER) != 0))
        pool[at] = word
        end = np.int64(at) + 1
        if word & _LONG:
            pool[at + np.uint64(1)] = whole
            end += 1
        last[bucket] = end
        if not one_day:
            counted[day_of_step[step[i]], _USED] += 1
        if end >= last[full]:
            # The next page is taken as soon as one is full, so that a record needs one look.
            if taken[0] == pages:
                stop = i + 1
                break
            page = last[full] // WORDS
            stops[page] = end
            before[taken[0]] = page
            last[bucket] = WORDS * taken[0]
            last[full] = WORDS * taken[0] + WORDS - 1
            taken[0] += 1
    if one_day:
        counted[0, _USED] += stop - left_out
    counted[:, _READ] = counted[:, _USED:].sum(axis=1)
    return first + stop


@compiled
def _cause(node: int, value: float) -> int:
    """Why a record is left out."""
    if node < 0:
        return _UNKNOWN if node == UNKNOWN_NODE else _WITHOUT_PLACE
    return _NO_NUMBER if np.isnan(value) else _NULL


@compiled
def _gather_bucket(
    pool: NDArray[np.uint32],
    before: NDArray[np.int32],
    stops: NDArray[np.int64],
    last: NDArray[np.int64],
    bucket: int,
    rule: int,
    sums: NDArray[np.float64],
) -> None:
    """One bucket's records into `sums`: of each cell the sum, or largest value, and the count, side
    by side in one line of the cache.
    """
    for thread in range(len(last)):
        page, stop = last[thread, bucket, _FULL] // WORDS, last[thread, bucket, _END]
        while page >= 0:
            at = page * WORDS
            while at < stop:
                word = np.int64(pool[np.uint64(at)])
                total = np.uint64(2 * (word >> 16))
                count = total + np.uint64(1)
                if word & _LONG:
                    bits = np.int64(pool[np.uint64(at + 1)])
                    at += 2
                else:
                    bits = word << 16
                    at += 1
                value = np.uint32(bits).view(np.float32)
                if rule != _MAX:
                    sums[total] += value
                elif sums[count] == 0 or value > sums[total]:
                    sums[total] = value
                sums[count] += 1
            page = before[page]
            stop = stops[page]


@compiled
def _gather(
    pool: NDArray[np.uint32],
    before: NDArray[np.int32],
    stops: NDArray[np.int64],
    last: NDArray[np.int64],
    rule: int,
    cells: int,
    totals: NDArray[np.float64],
    counts: NDArray[np.int32],
) -> None:
    """Every bucket's records into the sums and counts of all cells."""
    own = np.empty(2 * CELLS)
    for bucket in range(last.shape[1]):
        begin = bucket * CELLS
        stop = min(begin + CELLS, cells)
        sums = own[: 2 * (stop - begin)]
        sums[::2] = totals[begin:stop]
        sums[1::2] = counts[begin:stop]
        _gather_bucket(pool, before, stops, last, bucket, rule, sums)
        totals[begin:stop] = sums[::2]
        counts[begin:stop] = sums[1::2]


@compiled
def _reduce(
    pool: NDArray[np.uint32],
    before: NDArray[np.int32],
    stops: NDArray[np.int64],
    last: NDArray[np.int64],
    first_bucket: int,
    stop_bucket: int,
    rule: int,
    cells: int,
    totals: NDArray[np.float64],
    counts: NDArray[np.int32],
    result: NDArray[np.float32],
) -> float:
    """The values of some buckets' cells into `result`: from the pages, or from sums and counts
    where there are any.

    Returns the largest size where any is beyond float32, else 0.
    """
    own = np.empty(2 * CELLS)
    largest = 0.0
    for bucket in range(first_bucket, stop_bucket):
        begin = bucket * CELLS
        size = min(CELLS, cells - begin)
        if size <= 0:
            break
        sums = own[: 2 * size]
        if len(totals):
            sums[::2] = totals[begin : begin + size]
            sums[1::2] = counts[begin : begin + size]
        else:
            sums[:] = 0.0
            _gather_bucket(pool, before, stops, last, bucket, rule, sums)
        total, count = sums[::2], sums[1::2]
        out = result[begin : begin + size]
        infinite = 0
        for i in range(size):
            # Divided in any case, so that whole registers are; which NaN 0 / 0 gives is left open.
            found = total[i] / (count[i] if rule == _MEAN else 1)
            out[i] = found if count[i] else np.nan
        for i in range(size):
            infinite += np.isinf(out[i])
        if infinite:
            for i in range(size):
                if count[i]:
                    largest = max(largest, abs(total[i] / (count[i] if rule == _MEAN else 1)))
    return largest
