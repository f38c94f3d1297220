"""What is odd about a series: found and counted block by block, never changed.

Coverage, range, negative and zero values, steps at which the whole network is silent, and values
that stand still for so long that a sensor is likely to be stuck (`stuck.py`).
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowpatch.series.row_blocks import flags_of_columns, flags_of_rows, row_blocks
from flowpatch.series.stuck import JoinedRuns, StuckRuns, stuck_steps
from flowpatch.time_axis import MINUTES_A_DAY, TimeAxis


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
    stuck_of            (N,) cells of each node that end a run of equal values, see `StuckRuns.ends`
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
        return cls._of_nothing(axis.length, axis.days, nodes)

    @classmethod
    def _of_nothing(cls, steps: int, days: int, nodes: int) -> "Findings":
        at, of_day, of_node = (np.zeros(length, dtype=np.int64) for length in (steps, days, nodes))
        lowest = np.full(days, np.inf, dtype=np.float32)
        return cls(at, lowest, -lowest, of_day, of_day.copy(), of_node, of_node.copy())

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


@dataclass(frozen=True)
class BlockFindings:
    """What was found of the steps of a block, looked at alone.

    `findings` are of these steps, of the days that they touch and of all nodes; `runs` are theirs,
    still to be joined with those of the blocks beside it.
    """

    first_step: int
    findings: Findings
    runs: StuckRuns

    @classmethod
    def of(cls, axis: TimeAxis, first_step: int, values: NDArray[np.float32]) -> "BlockFindings":
        """Looks at the (S, N) values of steps first_step .. first_step + S."""
        a_day, stop = axis.steps_a_day, first_step + len(values)
        first_day = first_step // a_day
        runs = StuckRuns.of(values, stuck_steps(axis))
        found = Findings._of_nothing(len(values), -(-stop // a_day) - first_day, values.shape[1])
        found.stuck_of[:] = runs.ends
        for day in range(len(found.zeros)):
            begin, end = ((first_day + one) * a_day - first_step for one in (day, day + 1))
            for offset, rows in row_blocks(values[max(0, begin) : end]):
                _add_rows(found, day, max(0, begin) + offset, rows)
        return cls(first_step, found, runs)


def _add_rows(found: Findings, day: int, first: int, values: NDArray[np.float32]) -> None:
    observed = ~np.isnan(values)
    found.observed_at[first : first + len(values)] = flags_of_rows(observed)
    found.observed_of[:] += flags_of_columns(observed)
    lowest = np.fmin.reduce(values, axis=None)
    found.minimum[day] = np.fmin(found.minimum[day], lowest)
    found.maximum[day] = np.fmax(found.maximum[day], np.fmax.reduce(values, axis=None))
    # Most blocks need no search for what the lowest value rules out.
    if lowest <= 0:
        found.zeros[day] += np.count_nonzero(values == 0)
    if lowest < 0:
        found.negatives[day] += np.count_nonzero(values < 0)


class QualityScan:
    """Joins what was found of the blocks of a series, which come in any order.

    `findings` are those of the other days, where only some are looked at. A stretch of such days
    begins with `begin` and ends with `add_behind`. What is known of them already is taken back
    before, in the same way: `begin`, `forget`, `forget_behind`.
    """

    def __init__(self, axis: TimeAxis, nodes: int, findings: Findings | None = None) -> None:
        self.findings = findings or Findings.empty(axis, nodes)
        self._axis, self._runs = axis, JoinedRuns()

    @property
    def reach_steps(self) -> int:
        """How many steps before a value, and behind it, have to do with what is found of it."""
        return stuck_steps(self._axis) - 1

    def begin(self, first_step: int, before: NDArray[np.float32]) -> None:
        """A stretch begins at a step, behind (S, N) values: `reach_steps` of them, or all."""
        before = before[-self.reach_steps :]
        self._runs.restart(first_step - len(before), self._runs_of(before))

    def add(self, block: BlockFindings) -> None:
        """Takes what was found of a block."""
        all_days, found = self.findings, block.findings
        first, stop = block.first_step, block.first_step + len(found.observed_at)
        all_days.observed_at[first:stop] = found.observed_at
        first_day = first // self._axis.steps_a_day
        days = slice(first_day, first_day + len(found.zeros))
        all_days.minimum[days] = np.fmin(all_days.minimum[days], found.minimum)
        all_days.maximum[days] = np.fmax(all_days.maximum[days], found.maximum)
        all_days.zeros[days] += found.zeros
        all_days.negatives[days] += found.negatives
        all_days.observed_of[:] += found.observed_of
        all_days.stuck_of[:] += self._runs.add(first, block.runs)

    def add_behind(self, first_step: int, values: NDArray[np.float32]) -> None:
        """Ends a stretch before these (S, N) values: `reach_steps` of them, or all there are.

        The runs that they end may have begun in the stretch.
        """
        self.findings.stuck_of[:] += self._runs.add(first_step, self._runs_of(values))

    def forget(self, first_step: int, values: NDArray[np.float32]) -> None:
        """Takes back what was found of (S, N) values of whole days, also of some before step 0."""
        findings, a_day = self.findings, self._axis.steps_a_day
        for _, rows in row_blocks(values):
            findings.observed_of[:] -= flags_of_columns(~np.isnan(rows))
        self.forget_behind(first_step, values)
        first, stop = max(0, first_step), max(0, first_step + len(values))
        findings.observed_at[first:stop] = 0
        days = slice(first // a_day, stop // a_day)
        findings.minimum[days], findings.maximum[days] = np.inf, -np.inf
        findings.zeros[days] = findings.negatives[days] = 0

    def forget_behind(self, first_step: int, values: NDArray[np.float32]) -> None:
        """Ends a stretch that is taken back, see `add_behind`."""
        self.findings.stuck_of[:] -= self._runs.add(first_step, self._runs_of(values))

    def quality(self) -> Quality:
        """The findings over the whole series; every block must have been added."""
        return self.findings.quality(self._axis)

    def _runs_of(self, values: NDArray[np.float32]) -> StuckRuns:
        return StuckRuns.of(values, stuck_steps(self._axis))


def _runs_of(flags: NDArray[np.bool_]) -> list[int]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [int(stop - start) for start, stop in zip(edges[::2], edges[1::2], strict=True)]
