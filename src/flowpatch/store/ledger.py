"""What is known of every step, day and node of a version, kept inside it.

With it, statistics, findings, counts and the content hash of a series that changed in a few days
follow from those days alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowpatch.series.dense import COUNTED_BY_DAY, DayCounts, RecordCounts
from flowpatch.series.quality import Findings
from flowpatch.series.statistics import StepMoments
from flowpatch.store.facts import BlockFacts
from flowpatch.time_axis import TimeAxis


@dataclass(frozen=True)
class Ledger:
    """T steps, D days, N nodes.

    moments      of each step
    findings     of each step, day and node
    day_counts   (D, C) records by cause, see `COUNTED_BY_DAY`
    day_hashes   D hashes of the values, '' for a day that is still to be written
    """

    moments: StepMoments
    findings: Findings
    day_counts: DayCounts
    day_hashes: list[str]

    @classmethod
    def empty(cls, axis: TimeAxis, nodes: int) -> "Ledger":
        """That of a series of which nothing is written."""
        return cls(
            StepMoments.empty(axis.length),
            Findings.empty(axis, nodes),
            np.zeros((axis.days, len(COUNTED_BY_DAY)), dtype=np.int64),
            [""] * axis.days,
        )

    def moved(self, axis: TimeAxis, days: int) -> "Ledger":
        """The ledger of a series with another axis, whose day `days` was the first one here.

        Days that stood before are left out; what they did to the findings of nodes is not.
        """
        new = Ledger.empty(axis, len(self.findings.observed_of))
        for here, there in zip(self._along_days(), new._along_days(), strict=True):
            a_day = len(there) // axis.days
            first = max(0, days)
            stop = max(first, min(axis.days, days + len(here) // a_day))
            there[first * a_day : stop * a_day] = here[
                (first - days) * a_day : (stop - days) * a_day
            ]
        for day, known in enumerate(self.day_hashes, start=days):
            if 0 <= day < axis.days:
                new.day_hashes[day] = known
        new.findings.observed_of[:] = self.findings.observed_of
        new.findings.stuck_of[:] = self.findings.stuck_of
        return new

    def _along_days(self) -> Iterator[NDArray[Any]]:
        moments, findings = self.moments, self.findings
        yield from (moments.count, moments.mean, moments.m2)
        yield from (findings.observed_at, findings.minimum, findings.maximum)
        yield from (findings.zeros, findings.negatives, self.day_counts)

    def counts(self) -> RecordCounts:
        """The records of all days together."""
        return RecordCounts.of_days(self.day_counts, int(self.findings.observed_of.sum()))

    def add(self, facts: BlockFacts) -> None:
        """Takes the facts of some days but for what `QualityScan` takes of them."""
        steps = slice(facts.steps.start, facts.steps.stop)
        days = slice(facts.days.start, facts.days.stop)
        self.moments.count[steps] = facts.moments.count
        self.moments.mean[steps] = facts.moments.mean
        self.moments.m2[steps] = facts.moments.m2
        self.day_counts[days] = facts.day_counts
        self.day_hashes[days] = facts.day_hashes

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that `of_arrays` takes; their dimensions are in `arrays.py`."""
        moments, findings = self.moments, self.findings
        of_day = np.column_stack([self.day_counts, findings.zeros, findings.negatives])
        extremes = np.column_stack([findings.minimum, findings.maximum])
        return {
            "step_count": moments.count,
            "step_mean": moments.mean,
            "step_m2": moments.m2,
            "day_counts": of_day,
            "day_extremes": extremes,
            "node_observed": findings.observed_of,
            "node_stuck": findings.stuck_of,
        }

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]], day_hashes: list[str]) -> "Ledger":
        """The ledger that `to_arrays` described."""
        moments = StepMoments(*(arrays[f"step_{name}"] for name in ("count", "mean", "m2")))
        of_day, extremes = arrays["day_counts"], arrays["day_extremes"]
        causes = len(COUNTED_BY_DAY)
        findings = Findings(
            observed_at=moments.count.copy(),
            minimum=extremes[:, 0].copy(),
            maximum=extremes[:, 1].copy(),
            zeros=of_day[:, causes].copy(),
            negatives=of_day[:, causes + 1].copy(),
            observed_of=arrays["node_observed"],
            stuck_of=arrays["node_stuck"],
        )
        return cls(moments, findings, of_day[:, :causes].copy(), list(day_hashes))
