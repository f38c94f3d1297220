"""What a run leaves in the store that it trains from, and what it says of tags that have moved."""

from pathlib import Path

from flowpatch.catalogue.lineage import Event, RunNote, run_before_move, write_note
from flowpatch.errors import StoreError
from flowpatch.places.reasons import first_line
from flowpatch.progress import say
from flowpatch.store.repository import open_repository
from flowpatch.store.sample_store import SampleStore
from flowpatch.training.checkpoint import StoreReference


def note_run(store: SampleStore, reference: StoreReference, run: Path, event: Event) -> None:
    """Leaves a note of a run in its store. One that takes none is no reason not to train."""
    note = RunNote.of(run, event, reference.version, reference.content_hash, reference.tag)
    try:
        if reference.tag is not None and event == "trained":
            _say_moved_since_another(store, reference.tag)
        write_note(store.place, note)
    except (OSError, StoreError) as error:
        say(
            f"The store '{store.place}' takes no note of this run ({first_line(error)}): "
            "flowpatch samples show will not list it."
        )


def say_moved(store: SampleStore, reference: StoreReference) -> None:
    """Says so where the tag that a run was trained on names another version by now."""
    if reference.tag is None:
        return
    now = open_repository(store.place).tags().get(reference.tag)
    if now != reference.version:
        where = "is gone" if now is None else f"has moved to {now}"
        say(
            f"The tag '{reference.tag}' {where} since the run was trained: it stays on its own "
            f"version, {reference.version}."
        )


def _say_moved_since_another(store: SampleStore, tag: str) -> None:
    earlier = run_before_move(store.place, tag, store.version)
    if earlier is not None:
        say(
            f"The tag '{tag}' has moved since run '{earlier.run}': from {earlier.version} to "
            f"{store.version}."
        )
