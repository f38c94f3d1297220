"""kill -9 at random moments: no version is lost, and --resume ends as if nothing had happened."""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import zarr

from command_forker import Commands, Ended
from flowpatch.errors import StoreNotFoundError
from flowpatch.places.place import place_of
from flowpatch.store.draft import ATTRIBUTE
from flowpatch.store.repository import has_version, open_repository
from flowpatch.store.sample_store import open_store
from growing_city import Grown, hashes_of

SEED = 20250919
ROUNDS = 2


@dataclass(frozen=True)
class Work:
    """A command that writes a version: a first build, or an update of what was there."""

    name: str
    command: Callable[[Grown, Path], list[str]]
    begin: Callable[[Grown, Path], object]

    def versions_before(self, grown: Grown) -> list[str]:
        return [grown.hash_before] if self.name == "update" else []


WORKS = {
    "build": Work("build", lambda grown, store: grown.city.command(store), lambda *_: None),
    "update": Work("update", lambda _, store: ["update", str(store)], Grown.store_before),
}
works = pytest.mark.parametrize("work", WORKS.values(), ids=list(WORKS))


def seconds_of(work: Work, grown: Grown, folder: Path, commands: Commands) -> float:
    """How long the command takes if nobody kills it."""
    taken = []
    for number in range(3):
        store = folder / f"timed-{number}"
        work.begin(grown, store)
        ended = commands.run(work.command(grown, store))
        assert ended.code == 0, ended.said
        taken.append(ended.seconds)
    return median(taken)


def state_after_a_kill(work: Work, grown: Grown, store: Path) -> str:
    """What a reader finds: the versions that were there, the new one too, or none of a first build.

    The hash of each is computed from its values.
    """
    before = work.versions_before(grown)
    if not before and holds_no_version(store):
        with pytest.raises(StoreNotFoundError, match=r"no finished version|o sample store"):
            open_store(store)
        found = []
    else:
        found = list(hashes_of(store).values())
    assert found in (before, [grown.hash_after, *before]), found
    if len(found) > len(before):
        return "finished"
    return f"{safe_days(store)} days safe"


def holds_no_version(store: Path) -> bool:
    return not has_version(place_of(store))


def draft_of(store: Path) -> str | None:
    place = place_of(store)
    return open_repository(place).draft() if place.holds_store() else None


def safe_days(store: Path) -> int:
    """Days of the draft beside the versions, 0 where there is none."""
    draft = draft_of(store)
    if draft is None:
        return 0
    session = open_repository(place_of(store)).session(draft)
    group = zarr.open_group(session.store, mode="r")
    content: Any = group.attrs.get(ATTRIBUTE, {"day_hashes": ()})
    return len(content["day_hashes"])


def check_resumed(work: Work, grown: Grown, store: Path, ended: Ended) -> None:
    assert ended.code == 0, ended.said
    assert list(hashes_of(store).values()) == [grown.hash_after, *work.versions_before(grown)]
    assert draft_of(store) is None, "nothing unfinished is left"


@works
@pytest.mark.parametrize("kills", [10, pytest.param(50, marks=pytest.mark.soak)])
def test_killed_at_any_moment(
    work: Work, kills: int, grown: Grown, commands: Commands, tmp_path: Path
) -> None:
    longest = 1.05 * seconds_of(work, grown, tmp_path, commands)
    moments = np.random.default_rng(SEED).uniform(0, longest, kills)
    states = Counter[str]()
    for number, moment in enumerate(moments):
        store = tmp_path / f"{number}.store"
        work.begin(grown, store)
        commands.run_for(moment, work.command(grown, store))
        states[state_after_a_kill(work, grown, store)] += 1
        ended = commands.run([*work.command(grown, store), "--resume"])
        check_resumed(work, grown, store, ended)
        shutil.rmtree(store)
    print(
        f"\n{work.name} killed at {kills} moments within {longest:.2f} s, seed {SEED}: "
        f"{states.total()} of {kills} as before or finished and resumed to the right hash; "
        f"{dict(states)}"
    )
    assert states.total() == kills
    assert len(states) > 2, "the moments were all alike"


@works
def test_the_resume_is_killed_as_well(
    work: Work, grown: Grown, commands: Commands, tmp_path: Path
) -> None:
    longest = seconds_of(work, grown, tmp_path, commands)
    generator = np.random.default_rng([SEED, 1])
    kills = 0
    for number in range(ROUNDS):
        store = tmp_path / f"{number}.store"
        work.begin(grown, store)
        safe = 0
        commands.run_for(generator.uniform(0, longest), work.command(grown, store))
        for moment in generator.uniform(0, longest / 2, 4):
            ended = commands.run_for(moment, [*work.command(grown, store), "--resume"])
            kills += ended.is_killed
            if state_after_a_kill(work, grown, store) == "finished":
                break
            assert safe_days(store) >= safe, "what was safe stays so"
            safe = safe_days(store)
        ended = commands.run([*work.command(grown, store), "--resume"])
        check_resumed(work, grown, store, ended)
    print(f"\n{work.name}: {ROUNDS} of {ROUNDS} finished, after {kills} kills of their resumes")
    assert kills >= ROUNDS


@works
@pytest.mark.parametrize(
    "step",
    [
        "flowpatch.store.repository:Repository.publish_draft",
        "flowpatch.store.repository:Repository.make_current",
        "icechunk:Repository.delete_branch",
    ],
)
def test_killed_between_the_commit_and_the_publication(
    work: Work, step: str, grown: Grown, commands: Commands, tmp_path: Path
) -> None:
    store = tmp_path / "s"
    work.begin(grown, store)
    assert commands.run(work.command(grown, store), signal_at=step).is_killed
    # A branch is deleted once the version is the current one.
    is_published = step.endswith("delete_branch")
    found = state_after_a_kill(work, grown, store)
    assert (found == "finished") == is_published
    committed = open_store(store).version if is_published else draft_of(store)
    ended = commands.run([*work.command(grown, store), "--resume"])
    check_resumed(work, grown, store, ended)
    # Published and not built again: a build would have another id.
    assert open_store(store).version == committed
    assert "safe already" not in ended.said
