"""A store of any values, and windows over it of every kind, for tests."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from flowpatch.series.statistics import Statistics
from flowpatch.store.sample_store import SampleStore
from flowpatch.time_axis import TimeAxis
from flowpatch.windows.batches import Windows
from flowpatch.windows.in_memory import InMemory
from flowpatch.windows.missing import Missing
from flowpatch.windows.residence import BlockPlan
from flowpatch.windows.streaming import Streamed
from flowpatch.windows.transfer import Transferred

Kind = Literal["in memory", "streamed", "transferred"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class PlainStore:
    """What windows ask of a store, over values in memory."""

    def __init__(self, values: NDArray[np.float32], axis: TimeAxis, statistics: Statistics) -> None:
        self.axis, self.statistics = axis, statistics
        self.manifest = SimpleNamespace(nodes=values.shape[1])
        self._values = values

    def read_into(self, values: NDArray[np.float32], first_step: int) -> None:
        values[:] = self._values[first_step : first_step + len(values)]

    def days(self, first: int, stop: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        for day in range(first, stop, self.axis.steps_a_day):
            yield day, self._values[day : min(day + self.axis.steps_a_day, stop)]


def streamed(store: PlainStore, plan: BlockPlan, *lengths: int, missing: Missing) -> Streamed:
    return Streamed(cast(SampleStore, store), plan, *lengths, missing)


def windows_of_kind(
    kind: Kind,
    values: NDArray[np.float32],
    axis: TimeAxis,
    statistics: Statistics,
    input_len: int,
    output_len: int,
    missing: Missing = "last",
    plan: BlockPlan | None = None,
) -> Windows:
    """Windows over the same values, whichever way they come."""
    if kind == "in memory":
        return InMemory(values, axis, statistics, input_len, output_len, missing)
    plan = plan or BlockPlan(5, 3)
    store = PlainStore(values, axis, statistics)
    host = streamed(store, plan, input_len, output_len, missing=missing)
    return host if kind == "streamed" else Transferred(host, torch.device("cpu"))


def fewest_reads(order: list[int], slots: int) -> int:
    """What an oracle needs: it throws out what is needed latest (Belady 1966)."""
    held: set[int] = set()
    reads = 0
    for position, block in enumerate(order):
        if block in held:
            continue
        reads += 1
        if len(held) == slots:
            rest = order[position:]
            held.remove(max(held, key=lambda one: rest.index(one) if one in rest else len(rest)))
        held.add(block)
    return reads
