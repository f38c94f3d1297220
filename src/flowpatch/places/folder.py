"""A store in a folder on disk."""

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

import icechunk

from flowpatch.errors import StoreError
from flowpatch.places.lock import WriterLock, writer_lock
from flowpatch.places.place import Place
from flowpatch.places.reasons import first_line


def _sync_file_system(descriptor: int) -> None:
    """Flushes the file system of an open file; where one cannot be flushed alone, all of them."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        os.sync()
    elif syncfs(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@dataclass(frozen=True)
class Folder(Place):
    """A folder on disk, which need not be there yet."""

    folder: Path

    @property
    def address(self) -> str:
        return str(self.folder)

    @property
    def absolute_address(self) -> str:
        return str(self.folder.absolute())

    @property
    def path(self) -> Path:
        return self.folder

    @property
    def name(self) -> str:
        return self.folder.absolute().name

    def storage(self) -> icechunk.Storage:
        # Absolute: another process, which may work in another folder, writes through a fork.
        return icechunk.local_filesystem_storage(self.absolute_address)

    def exists(self, refusal: type[StoreError]) -> bool:
        try:
            # A broken link is something too.
            self.folder.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except (OSError, ValueError) as error:
            reason = first_line(error)
            raise refusal(f"No sample store can be at '{self}': {reason}.") from error
        return True

    def is_container(self) -> bool:
        return self.folder.is_dir()

    def names(self, under: str = "") -> Iterator[str]:
        found = self.folder / under
        if found.is_file():
            yield under
            return
        for folder, _, files in os.walk(found):
            for file in files:
                yield (Path(folder) / file).relative_to(self.folder).as_posix()

    def places(self) -> Iterator["Folder"]:
        for found in sorted(self.folder.iterdir()):
            if found.is_dir() and not found.name.startswith("."):
                yield Folder(found)

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def discard(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    def remove(self) -> None:
        shutil.rmtree(self.folder)

    def total_bytes(self) -> int:
        total = 0
        for name in self.names():
            # An expiry may remove it meanwhile.
            with suppress(FileNotFoundError):
                total += (self.folder / name).stat().st_size
        return total

    def free_bytes(self) -> int:
        for place in (self.folder.absolute(), *self.folder.absolute().parents):
            try:
                return shutil.disk_usage(place).free
            except OSError:
                continue
        return 0

    def prepare(self) -> None:
        self.folder.absolute().parent.mkdir(parents=True, exist_ok=True)

    def settle(self) -> None:
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            _sync_file_system(folder)
        finally:
            os.close(folder)

    def check_reachable(self) -> None:
        """A disk that is not there fails at what is asked of it."""

    def writer_lock(self) -> AbstractContextManager[WriterLock]:
        return writer_lock(self.folder)

    def __str__(self) -> str:
        return self.address
