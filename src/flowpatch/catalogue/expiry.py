"""Expiry: old versions go, and with them what only they hold; what anybody relies on stays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flowpatch.catalogue.changing import changing
from flowpatch.errors import SettingsError
from flowpatch.places.place import Place, place_of
from flowpatch.store.repository import Repository, VersionInfo, open_repository, reading


@dataclass(frozen=True)
class Rule:
    """Which versions may go: all but the newest `keep`, and of them those `older_than_days`.

    Raises:
        SettingsError: neither is given, or one is out of range.
    """

    keep: int | None = None
    older_than_days: float | None = None

    def __post_init__(self) -> None:
        if self.keep is None and self.older_than_days is None:
            raise SettingsError("Say what may go: --keep N versions, --older-than DAYS, or both.")
        if self.keep is not None and self.keep < 1:
            raise SettingsError(f"Bad value '{self.keep}' for keep: it must be 1 or more.")
        if self.older_than_days is not None and not 0 <= self.older_than_days < 1e6:
            raise SettingsError(
                f"Bad value '{self.older_than_days}' for older_than: it must be a number of days, "
                "0 or more."
            )

    def reasons(self, position: int, age: timedelta) -> list[str]:
        """Why the version stays that is `position`-th newest, from 0; none if it may go."""
        if self.keep is not None and position < self.keep:
            return [f"one of the newest {self.keep}"]
        if self.older_than_days is not None and age <= timedelta(days=self.older_than_days):
            return [f"not older than {self.older_than_days:g} days"]
        return []


@dataclass(frozen=True)
class Kept:
    """A version that stays, and why."""

    info: VersionInfo
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Expiry:
    """What an expiry did, or with `is_dry_run` would do. Versions are newest first.

    `has_unfinished` says that a build that was stopped had left something, which goes too.
    `bytes_freed` is None in a dry run: versions share what they have in common.
    """

    place: str
    is_dry_run: bool
    gone: tuple[VersionInfo, ...]
    kept: tuple[Kept, ...]
    has_unfinished: bool
    bytes_freed: int | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "path": self.place,
            "dry_run": self.is_dry_run,
            "expired": [info.version for info in self.gone],
            "kept": [
                {"version": kept.info.version, "reasons": list(kept.reasons)} for kept in self.kept
            ],
            "unfinished": self.has_unfinished,
            "bytes_freed": self.bytes_freed,
        }


Users = Mapping[str, Sequence[str]]
"""The runs that need a version, by its id."""


def expire(
    address: str | Path | Place,
    rule: Rule,
    needed_by: Users | None = None,
    *,
    is_dry_run: bool = False,
) -> Expiry:
    """Forgets versions that the rule does not keep, and what stopped builds left.

    The current version stays, those that have a tag, and those that runs need.

    Raises:
        StoreNotFoundError: no store is there, or no finished version.
        StoreLockedError: another process is writing it.
        StoreWriteError: a write was refused; every version that stays is whole.
    """
    needed_by = needed_by or {}
    if is_dry_run:
        return _plan(open_repository(place_of(address)), rule, needed_by)
    with changing(address) as repository:
        plan = _plan(repository, rule, needed_by)
        before = repository.place.total_bytes()
        repository.drop({info.version for info in plan.gone})
        freed = before - repository.place.total_bytes()
    return Expiry(plan.place, False, plan.gone, plan.kept, plan.has_unfinished, freed)


def _plan(repository: Repository, rule: Rule, needed_by: Users) -> Expiry:
    current, versions, tags = repository.find(), repository.versions(), repository.tags()
    now = datetime.now(UTC)
    gone, kept = [], []
    for position, info in enumerate(versions):
        reasons = ["current"] if info == current else []
        reasons += [f"tag '{name}'" for name, tagged in tags.items() if tagged == info.version]
        reasons += [f"run '{run}'" for run in needed_by.get(info.version, ())]
        reasons += rule.reasons(position, now - info.written_at)
        if reasons:
            kept.append(Kept(info, tuple(reasons)))
        else:
            gone.append(info)
    with reading(repository.place):
        has_unfinished = repository.draft() is not None and repository.finished_draft() is None
    place = str(repository.place)
    return Expiry(place, True, tuple(gone), tuple(kept), has_unfinished, None)
