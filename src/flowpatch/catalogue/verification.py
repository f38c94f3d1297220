"""Verification: a version read whole, and everything that can be known of it computed again.

The values of each day against its hash; nodes, splits and statistics, with those hashes, against
the content hash; what is kept of steps, days and nodes against what the values give.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowpatch.errors import StoreDamagedError, StoreError
from flowpatch.places.place import Place, place_of
from flowpatch.places.reasons import first_line
from flowpatch.progress import track
from flowpatch.series.dense import COUNTED_BY_DAY
from flowpatch.series.quality import QualityScan
from flowpatch.store.arrays import LEDGER_DIMENSIONS, block_days, key_array_names
from flowpatch.store.facts import BlockFacts
from flowpatch.store.ledger import Ledger
from flowpatch.store.manifest import hash_content
from flowpatch.store.repository import open_repository
from flowpatch.store.sample_store import SampleStore

_STEPS = ("step_count", "step_mean", "step_m2")
_TOLERANCE = 1e-5
"""Relative, of sums: another processor may add in another order."""


@dataclass(frozen=True)
class Verification:
    """A version that is whole: what was read of it, and what was checked."""

    place: str
    version: str
    content_hash: str
    format: int
    days: int
    nodes: int
    cells: int
    checked: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "path": self.place,
            "version": self.version,
            "content_hash": self.content_hash,
            "format": self.format,
            "days": self.days,
            "nodes": self.nodes,
            "cells": self.cells,
            "checked": list(self.checked),
        }


@dataclass
class _Report:
    checked: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)


def verify(
    address: str | Path | Place, version: str | None = None, *, all_versions: bool = False
) -> list[Verification]:
    """Reads everything of a version, by default the current one, or of all versions.

    Returns:
        One verification a version, newest first.

    Raises:
        StoreNotFoundError: no store, or no such version.
        StoreFormatError: a newer flowpatch wrote it.
        StoreDamagedError: something is not what was written; the message names all of it.
    """
    repository = open_repository(place_of(address))
    versions = repository.versions() if all_versions else [repository.find(version)]
    if not versions:
        # Says why there is none.
        repository.find()
    done, damage = list[Verification](), list[str]()
    for info in versions:
        try:
            store = SampleStore(repository, info.version)
            if store.manifest.content_hash != info.content_hash:
                raise StoreDamagedError("its manifest is that of another version")
            done.append(verify_version(store))
        except StoreDamagedError as error:
            if not all_versions:
                raise
            damage.append(str(error))
    if damage:
        raise StoreDamagedError("\n".join(damage))
    return done


def verify_version(store: SampleStore) -> Verification:
    """Reads everything of an open version.

    Raises:
        StoreDamagedError: something is not what was written; the message names all of it.
    """
    report = _Report()
    ledger = Ledger.empty(store.axis, store.manifest.nodes)
    quality = QualityScan(store.axis, store.manifest.nodes, ledger.findings)
    _check_values(store, ledger, quality, report)
    _check_nodes(store, report)
    _check_time(store, report)
    if not report.damage:
        # They follow from the values and the nodes, which are right.
        _check_content(store, ledger, report)
        _check_ledger(store, ledger, report)
        _check_quality(store, quality, report)
    if report.damage:
        raise StoreDamagedError(
            f"Version {store.version} of '{store.place}' is damaged: {'; '.join(report.damage)}. "
            "Take another version (flowpatch samples rollback) or a copy, or build it again."
        )
    manifest = store.manifest
    return Verification(
        str(store.place),
        store.version,
        manifest.content_hash,
        manifest.format,
        store.axis.days,
        manifest.nodes,
        store.axis.length * manifest.nodes,
        tuple(report.checked),
    )


def _check_values(
    store: SampleStore, ledger: Ledger, quality: QualityScan, report: _Report
) -> None:
    axis, known = store.axis, store.manifest.day_hashes
    if len(known) != axis.days:
        report.damage.append(f"its manifest has {len(known)} hashes of {axis.days} days")
        return
    with track("verify", total=axis.days, unit="days") as task:
        for days in _blocks(store):
            for day, found in zip(days, _look(store, days, ledger, quality, report), strict=False):
                if found != known[day]:
                    report.damage.append(f"the values of {_date(store, day)} have another hash")
            task.advance(len(days))
    report.checked.append(f"values of {axis.days:,} days")


def _look(
    store: SampleStore, days: range, ledger: Ledger, quality: QualityScan, report: _Report
) -> list[str]:
    """The hashes of days; none where they cannot be read, which is reported."""
    a_day = store.axis.steps_a_day
    first_step = days.start * a_day
    try:
        values = store.read(first_step, days.stop * a_day)
    except StoreDamagedError as error:
        dates = " to ".join(dict.fromkeys(_date(store, day) for day in (days[0], days[-1])))
        report.damage.append(f"the values of {dates} cannot be read ({_reason(error)})")
        return []
    facts = BlockFacts.of(store.axis, first_step, values)
    quality.add(facts.found)
    ledger.add(facts)
    return facts.day_hashes


def _check_nodes(store: SampleStore, report: _Report) -> None:
    try:
        nodes = store.nodes
        names = key_array_names(store.manifest.key_columns)
        labels = store.array("node")
    except StoreError as error:
        report.damage.append(f"the node table cannot be read ({_reason(error)})")
        return
    if len(names) > 1 and labels.tolist() != nodes.labels.tolist():
        report.damage.append("the labels of the nodes are not those of their keys")
    report.checked.append(f"{len(nodes):,} nodes")


def _check_time(store: SampleStore, report: _Report) -> None:
    try:
        minutes = store.array("time")
    except StoreError as error:
        report.damage.append(f"the time axis cannot be read ({_reason(error)})")
        return
    if not np.array_equal(minutes, np.arange(store.axis.length) * store.axis.step_minutes):
        report.damage.append("the array 'time' is not the time axis of its manifest")
    report.checked.append(f"{store.axis.length:,} steps")


def _check_content(store: SampleStore, ledger: Ledger, report: _Report) -> None:
    manifest, splits = store.manifest, store.splits
    if splits.stop > store.axis.length:
        report.damage.append("the splits reach behind the last step")
        return
    found = ledger.moments.statistics(*splits.bounds("train"))
    if not _agree(found.to_json(), manifest.statistics.to_json()):
        report.damage.append("the statistics are not those of the training values")
    report.checked += ["splits", "statistics"]
    content = hash_content(store.axis, store.nodes, splits, manifest.statistics, ledger.day_hashes)
    if content != manifest.content_hash:
        report.damage.append("the content hash is another one: nodes, splits or statistics differ")
    report.checked.append("content hash")


def _check_ledger(store: SampleStore, ledger: Ledger, report: _Report) -> None:
    expected = ledger.to_arrays()
    names = _STEPS if store.manifest.format == 1 else tuple(LEDGER_DIMENSIONS)
    for name in names:
        try:
            found, wanted = store.array(name), expected[name]
        except StoreError as error:
            report.damage.append(f"the array '{name}' cannot be read ({_reason(error)})")
            continue
        if name == "day_counts":
            # How many records made them, the values do not tell.
            found, wanted = found[:, len(COUNTED_BY_DAY) :], wanted[:, len(COUNTED_BY_DAY) :]
        if not _are_close(found, wanted):
            report.damage.append(f"the array '{name}' is not what the values give")
        report.checked.append(name)


def _check_quality(store: SampleStore, quality: QualityScan, report: _Report) -> None:
    if store.manifest.format == 1:
        # Its findings were counted by rules of their time.
        return
    if not _agree(quality.quality().to_json(), store.manifest.quality.to_json()):
        report.damage.append("the findings of its manifest are not those of the values")
    report.checked.append("quality")


def _agree(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return found.keys() == wanted.keys() and all(
        value == wanted[name]
        or (isinstance(value, float) and _are_close(np.array(wanted[name]), np.array(value)))
        for name, value in found.items()
    )


def _are_close(found: NDArray[Any], wanted: NDArray[Any]) -> bool:
    if found.shape != wanted.shape:
        return False
    if wanted.dtype.kind != "f":
        return bool(np.array_equal(found, wanted))
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    # Values near the largest float overflow in their squares, in both alike.
    with np.errstate(all="ignore"):
        finite = wanted[np.isfinite(wanted)]
        margin = _TOLERANCE * float(np.abs(finite).max(initial=0.0)) * _TOLERANCE
        same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
        near = np.abs(found - wanted) <= _TOLERANCE * np.abs(wanted) + margin
    return bool((same | near).all())


def _blocks(store: SampleStore) -> Iterator[range]:
    """The days of each block as it was written."""
    step = block_days(store.axis, store.manifest.nodes)
    for first in range(0, store.axis.days, step):
        yield range(first, min(store.axis.days, first + step))


def _date(store: SampleStore, day: int) -> str:
    return str(store.axis.instant_of(day * store.axis.steps_a_day).astype("datetime64[D]"))


def _reason(error: StoreError) -> str:
    """What is behind an error that is about the store as a whole."""
    cause = error.__cause__
    return first_line(cause) if isinstance(cause, Exception) else str(error)
