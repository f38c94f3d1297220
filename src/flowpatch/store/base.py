"""The version that a new one starts from, on the axis and with the nodes of the new one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowpatch.series.dense import DayCounts
from flowpatch.series.nodes import NodeTable
from flowpatch.store.carrying import Positions
from flowpatch.store.ledger import Ledger
from flowpatch.store.sample_store import SampleStore
from flowpatch.time_axis import TimeAxis


@dataclass(frozen=True)
class Base:
    """The version before, as the new one sees it.

    `steps` is where its step 0 lies on the new axis, `columns` where its nodes lie among the new
    ones, None where they are the same. `ledger` is None where every day is looked at anew.
    """

    store: SampleStore
    steps: int
    columns: Positions | None
    has_other_nodes: bool
    ledger: Ledger | None
    day_counts: DayCounts

    @classmethod
    def of(cls, store: SampleStore, axis: TimeAxis, nodes: NodeTable) -> "Base":
        """The current version of a store, on the axis and with the nodes of the next one."""
        steps = axis.step_of(store.axis.start)
        columns = store.nodes.positions_in(nodes)
        is_same = len(nodes) == len(columns) and bool((np.diff(columns) == 1).all())
        known = store.ledger or Ledger.empty(store.axis, len(store.nodes))
        moved = known.moved(axis, steps // axis.steps_a_day)
        return cls(
            store,
            steps,
            None if is_same else columns,
            nodes.fingerprint() != store.nodes.fingerprint(),
            moved if is_same and store.ledger is not None else None,
            moved.day_counts,
        )

    def known_from(self, step: int) -> int:
        """The step of the first of the values that `read` gives from `step` on."""
        return max(step, self.steps)

    def read(self, first_step: int, stop_step: int) -> NDArray[np.float32]:
        """(S, N) values of steps of the new axis, without those that the version does not have."""
        first = max(0, first_step - self.steps)
        return self.store.read(first, max(first, stop_step - self.steps))
