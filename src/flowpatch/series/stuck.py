"""Values that stand still: runs of equal values, found block by block, blocks in any order.

    blocks    1 1 1 | 1 1 2 2 | 2 2 3     each knows its own runs, and those at its two ends
    joined    1 1 1   1 1 2 2   2 2 3     where two touch, a run that goes on is one run

Zero is no such value: a road may be empty for hours.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowpatch.time_axis import TimeAxis

STUCK_MINUTES = 360
"""The same value other than zero for six hours on end: no live counter does that."""

STUCK_SAMPLES = 16
"""Every run that long holds so many steps, evenly spaced, at which the value is the same too."""

SUSPECTS = 4096
"""Nodes whose every step is looked at at a time: in a wide city all of them would take too much."""


def stuck_steps(axis: TimeAxis) -> int:
    """From how many equal values on a sensor is likely to be stuck."""
    return max(2, STUCK_MINUTES // axis.step_minutes)


@dataclass(frozen=True)
class StuckRuns:
    """The runs of equal values other than zero in S `steps` of N nodes; each array is (N,).

    ends                 cells that end a run of at least `long` values, counted once a step
    first, last          the values of the first and of the last step
    leading, trailing    steps of the run that begins with `first`, and of the one that ends with
                         `last`: 0 where that is zero or missing, and never more than `long - 1`
    """

    long: int
    steps: int
    ends: NDArray[np.int64]
    first: NDArray[np.float32]
    last: NDArray[np.float32]
    leading: NDArray[np.int32]
    trailing: NDArray[np.int32]

    @classmethod
    def of(cls, values: NDArray[np.float32], long: int) -> "StuckRuns":
        """Those of (S, N) values alone."""
        steps, nodes = values.shape
        missing = np.full((1, nodes), np.nan, dtype=np.float32)
        return cls(
            long,
            steps,
            _count_ends(values, long),
            (values if steps else missing)[0].copy(),
            (values if steps else missing)[-1].copy(),
            _leading(values, long - 1),
            _leading(values[::-1], long - 1),
        )

    def join(self, behind: "StuckRuns") -> "StuckRuns":
        """The runs of these steps and those right behind them."""
        if not self.steps:
            return behind
        if not behind.steps:
            return self
        goes_on = (self.last == behind.first) & (self.trailing > 0)
        most = self.long - 1
        through = goes_on & (self.leading == self.steps)
        leading = np.where(through, np.minimum(most, self.steps + behind.leading), self.leading)
        through = goes_on & (behind.leading == behind.steps)
        trailing = np.where(
            through, np.minimum(most, self.trailing + behind.steps), behind.trailing
        )
        # Of a run that is long only with what stands before, a step ends it from the `long`-th on.
        across = np.where(goes_on, np.maximum(0, self.trailing + behind.leading - most), 0)
        return StuckRuns(
            self.long,
            self.steps + behind.steps,
            self.ends + behind.ends + across,
            self.first,
            behind.last,
            leading.astype(np.int32),
            trailing.astype(np.int32),
        )


class JoinedRuns:
    """The runs of blocks at their places on the axis, joined wherever two touch."""

    def __init__(self) -> None:
        self._by_first: dict[int, StuckRuns] = {}

    def add(self, first_step: int, runs: StuckRuns) -> NDArray[np.int64]:
        """(N,) cells that are known to end a run now, and were not before."""
        if not runs.steps:
            return runs.ends
        found = runs.ends
        for begin, before in self._by_first.items():
            if begin + before.steps == first_step:
                del self._by_first[begin]
                joined = before.join(runs)
                found = found + joined.ends - before.ends - runs.ends
                first_step, runs = begin, joined
                break
        behind = self._by_first.pop(first_step + runs.steps, None)
        if behind is not None:
            joined = runs.join(behind)
            found = found + joined.ends - runs.ends - behind.ends
            runs = joined
        self._by_first[first_step] = runs
        return found

    def restart(self, first_step: int, runs: StuckRuns) -> None:
        """Forgets all blocks but this one."""
        self._by_first = {first_step: runs} if runs.steps else {}


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


def _count_ends(values: NDArray[np.float32], long: int) -> NDArray[np.int64]:
    """(N,) cells of each node that end a run."""
    ends = np.zeros(values.shape[1], dtype=np.int64)
    every = max(1, long // STUCK_SAMPLES)
    # Most nodes have no run even among these steps, and are looked at no further.
    suspects = np.flatnonzero(ends_of_runs(values[::every], long // every).any(axis=0))
    for first in range(0, len(suspects), SUSPECTS):
        some = suspects[first : first + SUSPECTS]
        ends[some] = ends_of_runs(values[:, some], long).sum(axis=0)
    return ends


def _leading(values: NDArray[np.float32], most: int) -> NDArray[np.int32]:
    """(N,) steps, up to `most`, whose values equal the first one, where that is none or zero: 0."""
    found = np.zeros(values.shape[1], dtype=np.int32)
    if not len(values):
        return found
    first = values[0]
    # Few nodes are left after a few steps.
    running = np.flatnonzero((first != 0) & ~np.isnan(first))
    for row in values[:most]:
        running = running[row[running] == first[running]]
        if not len(running):
            break
        found[running] += 1
    return found
