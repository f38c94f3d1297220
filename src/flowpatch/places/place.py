"""Where a store lies: what every kind of place can do, whatever stands behind it.

    folder.py   a folder on disk
    bucket.py   s3://BUCKET/PREFIX, an object store

Objects are named relative to the place, with `/` between their parts. What a store keeps in them
is left to `repository.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import icechunk

from flowpatch.errors import StoreError
from flowpatch.places.address import check_address, is_bucket_address
from flowpatch.places.lock import WriterLock


class Place(ABC):
    """A folder or a prefix of a bucket, with or without a store in it."""

    @property
    @abstractmethod
    def address(self) -> str:
        """As it was given; `place_of` finds it again from the same working folder."""

    @property
    @abstractmethod
    def absolute_address(self) -> str:
        """From which `place_of` finds it from any working folder."""

    @property
    @abstractmethod
    def path(self) -> Path | str:
        """What `open_store` takes: the path of a folder, the address of a bucket."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The last part of the address."""

    @abstractmethod
    def storage(self) -> icechunk.Storage:
        """The place as Icechunk reaches it."""

    @abstractmethod
    def exists(self, refusal: type[StoreError]) -> bool:
        """Whether anything is there.

        Raises:
            StoreError: of the class `refusal`, where nothing can be at such an address.
        """

    @abstractmethod
    def is_container(self) -> bool:
        """Whether what is there holds objects, or could: a folder, any prefix."""

    @abstractmethod
    def names(self, under: str = "") -> Iterator[str]:
        """The names of all objects, or of those `under` a name that ends in `/`."""

    @abstractmethod
    def places(self) -> Iterator["Place"]:
        """The places one level below, in order of name."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """An object, whole.

        Raises:
            FileNotFoundError: there is none of that name.
        """

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Writes an object; others see none of it or all."""

    @abstractmethod
    def discard(self, name: str) -> None:
        """Removes an object, if it is there."""

    @abstractmethod
    def remove(self) -> None:
        """Removes everything that is there."""

    @abstractmethod
    def total_bytes(self) -> int:
        """Size of everything that is there."""

    @abstractmethod
    def free_bytes(self) -> int | None:
        """What can still be written, where that is known."""

    @abstractmethod
    def prepare(self) -> None:
        """Makes what must be there before a store can be."""

    @abstractmethod
    def check_reachable(self) -> None:
        """Makes sure that the place itself is not what fails.

        Raises:
            StoreUnreachableError: nothing answers there.
            StorePermissionError: there are no keys, or they are refused.
            StoreNotFoundError: there is no such bucket.
        """

    @abstractmethod
    def settle(self) -> None:
        """Waits until what was written would outlive a power cut."""

    @abstractmethod
    def writer_lock(self) -> AbstractContextManager[WriterLock]:
        """Holds the writer's lock of a store here; it is checked before anything is published.

        Raises:
            StoreLockedError: another process holds it; the message names process, host and time.
            StoreWriteError: the lock cannot be written.
        """

    def holds_store(self) -> bool:
        """Whether an Icechunk repository is here, finished or not."""
        return self.is_container() and any(
            # `ref.json#1` is on its way to become `ref.json`.
            "#" not in name
            for under in ("refs/", "repo")
            for name in self.names(under)
        )

    def __str__(self) -> str:
        return self.address


def place_of(address: "str | Path | Place") -> Place:
    """The place behind an address: `s3://BUCKET/PREFIX`, or the path of a folder.

    Raises:
        SettingsError: it is no address.
    """
    if isinstance(address, Place):
        return address
    checked = check_address(str(address))
    if is_bucket_address(checked):
        # Imported here: a folder needs no client of object stores.
        from flowpatch.places.bucket import Bucket

        return Bucket.of_address(checked)
    from flowpatch.places.folder import Folder

    return Folder(Path(address))
