"""expire: what a rule and its exceptions keep, and nothing but what nobody keeps goes."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowpatch.catalogue import changing
from flowpatch.catalogue.expiry import Rule, expire
from flowpatch.catalogue.lineage import RunNote, read_notes, write_note
from flowpatch.errors import SettingsError
from flowpatch.places.place import place_of
from flowpatch.store.repository import open_repository
from flowpatch.store.sample_store import open_store
from tiny_stores import build, content, stop_while_writing


@given(
    keep=st.none() | st.integers(1, 9),
    days=st.none() | st.integers(0, 9),
    position=st.integers(0, 12),
    age=st.integers(0, 12),
)
def test_a_rule_keeps_the_newest_and_the_young(
    keep: int | None, days: int | None, position: int, age: int
) -> None:
    if keep is None and days is None:
        with pytest.raises(SettingsError, match="--keep"):
            Rule(keep, days)
        return
    goes = not Rule(keep, days).reasons(position, timedelta(days=age))
    assert goes == ((keep is None or position >= keep) and (days is None or not age <= days))


def test_notes_of_runs_outlive_what_is_collected(tmp_path: Path) -> None:
    versions = [build(tmp_path / "s", content(seed)).version for seed in range(3)]
    place = place_of(tmp_path / "s")
    notes = [RunNote.of(f"runs/{version}", "trained", version, "h") for version in versions]
    for note in notes:
        write_note(place, note)
    assert len(expire(place, Rule(keep=1)).gone) == 2
    assert {note.version for note in read_notes(place)} == set(versions)
    assert (tmp_path / "s" / notes[0].name).is_file()


def test_what_a_stopped_build_left_goes(tmp_path: Path) -> None:
    path = tmp_path / "s"
    build(path, content())
    stop_while_writing(path, content(1))
    before = place_of(path).total_bytes()
    assert expire(path, Rule(keep=5), is_dry_run=True).has_unfinished
    assert open_repository(place_of(path)).draft() is not None
    done = expire(path, Rule(keep=5))
    assert (done.gone, done.has_unfinished) == ((), True)
    assert done.bytes_freed == before - place_of(path).total_bytes() > 0
    assert open_repository(place_of(path)).draft() is None
    assert np.array_equal(open_store(path).read(), content().values, equal_nan=True)


def test_going_back_does_not_come_undone(tmp_path: Path) -> None:
    """By a version whose writer died before it was made current."""
    path = tmp_path / "s"
    first, second = (build(path, content(seed)).version for seed in range(2))
    open_repository(place_of(path)).begin_draft()
    changing.rollback(path, first)
    from flowpatch.store.writer import publish_finished

    publish_finished(place_of(path))
    assert open_store(path).version == first
    assert second in [info.version for info in open_store(path).versions()]
