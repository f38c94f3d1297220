"""All that a version will know of a block of whole days, found by looking at its values alone.

Whoever has the values finds it, in this process or another; blocks are joined in any order
(`ledger.py`, `series/quality.py`).
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowpatch.series.dense import COUNTED_BY_DAY, DayCounts
from flowpatch.series.quality import BlockFindings
from flowpatch.series.statistics import StepMoments
from flowpatch.store.arrays import hash_values
from flowpatch.time_axis import TimeAxis


@dataclass(frozen=True)
class BlockFacts:
    """S steps, D days.

    first_day    the first of the days
    found        what is odd about the values
    moments      of each step
    day_hashes   D hashes of the values
    day_counts   (D, C) records by cause, see `COUNTED_BY_DAY`
    """

    first_day: int
    found: BlockFindings
    moments: StepMoments
    day_hashes: list[str]
    day_counts: DayCounts

    @property
    def days(self) -> range:
        """Its days."""
        return range(self.first_day, self.first_day + len(self.day_hashes))

    @property
    def steps(self) -> range:
        """Its steps."""
        first = self.found.first_step
        return range(first, first + len(self.moments.count))

    @classmethod
    def of(
        cls,
        axis: TimeAxis,
        first_step: int,
        values: NDArray[np.float32],
        counts: DayCounts | None = None,
    ) -> "BlockFacts":
        """Looks at the (S, N) values of whole days from `first_step` on.

        `counts` are the records of each of those days, by default one for each value.
        """
        a_day = axis.steps_a_day
        days = [values[i : i + a_day] for i in range(0, len(values), a_day)]
        with ThreadPoolExecutor(1, "hashing") as beside:
            # As long as all the rest takes, on another core.
            hashed = beside.submit(lambda: [hash_values(day) for day in days])
            found = BlockFindings.of(axis, first_step, values)
            moments = StepMoments.empty(len(values))
            moments.set(0, values)
            hashes = hashed.result()
        if counts is None:
            counts = _one_each(found.findings.observed_at.reshape(len(hashes), a_day))
        return cls(first_step // a_day, found, moments, hashes, counts)


def _one_each(observed_at: NDArray[np.int64]) -> DayCounts:
    """Counts of as many records as there are values at each step of each day."""
    counts = np.zeros((len(observed_at), len(COUNTED_BY_DAY)), dtype=np.int64)
    for cause in ("read", "used"):
        counts[:, COUNTED_BY_DAY.index(cause)] = observed_at.sum(axis=1)
    return counts
