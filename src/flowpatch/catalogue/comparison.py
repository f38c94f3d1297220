"""Two versions side by side: days, nodes, cells, coverage, statistics, splits, settings.

Values are read only of days that may differ.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowpatch.catalogue.changes import (
    Changes,
    Shared,
    changes,
    days_of,
    hashes_tell,
    shared_nodes,
)
from flowpatch.progress import track
from flowpatch.store.sample_store import SampleStore


@dataclass(frozen=True)
class Cells:
    """Cells of the days and nodes that both versions have.

    `differing` is the sum of the next three: observed in the second version only, in the first
    only, in both with another value. `largest_change` is of the latter, in the unit of the values.
    """

    compared: int = 0
    appeared: int = 0
    vanished: int = 0
    changed: int = 0
    largest_change: float = 0.0

    @property
    def differing(self) -> int:
        """How many differ in any way."""
        return self.appeared + self.vanished + self.changed

    @property
    def share(self) -> float:
        """`differing` of `compared`, 0 to 1."""
        return self.differing / max(1, self.compared)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "differing": self.differing, "share": self.share}


@dataclass(frozen=True)
class Side:
    """One of the two versions; `splits` are instants, each the first one behind the border."""

    place: str
    version: str
    content_hash: str
    period: dict[str, Any]
    nodes: int
    coverage: float
    statistics: dict[str, Any]
    splits: dict[str, str]

    @classmethod
    def of(cls, store: SampleStore) -> "Side":
        """What is compared of a version as a whole."""
        manifest, axis = store.manifest, store.axis
        return cls(
            str(store.place),
            store.version,
            manifest.content_hash,
            axis.to_json(),
            manifest.nodes,
            manifest.quality.coverage,
            manifest.statistics.to_json(),
            {name: str(axis.instant_of(step)) for name, step in manifest.splits.to_json().items()},
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        content = asdict(self)
        return {"path": content.pop("place"), **content}


@dataclass(frozen=True)
class Comparison:
    """From `before` to `now`.

    `days_changed` are days that both have, with other values in nodes that both have; it and
    `cells` are None where the steps of both have other lengths. `settings` holds, of each setting
    of the recipe that differs, the value before and now.
    """

    before: Side
    now: Side
    changes: Changes
    days_changed: tuple[str, ...] | None
    cells: Cells | None
    settings: dict[str, tuple[Any, Any]]

    @property
    def is_same(self) -> bool:
        """Whether both hold the same content."""
        return self.before.content_hash == self.now.content_hash

    def to_json(self) -> dict[str, Any]:
        """Plain values; lists of two are before and now."""
        changes = self.changes
        return {
            "before": self.before.to_json(),
            "now": self.now.to_json(),
            "same_content": self.is_same,
            "days": {
                "added": list(changes.days_added),
                "dropped": list(changes.days_dropped),
                "changed": None if self.days_changed is None else list(self.days_changed),
            },
            "nodes": {
                "added": list(changes.nodes_added),
                "gone": list(changes.nodes_gone),
                "moved": list(changes.nodes_moved),
            },
            "cells": None if self.cells is None else self.cells.to_json(),
            "settings": {name: list(values) for name, values in self.settings.items()},
        }


def compare(before: SampleStore, now: SampleStore) -> Comparison:
    """What differs between two versions, of one store or of two.

    Raises:
        StoreDamagedError: a value of a day that differs cannot be read.
    """
    days, cells = None, None
    if before.axis.step_minutes == now.axis.step_minutes:
        days, cells = _compare_values(before, now)
    return Comparison(
        Side.of(before), Side.of(now), changes(before, now), days, cells, _settings(before, now)
    )


def _compare_values(before: SampleStore, now: SampleStore) -> tuple[tuple[str, ...], Cells]:
    old, new = days_of(before.manifest), days_of(now.manifest)
    common = [day for day in old if day in new]
    both = shared_nodes(before.nodes, now.nodes)
    known_equal = hashes_tell(before, now)
    looked_at = [day for day in common if not (known_equal and old[day] == new[day])]
    found = {}
    with track("compare", total=len(looked_at), unit="days") as task:
        for day in looked_at:
            found[day] = _compare_day(before, now, day, both)
            task.advance()
    # Equal values may have different hashes no more than different values equal ones, but where
    # nodes came or went a day is changed only if a node that stayed is.
    changed = tuple(day for day, cells in found.items() if cells.differing)
    compared = len(common) * before.axis.steps_a_day * len(both.now)
    return changed, _sum(compared, found.values())


def _compare_day(before: SampleStore, now: SampleStore, day: str, both: Shared) -> Cells:
    old = _read_day(before, day)[:, both.before]
    new = _read_day(now, day)[:, both.now]
    was, is_now = ~np.isnan(old), ~np.isnan(new)
    other = was & is_now & (old != new)
    by = np.abs(new[other].astype(np.float64) - old[other])
    return Cells(
        old.size,
        int((is_now & ~was).sum()),
        int((was & ~is_now).sum()),
        int(other.sum()),
        float(by.max(initial=0.0)),
    )


def _read_day(store: SampleStore, day: str) -> NDArray[np.float32]:
    first = store.axis.step_of(np.datetime64(day))
    return store.read(first, first + store.axis.steps_a_day)


def _sum(compared: int, parts: Any) -> Cells:
    parts = list(parts)
    return Cells(
        compared,
        sum(part.appeared for part in parts),
        sum(part.vanished for part in parts),
        sum(part.changed for part in parts),
        max((part.largest_change for part in parts), default=0.0),
    )


def _settings(before: SampleStore, now: SampleStore) -> dict[str, tuple[Any, Any]]:
    old, new = before.manifest.recipe, now.manifest.recipe
    return {
        name: (old.get(name), new.get(name))
        for name in sorted({**old, **new})
        if old.get(name) != new.get(name)
    }
