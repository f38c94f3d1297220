"""Any history of a store, against a plain model of it: nothing is lost, mixed up or made up.

A rule does the same to the store and to the model; `check_versions` holds them side by side. To add
a rule, change `self.model` by hand and end with `self.check_current()` where values were written.
"""

import shutil
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from flowpatch.catalogue import changing
from flowpatch.catalogue.comparison import compare
from flowpatch.catalogue.copying import copy_store
from flowpatch.catalogue.expiry import Rule, expire
from flowpatch.catalogue.verification import verify
from flowpatch.errors import StoreNotFoundError
from flowpatch.places.place import place_of
from flowpatch.store.repository import Repository, open_repository
from flowpatch.store.sample_store import open_store
from tiny_stores import (
    A_DAY,
    Content,
    StoppedError,
    build,
    commit,
    content,
    some_values,
    stop_while_writing,
    update,
    writer_of,
)

TAGS = ("good", "v1.0")
MOST_VERSIONS = 6
MOST_COPIES = 4
"""Of a history: each takes longer than anything else."""
seeds = st.integers(0, 10_000)
positions = st.integers(0, MOST_VERSIONS)


@dataclass
class Model:
    """What a store should be.

    `versions` are in the order in which they were written. `draft` is the content whose writer
    stopped with its first day safe; `finished` a version whose writer died at the very last moment.
    """

    versions: dict[str, Content] = field(default_factory=dict)
    current: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    draft: Content | None = None
    finished: tuple[str, Content] | None = None

    def committed(self, version: str, wanted: Content) -> None:
        self.versions[version], self.current = wanted, version
        self.draft = self.finished = None

    def settled(self) -> None:
        """What the next change does with a version that was as good as current."""
        if self.finished is not None:
            self.committed(*self.finished)


class StoreMachine(RuleBasedStateMachine):
    """One store, from its first version on."""

    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(mkdtemp(prefix="machine"))
        self.path = self.folder / "0.store"
        self.model = Model()
        self.copies = 0

    def teardown(self) -> None:
        if self.model.versions:
            check_store(self.path, self.model)
        shutil.rmtree(self.folder)

    def picked(self, position: int) -> str:
        return list(self.model.versions)[position % len(self.model.versions)]

    def has_room(self) -> bool:
        return len(self.model.versions) < MOST_VERSIONS

    # --- versions come ------------------------------------------------------------------------

    @initialize(seed=seeds)
    def first(self, seed: int) -> None:
        wanted = content(seed)
        self.model.committed(build(self.path, wanted).version, wanted)

    @precondition(has_room)
    @rule(seed=seeds, days=st.integers(1, 4), nodes=st.integers(1, 4))
    def build_anew(self, seed: int, days: int, nodes: int) -> None:
        wanted = content(seed, days, range(1, nodes + 1))
        self.model.committed(build(self.path, wanted).version, wanted)
        self.check_current()

    @precondition(has_room)
    @rule(seed=seeds, rewritten=st.integers(0, 3), added=st.integers(0, 2), dropped=st.booleans())
    def build_on_the_current(self, seed: int, rewritten: int, added: int, dropped: bool) -> None:
        base = self.model.versions[self.model.current]
        kept = base.without(1) if dropped and base.days > 1 else base
        added = min(added, max(0, 6 - kept.days))
        days = sorted({rewritten % kept.days, *range(kept.days, kept.days + added)})
        new = some_values(seed, len(days), len(base.keys))
        wanted = kept.with_days(
            {day: new[i * A_DAY : (i + 1) * A_DAY] for i, day in enumerate(days)}
        )
        written = update(self.path, open_store(self.path), wanted, days)
        self.model.committed(written.version, wanted)
        self.check_current()

    # --- writers stop -------------------------------------------------------------------------

    @rule(seed=seeds, days=st.integers(2, 4), is_safe=st.booleans())
    def stop_while_writing(self, seed: int, days: int, is_safe: bool) -> None:
        wanted = content(seed, days)
        stop_while_writing(self.path, wanted, is_safe=is_safe)
        self.model.draft, self.model.finished = wanted if is_safe else None, None

    @precondition(lambda self: self.model.draft is not None and self.has_room())
    @rule()
    def resume(self) -> None:
        wanted = self.model.draft
        assert wanted is not None
        with writer_of(self.path, wanted, overwrite=True, resume=True) as writer:
            assert writer.safe_days == 1
            with writer.stretch(0, len(wanted.values)):
                writer.take_over(0, A_DAY)
                writer.write(A_DAY, wanted.values[A_DAY:])
            written = commit(writer, wanted)
        self.model.committed(written.version, wanted)
        self.check_current()

    @precondition(has_room)
    @rule(seed=seeds)
    def stop_between_commit_and_publication(self, seed: int) -> None:
        wanted = content(seed, 2)
        with pytest.MonkeyPatch.context() as patched:

            def stop(_: Repository, version: str) -> None:
                raise StoppedError

            patched.setattr(Repository, "publish_draft", stop)
            with (
                suppress(StoppedError),
                writer_of(self.path, wanted, overwrite=True) as writer,
            ):
                with writer.stretch(0, len(wanted.values)):
                    writer.write(0, wanted.values)
                writer.keep()
                commit(writer, wanted)
        draft = open_repository(place_of(self.path)).finished_draft()
        assert draft is not None
        self.model.draft, self.model.finished = None, (draft.version, wanted)

    # --- versions are named and looked at -----------------------------------------------------

    @rule(name=st.sampled_from(TAGS), position=positions)
    def tag(self, name: str, position: int) -> None:
        version = self.picked(position)
        done = changing.tag(self.path, name, version)
        assert (done.before, done.now) == (self.model.tags.get(name), version)
        self.model.settled()
        self.model.tags[name] = version

    @rule(name=st.sampled_from(TAGS))
    def untag(self, name: str) -> None:
        if name in self.model.tags:
            assert changing.untag(self.path, name).before == self.model.tags.pop(name)
        else:
            with pytest.raises(StoreNotFoundError, match="no tag"):
                changing.untag(self.path, name)
        self.model.settled()

    @rule(position=positions, shortened=st.booleans())
    def rollback(self, position: int, shortened: bool) -> None:
        version = self.picked(position)
        self.model.settled()
        done = changing.rollback(self.path, version[:12] if shortened else version)
        assert (done.before.version, done.now.version) == (self.model.current, version)
        self.model.current = version

    @rule(one=positions, other=positions)
    def compare(self, one: int, other: int) -> None:
        before, now = self.picked(one), self.picked(other)
        found = compare(open_store(self.path, before), open_store(self.path, now))
        check_comparison(found, self.model.versions[before], self.model.versions[now])

    # --- versions go --------------------------------------------------------------------------

    @rule(keep=st.integers(1, 4), needed=st.sets(positions, max_size=2), is_dry=st.booleans())
    def expire(self, keep: int, needed: set[int], is_dry: bool) -> None:
        runs = {self.picked(position): ["runs/a"] for position in needed}
        if not is_dry:
            self.model.settled()
        versions = list(self.model.versions)
        stays = {*versions[-keep:], self.model.current, *self.model.tags.values(), *runs}
        done = expire(self.path, Rule(keep=keep), runs, is_dry_run=is_dry)
        assert {info.version for info in done.gone} == set(versions) - stays
        assert {kept.info.version for kept in done.kept} == stays
        if not is_dry:
            assert done.has_unfinished == (self.model.draft is not None)
            self.model.versions = {v: c for v, c in self.model.versions.items() if v in stays}
            self.model.draft = None
            check_store(self.path, self.model)

    @precondition(lambda self: self.copies < MOST_COPIES)
    @rule(goes_on=st.booleans())
    def copy(self, goes_on: bool) -> None:
        copied = self.folder / f"{int(self.path.stem) + 1}.store"
        # One that is there is of an earlier state, and has perhaps what is gone by now.
        copy_store(self.path, copied, overwrite=True)
        self.copies += 1
        check_names(copied, replace(self.model, draft=None, finished=None))
        if goes_on:
            # The rest of its life the store is the copy.
            self.path = copied
            self.model.draft = self.model.finished = None

    # --- what must hold -----------------------------------------------------------------------

    @invariant()
    def names_are_those_of_the_model(self) -> None:
        StoreMachine.steps += 1
        if self.model.versions:
            check_names(self.path, self.model)

    def check_current(self) -> None:
        check_names(self.path, self.model)
        check_version(self.path, self.model.current, self.model.versions[self.model.current])


def check_names(path: Path, model: Model) -> None:
    repository = open_repository(place_of(path))
    assert [info.version for info in repository.versions()] == list(model.versions)[::-1]
    assert repository.find().version == model.current
    assert repository.tags() == model.tags
    assert (repository.draft() is not None) == bool(model.draft or model.finished)


def check_version(path: Path, version: str, wanted: Content) -> None:
    """It opens, and gives the values of the model bit for bit."""
    store = open_store(path, version)
    assert np.array_equal(store.read(), wanted.values, equal_nan=True)
    assert (store.axis, store.splits) == (wanted.axis, wanted.splits)
    assert store.nodes.fingerprint() == wanted.nodes.fingerprint()


def check_store(path: Path, model: Model) -> None:
    """Every version is what it was, its hashes too and all that is kept beside its values."""
    check_names(path, model)
    assert [one.version for one in verify(path, all_versions=True)] == list(model.versions)[::-1]
    for version, wanted in model.versions.items():
        check_version(path, version, wanted)


def check_comparison(found: Any, before: Content, now: Content) -> None:
    old, new = before.dates(), now.dates()
    assert list(found.changes.days_added) == [day for day in new if day not in old]
    assert list(found.changes.days_dropped) == [day for day in old if day not in new]
    keys = [key for key in before.keys if key in now.keys]
    differing, changed = 0, []
    for day in (day for day in old if day in new):
        one, other = (
            side.day(side.dates().index(day))[:, [side.keys.index(key) for key in keys]]
            for side in (before, now)
        )
        different = ~((one == other) | (np.isnan(one) & np.isnan(other)))
        differing += int(different.sum())
        changed += [day] if different.any() else []
    assert list(found.days_changed) == changed
    assert found.cells.differing == differing
    assert found.cells.compared == len(keys) * A_DAY * len(set(old) & set(new))


def run(monkeypatch: pytest.MonkeyPatch, histories: int, length: int) -> int:
    """Runs so many histories of so many steps; gives how many steps there were."""
    # One day a chunk, so that a store of a few days has several.
    monkeypatch.setattr("flowpatch.store.arrays.BLOCK_BYTES", 1)
    StoreMachine.steps = 0
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=histories,
            stateful_step_count=length,
            suppress_health_check=list(HealthCheck),
        ),
    )
    return StoreMachine.steps


@pytest.mark.parametrize("half", [1, 2])
def test_histories_of_a_store(half: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In two halves, so that two workers share them."""
    assert run(monkeypatch, histories=22, length=32) >= 500


@pytest.mark.soak
def test_many_long_histories_of_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, histories=200, length=60) >= 10_000
