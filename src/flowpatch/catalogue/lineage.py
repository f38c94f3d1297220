"""Lineage: which runs used which version, as notes that a training leaves in the store.

Each note is one small object under `lineage/`. Icechunk knows nothing of them: they outlive an
expiry, and a copy of a store takes them along.
"""

import hashlib
import json
import socket
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from flowpatch.catalogue.objects import LINEAGE
from flowpatch.places.place import Place

Event = Literal["trained", "resumed"]


@dataclass(frozen=True)
class RunNote:
    """A run that began on a version, or went on with it, and the tag that named the version.

    `at` is the last time that it did so, in UTC.
    """

    run: str
    host: str
    event: Event
    at: str
    version: str
    content_hash: str
    tag: str | None = None

    @classmethod
    def of(
        cls, run: str | Path, event: Event, version: str, content_hash: str, tag: str | None = None
    ) -> "RunNote":
        """A note of this machine and this moment."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        folder = str(Path(run).absolute())
        return cls(folder, socket.gethostname(), event, at, version, content_hash, tag)

    @property
    def name(self) -> str:
        """Of its object: the same for the same run and event, so that notes do not pile up."""
        what = [self.run, self.host, self.event, self.version, self.tag]
        return f"{LINEAGE}{hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]}.json"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def write_note(place: Place, note: RunNote) -> None:
    """Leaves a note in a store; it may be read-only.

    Raises:
        OSError, StoreError: it cannot be written.
    """
    place.write(note.name, json.dumps(note.to_json(), indent=1).encode())


def read_notes(place: Place) -> list[RunNote]:
    """All notes in a store, oldest first. An object that is none is left out: it harms nobody."""
    names = [name for name in place.names(LINEAGE) if name.endswith(".json")]
    notes = [_parse(place.read(name)) for name in names]
    return sorted((note for note in notes if note), key=lambda note: (note.at, note.run))


def run_before_move(place: Place, tag: str, version: str) -> RunNote | None:
    """The run that was trained last on a tag, if the tag named another version then."""
    trained = [note for note in read_notes(place) if (note.tag, note.event) == (tag, "trained")]
    return trained[-1] if trained and trained[-1].version != version else None


def _parse(content: bytes) -> RunNote | None:
    try:
        found = json.loads(content)
        values = {field.name: found[field.name] for field in fields(RunNote)}
    except (ValueError, KeyError, TypeError):
        return None
    tag = values.pop("tag")
    texts_only = all(isinstance(value, str) for value in values.values())
    return RunNote(**values, tag=tag) if texts_only and isinstance(tag, str | None) else None
