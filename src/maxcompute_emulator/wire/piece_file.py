"""An iterator of bytes as a file, for what wants to read."""

import io
from collections.abc import Iterable
from typing import BinaryIO, cast


class _PieceFile(io.RawIOBase):
    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        parts = []
        missing = -1 if size is None else size
        while missing != 0 and self._fill():
            part = self._ready if missing < 0 else self._ready[:missing]
            self._ready = self._ready[len(part) :]
            parts.append(part)
            missing -= len(part) if missing > 0 else 0
        return b"".join(parts)

    def _fill(self) -> bool:
        while not len(self._ready):
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self._ready = memoryview(piece)
        return True


def piece_file(pieces: Iterable[bytes]) -> BinaryIO:
    """A file that holds the pieces one after the other.

    `read(n)` returns n bytes, fewer only at the end.
    """
    return cast(BinaryIO, _PieceFile(pieces))
