"""Stores of a few cells, for tests of what happens to versions."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flowpatch.series.nodes import NodeTable
from flowpatch.series.splits import Splits
from flowpatch.store.draft import Origin
from flowpatch.store.sample_store import SampleStore
from flowpatch.store.writer import StoreWriter
from flowpatch.time_axis import TimeAxis

STEP_MINUTES = 360
A_DAY = 4
FIRST_DAY = np.datetime64("2025-03-03")


@dataclass(frozen=True)
class Content:
    """What a version holds, as plain values: (T, N), keys of nodes, and days behind FIRST_DAY."""

    values: np.ndarray
    keys: tuple[int, ...]
    first: int = 0
    shift: float = 0.0

    @property
    def days(self) -> int:
        return len(self.values) // A_DAY

    @property
    def axis(self) -> TimeAxis:
        return TimeAxis.of_days(
            FIRST_DAY + np.timedelta64(self.first, "D"), self.days, STEP_MINUTES
        )

    @property
    def nodes(self) -> NodeTable:
        keys = np.array(self.keys, dtype=np.int64)
        return NodeTable(("sensor_id",), (keys,), 50 + keys / 7 + self.shift, 10 - keys / 7)

    @property
    def splits(self) -> Splits:
        steps = len(self.values)
        return Splits(0, steps // 2, steps * 3 // 4, steps)

    def day(self, day: int) -> np.ndarray:
        return self.values[day * A_DAY : (day + 1) * A_DAY]

    def dates(self) -> list[str]:
        days = np.timedelta64(1, "D") * np.arange(self.first, self.first + self.days)
        return [str(day) for day in FIRST_DAY + days]

    def with_days(self, new: dict[int, np.ndarray]) -> "Content":
        """The same with the values of some days replaced; days behind the last are added."""
        stop = max([self.days, *(day + 1 for day in new)])
        values = np.concatenate([new[day] if day in new else self.day(day) for day in range(stop)])
        return Content(values, self.keys, self.first, self.shift)

    def without(self, days: int) -> "Content":
        """The same without its first days."""
        return Content(self.values[days * A_DAY :], self.keys, self.first + days, self.shift)


def some_values(seed: int, days: int, nodes: int) -> np.ndarray:
    """Values with gaps; the first node is observed at the beginning of each day."""
    random = np.random.default_rng(seed)
    values = random.integers(0, 50, (days * A_DAY, nodes)).astype(np.float32)
    values[random.random(values.shape) < 0.2] = np.nan
    values[::A_DAY, 0] = 1 + seed % 7
    return values


def content(seed: int = 0, days: int = 3, keys: Sequence[int] = (1, 2, 3)) -> Content:
    return Content(some_values(seed, days, len(keys)), tuple(keys))


def writer_of(path: Any, wanted: Content, recipe: Any = None, **options: Any) -> StoreWriter:
    base = options.get("base")
    origin = Origin(
        recipe or {"aggregate": "mean"}, {"kind": "test"}, wanted.axis.to_json(),
        wanted.nodes.fingerprint(), base and base.version,
    )  # fmt: skip
    return StoreWriter(path, wanted.axis, wanted.nodes, origin, **options)


def commit(writer: StoreWriter, wanted: Content) -> SampleStore:
    return writer.commit(
        input_len=2, output_len=1, counts=writer.counts(), nodes_without_coordinates=0,
        splits=wanted.splits,
    )  # fmt: skip


def build(path: Path, wanted: Content, recipe: Any = None, **options: Any) -> SampleStore:
    """A version from nothing, whatever was there."""
    with writer_of(path, wanted, recipe, overwrite=True, **options) as writer:
        with writer.stretch(0, len(wanted.values)):
            for first in range(0, len(wanted.values), writer.block_steps):
                writer.write(first, wanted.values[first : first + writer.block_steps])
        return commit(writer, wanted)


class StoppedError(Exception):
    """What stops a writer in a test."""


def stop_while_writing(path: Path, wanted: Content, *, is_safe: bool = True) -> None:
    """A build that stops in its second day, the first one made safe or not."""
    with (
        suppress(StoppedError),
        writer_of(path, wanted, overwrite=True) as writer,
        writer.stretch(0, len(wanted.values)),
    ):
        writer.write(0, wanted.day(0))
        if is_safe:
            writer.keep()
            writer.write(A_DAY, wanted.day(1))
        raise StoppedError


def update(path: Path, base: SampleStore, wanted: Content, days: Sequence[int]) -> SampleStore:
    """A version on the current one, of which only `days` are written.

    Days before its first one are looked at once more, so that nothing of them is left behind.
    """
    dropped = wanted.axis.step_of(base.axis.start) // A_DAY
    with writer_of(path, wanted, base=base) as writer:
        for first, stop in _runs(sorted({*range(dropped, 0), *days})):
            with writer.stretch(first * A_DAY, stop * A_DAY):
                for day in range(max(0, first), stop):
                    writer.write(day * A_DAY, wanted.day(day))
        return commit(writer, wanted)


def _runs(days: Sequence[int]) -> list[tuple[int, int]]:
    """First and stop day of each run of days in a row."""
    first = [day for day in days if day - 1 not in days]
    last = [day for day in days if day + 1 not in days]
    return [(one, other + 1) for one, other in zip(first, last, strict=True)]
