"""A store in an object store, under a prefix of a bucket."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property

import icechunk

from flowpatch.errors import SettingsError, StoreError, StoreNotFoundError
from flowpatch.places.address import SCHEME, check_address
from flowpatch.places.bucket_lock import bucket_lock
from flowpatch.places.lock import WriterLock
from flowpatch.places.object_store import ObjectStore
from flowpatch.places.place import Place


@dataclass(frozen=True)
class Bucket(Place):
    """A prefix of a bucket, reached when it is first asked for anything."""

    bucket: str
    prefix: str

    @classmethod
    def of_address(cls, address: str) -> "Bucket":
        """The place behind `s3://BUCKET/PREFIX`, which was checked."""
        bucket, _, prefix = address.removeprefix(SCHEME).partition("/")
        return cls(bucket, prefix)

    @cached_property
    def objects(self) -> ObjectStore:
        """The bucket, reached.

        Raises:
            StoreUnreachableError, StorePermissionError, StoreNotFoundError: it cannot be.
        """
        return ObjectStore.reach(self.bucket, self._root)

    @property
    def _root(self) -> str:
        return f"{self.prefix}/"

    @property
    def address(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.prefix}"

    @property
    def absolute_address(self) -> str:
        return self.address

    @property
    def path(self) -> str:
        return self.address

    @property
    def name(self) -> str:
        return self.prefix.rpartition("/")[2]

    def storage(self) -> icechunk.Storage:
        objects = self.objects
        return icechunk.s3_storage(
            bucket=self.bucket,
            prefix=self.prefix,
            region=objects.region,
            endpoint_url=objects.endpoint,
            allow_http=(objects.endpoint or "").startswith("http://"),
            force_path_style=objects.path_style,
            from_env=True,
        )

    def exists(self, refusal: type[StoreError]) -> bool:
        try:
            return next(self.names(), None) is not None
        except StoreNotFoundError as error:
            raise refusal(str(error)) from error

    def is_container(self) -> bool:
        return True

    def names(self, under: str = "") -> Iterator[str]:
        for key, _ in self.objects.list(self._root + under):
            name = key.removeprefix(self._root)
            if not under or name == under or name.startswith(under.rstrip("/") + "/"):
                yield name

    def places(self) -> Iterator["Bucket"]:
        for name in self.objects.list_below(self._root):
            found = Bucket(self.bucket, self._root + name)
            if not name.startswith(".") and _is_address(found.address):
                # Reached already.
                found.__dict__["objects"] = self.objects
                yield found

    def read(self, name: str) -> bytes:
        found = self.objects.get(self._root + name)
        if found is None:
            raise FileNotFoundError(f"no object '{self._root}{name}'")
        return found.content

    def write(self, name: str, content: bytes) -> None:
        self.objects.put(self._root + name, content)

    def discard(self, name: str) -> None:
        # Whatever else begins so is none of a store's names.
        self.objects.delete_all(self._root + name)

    def remove(self) -> None:
        self.objects.delete_all(self._root)

    def total_bytes(self) -> int:
        return sum(size for _, size in self.objects.list(self._root))

    def free_bytes(self) -> None:
        return None

    def prepare(self) -> None:
        self.check_reachable()

    def check_reachable(self) -> None:
        self.objects.check(self._root)

    def settle(self) -> None:
        """A server has answered only once it keeps what it was sent."""

    def writer_lock(self) -> AbstractContextManager[WriterLock]:
        # Beside the store: what is under its own prefix is Icechunk's.
        above, slash, name = self.prefix.rpartition("/")
        return bucket_lock(self.objects, f"{above}{slash}.{name}.writer.lock", self.address)

    def __str__(self) -> str:
        return self.address


def _is_address(address: str) -> bool:
    """Whether a store can be there; somebody else may have put anything into the bucket."""
    try:
        return check_address(address) == address
    except SettingsError:
        return False
