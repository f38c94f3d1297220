"""What is odd about a series: found and counted block by block, never changed.

Coverage, range, negative and zero values, steps at which the whole network is silent, and values
that stand still for so long that a sensor is likely to be stuck.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowpatch.series.row_blocks import flags_of_columns, flags_of_rows, row_blocks
from flowpatch.time_axis import MINUTES_A_DAY, TimeAxis

STUCK_MINUTES = 360
"""The same value other than zero for six hours on end: no live counter does that."""

STUCK_SAMPLES = 16
"""Every run that long holds so many steps, evenly spaced, at which the value is the same too."""

SUSPECTS = 4096
"""Nodes whose every step is looked at at a time: in a wide city all of them would take too much."""


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


@dataclass(frozen=True)
class Findings:
    """What was found of T steps, D days and N nodes, from which `Quality` follows.

    A version keeps it, so that a day more or less need not look at all the others again.

    observed_at         (T,) observed nodes of each step
    minimum, maximum    (D,) of each day's values, inf and -inf where there are none
    zeros, negatives    (D,) cells of each day
    observed_of         (N,) observed cells of each node
    stuck_of            (N,) cells of each node that end a run of equal values, see `ends_of_runs`
    """

    observed_at: NDArray[np.int64]
    minimum: NDArray[np.float32]
    maximum: NDArray[np.float32]
    zeros: NDArray[np.int64]
    negatives: NDArray[np.int64]
    observed_of: NDArray[np.int64]
    stuck_of: NDArray[np.int64]

    @classmethod
    def empty(cls, axis: TimeAxis, nodes: int) -> "Findings":
        """Those of a series without any value."""
        steps, of_day, of_node = (
            np.zeros(length, dtype=np.int64) for length in (axis.length, axis.days, nodes)
        )
        lowest = np.full(axis.days, np.inf, dtype=np.float32)
        return cls(steps, lowest, -lowest, of_day, of_day.copy(), of_node, of_node.copy())

    def quality(self, axis: TimeAxis) -> Quality:
        """The findings over the whole series."""
        found = np.flatnonzero(self.observed_at)
        first, stop = (int(found[0]), int(found[-1]) + 1) if len(found) else (0, 0)
        gaps = _runs_of(self.observed_at[first:stop] == 0)
        day, day_coverage = self._lowest_day(axis, first, stop)
        observed, nodes = int(self.observed_of.sum()), len(self.observed_of)
        return Quality(
            first_step=first,
            stop_step=stop,
            observed=observed,
            coverage=observed / max(1, (stop - first) * nodes),
            minimum=float(self.minimum.min()),
            maximum=float(self.maximum.max()),
            zeros=int(self.zeros.sum()),
            negatives=int(self.negatives.sum()),
            stuck=int(self.stuck_of.sum()),
            stuck_nodes=int((self.stuck_of > 0).sum()),
            silent_nodes=int((self.observed_of == 0).sum()),
            network_gaps=len(gaps),
            longest_network_gap_steps=max(gaps, default=0),
            lowest_day=day,
            lowest_day_coverage=day_coverage,
        )

    def _lowest_day(self, axis: TimeAxis, first: int, stop: int) -> tuple[str, float]:
        steps = np.arange(first, stop)
        if not len(steps):
            return "", 0.0
        day = steps * axis.step_minutes // MINUTES_A_DAY
        observed = np.bincount(day, self.observed_at[first:stop])[day[0] :]
        possible = np.bincount(day)[day[0] :] * len(self.observed_of)
        lowest = int(np.argmin(observed / possible))
        instant = axis.instant_of((int(day[0]) + lowest) * axis.steps_a_day)
        return str(instant.astype("datetime64[D]")), float(observed[lowest] / possible[lowest])


class QualityScan:
    """Collects findings from the blocks of a series, handed over in order of time.

    `findings` are those of the other days, where only some are looked at. A stretch of such days
    begins with `begin` and ends with `add_behind`. What is known of them already is taken back
    before, in the same order: `begin`, `forget`, `forget_behind`.
    """

    def __init__(self, axis: TimeAxis, nodes: int, findings: Findings | None = None) -> None:
        self.findings = findings or Findings.empty(axis, nodes)
        self._axis = axis
        self._stuck_steps = max(2, STUCK_MINUTES // axis.step_minutes)
        self._before = np.empty((0, nodes), dtype=np.float32)

    @property
    def reach_steps(self) -> int:
        """How many steps before a value, and behind it, have to do with what is found of it."""
        return self._stuck_steps - 1

    def begin(self, before: NDArray[np.float32]) -> None:
        """A stretch begins behind these (S, N) values: `reach_steps` of them, or all there are."""
        self._before = before[-self.reach_steps :]

    def add(self, first_step: int, values: NDArray[np.float32]) -> None:
        """Looks at the (S, N) values of steps first_step .. first_step + S."""
        for begin, day_values in _days(self._axis, first_step, values):
            for offset, rows in row_blocks(day_values):
                self._add_rows(begin + offset, rows)
        self.findings.stuck_of[:] += self._stuck(values)

    def add_behind(self, values: NDArray[np.float32]) -> None:
        """Ends a stretch before these (S, N) values: `reach_steps` of them, or all there are.

        The runs that they end may have begun in the stretch.
        """
        self.findings.stuck_of[:] += self._stuck(values)

    def forget(self, first_step: int, values: NDArray[np.float32]) -> None:
        """Takes back what was found of (S, N) values of whole days, also of some before step 0."""
        findings, a_day = self.findings, self._axis.steps_a_day
        for _, rows in row_blocks(values):
            findings.observed_of[:] -= flags_of_columns(~np.isnan(rows))
        findings.stuck_of[:] -= self._stuck(values)
        first, stop = max(0, first_step), max(0, first_step + len(values))
        findings.observed_at[first:stop] = 0
        days = slice(first // a_day, stop // a_day)
        findings.minimum[days], findings.maximum[days] = np.inf, -np.inf
        findings.zeros[days] = findings.negatives[days] = 0

    def forget_behind(self, values: NDArray[np.float32]) -> None:
        """Ends a stretch that is taken back, see `add_behind`."""
        self.findings.stuck_of[:] -= self._stuck(values)

    def quality(self) -> Quality:
        """The findings over the whole series; every value must have been handed over."""
        return self.findings.quality(self._axis)

    def _add_rows(self, first_step: int, values: NDArray[np.float32]) -> None:
        found, day = self.findings, first_step // self._axis.steps_a_day
        observed = ~np.isnan(values)
        found.observed_at[first_step : first_step + len(values)] = flags_of_rows(observed)
        found.observed_of[:] += flags_of_columns(observed)
        lowest = np.fmin.reduce(values, axis=None)
        found.minimum[day] = np.fmin(found.minimum[day], lowest)
        found.maximum[day] = np.fmax(found.maximum[day], np.fmax.reduce(values, axis=None))
        # Most blocks need no search for what the lowest value rules out.
        if lowest <= 0:
            found.zeros[day] += np.count_nonzero(values == 0)
        if lowest < 0:
            found.negatives[day] += np.count_nonzero(values < 0)

    def _stuck(self, values: NDArray[np.float32]) -> NDArray[np.int64]:
        """(N,) cells that end a run of equal values, of values that stand behind all before."""
        # A run may have begun in the block before, so its tail is looked at again.
        before, length = self._before, self._stuck_steps
        stuck = np.zeros(values.shape[1], dtype=np.int64)
        every = max(1, length // STUCK_SAMPLES)
        sampled = np.concatenate([before[::every], values[-len(before) % every :: every]])
        # Most nodes have no run even among these steps, and are looked at no further.
        suspects = np.flatnonzero(ends_of_runs(sampled, length // every).any(axis=0))
        for first in range(0, len(suspects), SUSPECTS):
            some = suspects[first : first + SUSPECTS]
            joined = np.concatenate([before[:, some], values[:, some]])
            stuck[some] = ends_of_runs(joined, length)[len(before) :].sum(axis=0)
        kept = max(0, length - 1 - len(values))
        self._before = np.concatenate(
            [before[len(before) - min(kept, len(before)) :], values[-(length - 1) :]]
        )
        return stuck


def _days(
    axis: TimeAxis, first_step: int, values: NDArray[np.float32]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The first step and the values of each day, or of the part of it, among (S, N) values."""
    stop = first_step + len(values)
    while first_step < stop:
        end = min(stop, (first_step // axis.steps_a_day + 1) * axis.steps_a_day)
        yield first_step, values[len(values) - (stop - first_step) : len(values) - (stop - end)]
        first_step = end


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
