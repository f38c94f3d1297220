"""Compressions of data streams by their names in HTTP headers, both ways and streaming."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, Protocol, cast

import cramjam
import google_crc32c
import pyarrow as pa

from maxcompute_emulator import errors
from maxcompute_emulator.wire.piece_file import piece_file

_READ_BYTES = 256 * 1024
_SNAPPY_IDENTIFIER = b"\xff\x06\x00\x00sNaPpY"


class _Compressor(Protocol):
    def compress(self, data: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


class _Deflate:
    def __init__(self) -> None:
        self._inner = zlib.compressobj(1)

    def compress(self, data: bytes) -> bytes:
        return self._inner.compress(data)

    def finish(self) -> bytes:
        return self._inner.flush()


class _Framed:
    """A compressor of cramjam: one frame for the whole stream."""

    def __init__(self, module: object) -> None:
        self._inner = cast("type", module.Compressor)()  # type: ignore[attr-defined]

    def compress(self, data: bytes) -> bytes:
        self._inner.compress(data)
        return bytes(self._inner.flush())

    def finish(self) -> bytes:
        return bytes(self._inner.finish())


_COMPRESSORS: dict[str, Callable[[], _Compressor]] = {
    "deflate": _Deflate,
    "zstd": lambda: _Framed(cramjam.zstd),
    "x-lz4-frame": lambda: _Framed(cramjam.lz4),
    "x-odps-lz4-frame": lambda: _Framed(cramjam.lz4),
    "x-snappy-framed": lambda: _Framed(cramjam.snappy),
}


def chosen_encoding(accept_encoding: str | None) -> str | None:
    """The first encoding that the client accepts and the service has; None is none."""
    for name in (accept_encoding or "").split(","):
        name = name.partition(";")[0].strip().lower()
        if name in _COMPRESSORS:
            return name
    return None


def compressed(pieces: Iterable[bytes], encoding: str | None) -> Iterator[bytes]:
    """The pieces under the encoding; pieces that come out empty are left out."""
    if encoding is None:
        yield from pieces
        return
    compressor = _COMPRESSORS[encoding]()
    for piece in pieces:
        if out := compressor.compress(piece):
            yield out
    yield compressor.finish()


def decompressed(source: BinaryIO, encoding: str | None) -> BinaryIO:
    """A file of what `source` holds under the encoding; an unknown one is a `ServiceError`."""
    name = (encoding or "identity").lower()
    if name == "identity":
        return source
    if name not in _COMPRESSORS:
        allowed = ", ".join(_COMPRESSORS)
        raise errors.invalid_argument(f"Unknown encoding '{encoding}'. Allowed: {allowed}.")
    return piece_file(_decompressed_pieces(source, name))


def _decompressed_pieces(source: BinaryIO, encoding: str) -> Iterator[bytes]:
    try:
        if encoding == "deflate":
            yield from _inflated(source)
        elif encoding == "x-snappy-framed":
            yield from _snappy_chunks(source)
        else:
            codec = "zstd" if encoding == "zstd" else "lz4"
            with pa.CompressedInputStream(pa.PythonFile(source, mode="r"), codec) as stream:
                while piece := stream.read(_READ_BYTES):
                    yield piece
    except (zlib.error, pa.ArrowException, OSError, cramjam.DecompressionError) as error:
        message = f"The body is not what its encoding '{encoding}' says: {error}"
        raise errors.malformed_data_stream(message) from error


def _inflated(source: BinaryIO) -> Iterator[bytes]:
    inner = zlib.decompressobj()
    while not inner.eof:
        data = inner.unconsumed_tail or source.read(_READ_BYTES)
        if not data:
            raise zlib.error("The stream ends too early.")
        if piece := inner.decompress(data, 4 * _READ_BYTES):
            yield piece


def _snappy_chunks(source: BinaryIO) -> Iterator[bytes]:
    """The framing format: kind, 24-bit length, then masked checksum and data."""
    if source.read(len(_SNAPPY_IDENTIFIER)) != _SNAPPY_IDENTIFIER:
        raise zlib.error("The stream does not begin with the identifier of framed snappy.")
    while head := source.read(4):
        length = int.from_bytes(head[1:], "little")
        body = source.read(length)
        if len(head) < 4 or len(body) < length:
            raise zlib.error("The stream ends too early.")
        if head[0] in (0x00, 0x01):
            data = bytes(cramjam.snappy.decompress_raw(body[4:])) if head[0] == 0 else body[4:]
            if _masked(google_crc32c.value(data)) != int.from_bytes(body[:4], "little"):
                raise zlib.error("A chunk's checksum is wrong.")
            yield data
        elif head[0] < 0x80:
            raise zlib.error(f"Unknown kind of chunk {head[0]}.")


def _masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
