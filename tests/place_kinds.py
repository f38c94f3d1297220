"""The kinds of places, for tests that every one of them passes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from flowpatch.places.place import Place, place_of
from s3_server import BUCKET, Remote

KINDS = ["folder", "bucket"]


@dataclass(frozen=True)
class Kind:
    """A kind of place: how one of a name is made, and what its lock holds."""

    name: str
    address: Callable[[str], str]
    read_lock: Callable[[str], bytes | None]
    write_lock: Callable[[str, bytes], None]

    def place(self, name: str = "s") -> Place:
        return place_of(self.address(name))


def folders(root: Path) -> Kind:
    def lock(name: str) -> Path:
        return root / f".{name}.writer.lock"

    return Kind(
        "folder",
        lambda name: str(root / name),
        lambda name: lock(name).read_bytes() if lock(name).exists() else None,
        lambda name, content: void(lock(name).write_bytes(content)),
    )


def buckets(remote: Remote) -> Kind:
    def key(name: str) -> str:
        return f"{remote.prefix}/.{name}.writer.lock"

    return Kind(
        "bucket",
        remote.address,
        lambda name: remote.contents().get(key(name)),
        lambda name, content: void(
            remote.client.put_object(Bucket=BUCKET, Key=key(name), Body=content)
        ),
    )


def void(_: object) -> None:
    return None


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    if request.param == "folder":
        return folders(tmp_path)
    return buckets(request.getfixturevalue("remote"))
