import io
import zlib

import lz4.frame
import pytest
import snappy
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from maxcompute_emulator.errors import ServiceError
from maxcompute_emulator.wire.compression import chosen_encoding, compressed, decompressed

ENCODINGS = ["deflate", "zstd", "x-lz4-frame", "x-odps-lz4-frame", "x-snappy-framed"]
PIECES = [bytes([value % 251]) * (value * 997 % 300_000) for value in range(20)]


def decompress_like_the_client(data: bytes, encoding: str) -> bytes:
    """Each with the library that the client uses: one frame, and nothing behind it."""
    if encoding == "deflate":
        return zlib.decompress(data)
    if encoding == "zstd":
        inner = zstandard.ZstdDecompressor().decompressobj()
    elif encoding == "x-snappy-framed":
        return snappy.StreamDecompressor().decompress(data)
    else:
        inner = lz4.frame.LZ4FrameDecompressor()
    out = inner.decompress(data)
    assert inner.eof
    assert not inner.unused_data
    return out


def compress_like_the_client(data: bytes, encoding: str) -> bytes:
    if encoding == "deflate":
        return zlib.compress(data, 1)
    if encoding == "zstd":
        inner = zstandard.ZstdCompressor().compressobj()
        return inner.compress(data) + inner.flush()
    if encoding == "x-snappy-framed":
        return snappy.StreamCompressor().compress(data)
    frame = lz4.frame.LZ4FrameCompressor(compression_level=1)
    return frame.begin() + frame.compress(data) + frame.flush()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_client_reads_what_is_sent(encoding):
    data = b"".join(compressed(PIECES, encoding))
    assert decompress_like_the_client(data, encoding) == b"".join(PIECES)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_the_client_sends_is_read(encoding):
    data = compress_like_the_client(b"".join(PIECES), encoding)
    assert decompressed(io.BytesIO(data), encoding).read() == b"".join(PIECES)


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=5))
@settings(deadline=None, max_examples=20)
def test_round_trip(encoding, pieces):
    data = b"".join(compressed(pieces, encoding))
    assert decompressed(io.BytesIO(data), encoding).read() == b"".join(pieces)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_streams_that_are_cut_or_rubbish_are_refused(encoding):
    data = compress_like_the_client(b"".join(PIECES), encoding)
    for broken in (data[:-3], data[: len(data) // 2], b"rubbish" * 10):
        with pytest.raises(ServiceError) as caught:
            decompressed(io.BytesIO(broken), encoding).read()
        assert caught.value.code == "MalformedDataStream"


@pytest.mark.parametrize("encoding", [None, "identity"])
def test_no_compression(encoding):
    assert decompressed(io.BytesIO(b"abc"), encoding).read() == b"abc"


def test_an_unknown_encoding_is_refused():
    with pytest.raises(ServiceError, match="Unknown encoding 'br'"):
        decompressed(io.BytesIO(b""), "br")


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        (None, None),
        ("identity", None),
        ("gzip, deflate", "deflate"),
        ("ZSTD;q=0.5", "zstd"),
        ("x-lz4-frame", "x-lz4-frame"),
    ],
)
def test_the_choice_of_an_encoding(accepted, chosen):
    assert chosen_encoding(accepted) == chosen
