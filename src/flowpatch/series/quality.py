"""What is odd about a series: found and counted block by block, never changed.

Coverage, range, negative and zero values, steps at which the whole network is silent, and values
that stand still for so long that a sensor is likely to be stuck.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowpatch.series.row_blocks import row_blocks
from flowpatch.time_axis import MINUTES_A_DAY, TimeAxis

STUCK_MINUTES = 360
"""The same value other than zero for six hours on end: no live counter does that."""

STUCK_SAMPLES = 16
"""Every run that long holds so many steps, evenly spaced, at which the value is the same too."""


@dataclass(frozen=True)
class Quality:
    """Findings over a whole series of T steps and N nodes. Counts are of cells unless named.

    `first_step` and `stop_step` bound the steps that have any value; gaps, coverage and days are
    counted within them.
    """

    first_step: int
    stop_step: int
    observed: int
    coverage: float
    minimum: float
    maximum: float
    zeros: int
    negatives: int
    stuck: int
    stuck_nodes: int
    silent_nodes: int
    network_gaps: int
    longest_network_gap_steps: int
    lowest_day: str
    lowest_day_coverage: float

    def to_json(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return asdict(self)


class QualityScan:
    """Collects findings from the blocks of a series, handed over in order of time."""

    def __init__(self, axis: TimeAxis, nodes: int) -> None:
        self._axis = axis
        self._stuck_steps = max(2, STUCK_MINUTES // axis.step_minutes)
        self._observed_at = np.zeros(axis.length, dtype=np.int64)
        self._observed_of = np.zeros(nodes, dtype=np.int64)
        self._stuck_of = np.zeros(nodes, dtype=np.int64)
        self._minimum, self._maximum = np.float32(np.inf), np.float32(-np.inf)
        self._zeros = self._negatives = 0
        self._before = np.empty((0, nodes), dtype=np.float32)

    def add(self, first_step: int, values: NDArray[np.float32]) -> None:
        """Looks at the (S, N) values of steps first_step .. first_step + S."""
        for begin, rows in row_blocks(values):
            self._add_rows(first_step + begin, rows)
        self._add_stuck(values)

    def _add_rows(self, first_step: int, values: NDArray[np.float32]) -> None:
        observed = ~np.isnan(values)
        self._observed_at[first_step : first_step + len(values)] = np.count_nonzero(observed, 1)
        self._observed_of += observed.sum(axis=0)
        self._minimum = np.fmin(self._minimum, np.fmin.reduce(values, axis=None))
        self._maximum = np.fmax(self._maximum, np.fmax.reduce(values, axis=None))
        self._zeros += int(np.count_nonzero(values == 0))
        self._negatives += int(np.count_nonzero(values < 0))

    def _add_stuck(self, values: NDArray[np.float32]) -> None:
        # A run may have begun in the block before, so its tail is looked at again.
        before, length = self._before, self._stuck_steps
        every = max(1, length // STUCK_SAMPLES)
        sampled = np.concatenate([before[::every], values[-len(before) % every :: every]])
        # Most nodes have no run even among these steps, and are looked at no further.
        suspects = np.flatnonzero(ends_of_runs(sampled, length // every).any(axis=0))
        if len(suspects):
            joined = np.concatenate([before[:, suspects], values[:, suspects]])
            ends = ends_of_runs(joined, length)
            self._stuck_of[suspects] += ends[len(before) :].sum(axis=0)
        kept = max(0, length - 1 - len(values))
        self._before = np.concatenate(
            [before[len(before) - min(kept, len(before)) :], values[-(length - 1) :]]
        )

    def finish(self) -> Quality:
        """The findings; every value must have been handed over."""
        found = np.flatnonzero(self._observed_at)
        first, stop = (int(found[0]), int(found[-1]) + 1) if len(found) else (0, 0)
        gaps = _runs_of(self._observed_at[first:stop] == 0)
        day, day_coverage = self._lowest_day(first, stop)
        observed, nodes = int(self._observed_of.sum()), len(self._observed_of)
        return Quality(
            first_step=first,
            stop_step=stop,
            observed=observed,
            coverage=observed / max(1, (stop - first) * nodes),
            minimum=float(self._minimum),
            maximum=float(self._maximum),
            zeros=self._zeros,
            negatives=self._negatives,
            stuck=int(self._stuck_of.sum()),
            stuck_nodes=int((self._stuck_of > 0).sum()),
            silent_nodes=int((self._observed_of == 0).sum()),
            network_gaps=len(gaps),
            longest_network_gap_steps=max(gaps, default=0),
            lowest_day=day,
            lowest_day_coverage=day_coverage,
        )

    def _lowest_day(self, first: int, stop: int) -> tuple[str, float]:
        steps = np.arange(first, stop)
        if not len(steps):
            return "", 0.0
        day = steps * self._axis.step_minutes // MINUTES_A_DAY
        observed = np.bincount(day, self._observed_at[first:stop])[day[0] :]
        possible = np.bincount(day)[day[0] :] * len(self._observed_of)
        lowest = int(np.argmin(observed / possible))
        instant = self._axis.instant_of((int(day[0]) + lowest) * self._axis.steps_a_day)
        return str(instant.astype("datetime64[D]")), float(observed[lowest] / possible[lowest])


def ends_of_runs(values: NDArray[np.float32], length: int) -> NDArray[np.bool_]:
    """(S, N) whether a cell ends a run of at least `length` equal values other than zero.

    Each cell from the `length`-th of a run on counts, so a long run counts once a step.
    """
    same = np.zeros(values.shape, dtype=bool)
    same[1:] = (values[1:] == values[:-1]) & (values[1:] != 0)
    # Doubling: after the loop, same[t] says that `covered` steps up to t each equal the one before.
    covered = 1
    while covered < length - 1:
        shift = min(covered, length - 1 - covered)
        same[shift:] &= same[:-shift]
        same[:shift] = False
        covered += shift
    return same


def _runs_of(flags: NDArray[np.bool_]) -> list[int]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [int(stop - start) for start, stop in zip(edges[::2], edges[1::2], strict=True)]
