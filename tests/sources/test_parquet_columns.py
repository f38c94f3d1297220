"""Columns read from pages against pyarrow: the same, however written; and what is damaged."""

import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowpatch.errors import SourceError
from flowpatch.sources import page_compression
from flowpatch.sources.columns import RecordColumns
from flowpatch.sources.contract import NodeIndex
from flowpatch.sources.engine import connect
from flowpatch.sources.listing import Listing
from flowpatch.sources.page_compression import DamagedPageError, unpacker
from flowpatch.sources.parquet_pages import IS_CODED
from flowpatch.sources.row_groups import RowGroupPart, find_row_groups
from flowpatch.time_axis import TimeAxis

COLUMNS = RecordColumns(node_columns=("a", "b"), time_column="t", value_column="v")
AXIS = TimeAxis.of_days(np.datetime64("2025-03-03"), 2, 60)
FIRST_S = int(np.datetime64("2025-03-03", "s").astype(np.int64))
KEYS = np.array([[a, b] for a in range(-3, 40) for b in range(3)])
NODES = NodeIndex(
    ("a", "b"), (KEYS[:, 0].copy(), KEYS[:, 1].copy()), np.arange(len(KEYS), dtype=np.int32)
)
INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32()]
VALUES = [*INTEGERS, pa.uint64(), pa.float32(), pa.float64()]
READ_HERE = ["none", "snappy", "zstd", "zstd without its library", "gzip"]


@contextmanager
def unpacked(how: str) -> Iterator[str]:
    """The compression, of which Zstandard's may be read without the system's library."""
    compression, _, without = how.partition(" ")
    library = None if without else page_compression.find_libzstd()
    with mock.patch.object(page_compression, "find_libzstd", return_value=library):
        yield compression


def records(
    seed: int, count: int, unit: str, kinds: dict[str, pa.DataType], missing: float
) -> pa.Table:
    """Records of two days and the hours around; many repeat, some lack a time, key or value."""
    generator = np.random.default_rng(seed)

    def column(numbers: np.ndarray, kind: pa.DataType) -> pa.Array:
        gone = generator.random(count) < missing
        return pa.array(numbers, from_pandas=False, mask=gone).cast(kind, safe=False)

    second = FIRST_S + generator.integers(-3600, 49 * 3600, count)
    numbers = generator.integers(0, 2 ** generator.integers(1, 60), count)
    if pa.types.is_floating(kinds["v"]):
        numbers = numbers * generator.choice([1, 1 / 3, -1, 1e290, np.nan], count)
    return pa.table(
        {
            "t": column(second.astype("datetime64[s]"), pa.timestamp(unit)),
            "v": column(numbers, kinds["v"]),
            "a": column(generator.integers(0, 45, count), kinds["a"]),
            "b": column(generator.integers(0, 4, count), kinds["b"]),
        }
    )


def parts(path: Path) -> list[RowGroupPart]:
    """The parts of a file that have records of the second day."""
    groups = find_row_groups(Listing((path,), "parquet"), COLUMNS)
    assert groups is not None
    return list(groups.parts(NODES, AXIS, 24, 48))


def from_pages(part: RowGroupPart) -> list[np.ndarray] | None:
    chunks = part._chunks()
    if chunks is None:
        return None
    found = list(part._from_pages(chunks))
    assert all(len({len(words) for words in together}) == 1 for together in found)
    return [np.concatenate(words) for words in zip(*found, strict=True)]


def assert_same(part: RowGroupPart) -> None:
    """What pages hold is what pyarrow finds; which NaN stands for none is left open."""
    found, expected = from_pages(part), part._from_arrow()
    assert found is not None
    for place, (one, other) in enumerate(zip(found, expected, strict=True)):
        if place == 1:
            one, other = one.view(np.float32), other.view(np.float32)
        np.testing.assert_array_equal(one, other)


@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data(), seed=st.integers(0, 999), count=st.integers(1, 3000))
def test_pages_hold_what_pyarrow_finds(tmp_path: Path, data: Any, seed: int, count: int) -> None:
    kinds = {
        "a": data.draw(st.sampled_from(INTEGERS)),
        "b": data.draw(st.sampled_from(INTEGERS)),
        "v": data.draw(st.sampled_from(VALUES)),
    }
    unit, missing = (
        data.draw(st.sampled_from(["s", "ms", "us"])),
        data.draw(st.sampled_from([0, 0.02, 0.9])),
    )
    table = records(seed, count, unit, kinds, missing)
    if not missing and data.draw(st.booleans()):
        required = [field.with_nullable(False) for field in table.schema]
        table = table.cast(pa.schema(required))
    how = data.draw(st.sampled_from(READ_HERE))
    pq.write_table(
        table,
        tmp_path / "r.parquet",
        row_group_size=data.draw(st.sampled_from([count, max(1, count // 3)])),
        data_page_version=data.draw(st.sampled_from(["1.0", "2.0"])),
        compression=how.split()[0],
        use_dictionary=data.draw(st.sampled_from([True, False, ["t", "a"], ["v", "b"]])),
        # So small that chunks go on in plain numbers.
        dictionary_pagesize_limit=data.draw(st.sampled_from([64, 1024, 2**20])),
        data_page_size=data.draw(st.sampled_from([64, 1000, 2**20])),
        write_batch_size=data.draw(st.sampled_from([7, 100, 1024])),
        write_page_checksum=data.draw(st.booleans()),
    )
    with unpacked(how):
        for part in parts(tmp_path / "r.parquet"):
            assert_same(part)


@pytest.mark.parametrize(
    "options", ["", ", COMPRESSION zstd, ROW_GROUP_SIZE 2048", ", COMPRESSION uncompressed"]
)
def test_files_of_duckdb_are_read_from_their_pages(tmp_path: Path, options: str) -> None:
    kinds = {"a": pa.int64(), "b": pa.int32(), "v": pa.float64()}
    made = records(3, 20_000, "us", kinds, 0.01)
    connection = connect()
    connection.register("made", made)
    connection.execute(f"COPY made TO '{tmp_path / 'r.parquet'}' (FORMAT parquet{options})")
    found = parts(tmp_path / "r.parquet")
    assert found
    for part in found:
        assert_same(part)


def test_a_row_group_as_writers_make_them_goes_through_several_pages(tmp_path: Path) -> None:
    kinds = {"a": pa.int64(), "b": pa.int64(), "v": pa.float64()}
    table = records(1, 150_000, "ms", kinds, 0)
    # More different values than a dictionary holds.
    table = table.set_column(1, "v", pa.array(np.arange(150_000) / 3))
    pq.write_table(table, tmp_path / "r.parquet", compression="zstd")
    (part,) = parts(tmp_path / "r.parquet")
    chunks = part._chunks()
    assert chunks is not None
    assert {len(chunk.pages.data) for chunk in chunks} != {1}
    coded = [set(chunk.pages.data[:, IS_CODED].tolist()) for chunk in chunks]
    assert coded[0] == {1}
    assert coded[1] == {0, 1}
    assert_same(part)


@pytest.mark.parametrize(
    "written",
    [
        {"compression": "lz4"},
        {"compression": "brotli"},
        {"use_dictionary": False, "column_encoding": {"t": "DELTA_BINARY_PACKED"}},
        {"use_dictionary": False, "column_encoding": {"v": "BYTE_STREAM_SPLIT"}},
    ],
)
def test_other_encodings_are_left_to_pyarrow(tmp_path: Path, written: dict[str, Any]) -> None:
    kinds = {"a": pa.int64(), "b": pa.int64(), "v": pa.float32()}
    table = records(1, 500, "ms", kinds, 0.1)
    pq.write_table(table, tmp_path / "other.parquet", **written)
    pq.write_table(table, tmp_path / "known.parquet")
    (other,), (known,) = parts(tmp_path / "other.parquet"), parts(tmp_path / "known.parquet")
    assert other._chunks() is None
    assert known._chunks() is not None
    for one, two in zip(other.read(), known.read(), strict=True):
        np.testing.assert_array_equal(one.step, two.step)
        np.testing.assert_array_equal(one.node, two.node)
        np.testing.assert_array_equal(one.value, two.value)


@pytest.mark.parametrize("compression", ["snappy", "lz4"])
def test_records_of_another_stretch_are_left_out_whatever_statistics_say(
    tmp_path: Path, compression: str
) -> None:
    kinds = {"a": pa.int64(), "b": pa.int64(), "v": pa.float32()}
    pq.write_table(records(1, 500, "s", kinds, 0), tmp_path / "r.parquet", compression=compression)
    (part,) = parts(tmp_path / "r.parquet")
    (block,) = part.read()
    assert 0 < len(block.step) < 500
    assert block.step.min() >= 0
    assert block.step.max() < 24


def damage(path: Path, seed: int) -> list[bytes]:
    """The file with a few bytes of its pages changed, again and again."""
    whole = path.read_bytes()
    generator = np.random.default_rng(seed)
    footer = 8 + int.from_bytes(whole[-8:-4], "little")
    damaged = []
    for _ in range(100):
        content = bytearray(whole)
        for at in generator.integers(4, len(whole) - footer, generator.integers(1, 4)):
            content[at] = generator.choice([0, 1, 127, 128, 255, generator.integers(256)])
        damaged.append(bytes(content))
    return damaged


@pytest.mark.parametrize("how", READ_HERE)
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_damaged_pages_end_in_an_error_or_in_as_many_records(
    tmp_path: Path, how: str, version: str
) -> None:
    kinds = {"a": pa.int64(), "b": pa.int32(), "v": pa.float64()}
    path = tmp_path / "r.parquet"
    pq.write_table(
        records(1, 400, "ms", kinds, 0.1),
        path,
        compression=how.split()[0],
        data_page_version=version,
        data_page_size=200,
        write_batch_size=50,
        dictionary_pagesize_limit=500,
    )
    refused = []
    for content in damage(path, 5):
        path.write_bytes(content)
        (part,) = parts(path)
        try:
            with unpacked(how):
                found = from_pages(part)
        except SourceError as error:
            refused.append(str(error))
        else:
            assert found is None or [len(words) for words in found] == [400] * 4
    assert refused
    assert all("r.parquet" in message and "is damaged: " in message for message in refused)


def test_a_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    kinds = {"a": pa.int64(), "b": pa.int32(), "v": pa.float64()}
    path = tmp_path / "r.parquet"
    pq.write_table(records(1, 400, "ms", kinds, 0), path)
    (part,) = parts(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(SourceError, match=r"r\.parquet"):
        list(part.read())


def unpack(how: str, stored: bytes, size: int, levels: int = -1) -> bytes:
    """What a single page of so many bytes is decompressed to."""
    with unpacked(how) as compression:
        found = unpacker(compression)
    assert found is not None
    # Something lies before it and behind it.
    chunk = np.frombuffer(b"?" + stored + b"?", dtype=np.uint8)
    pages = np.array([[1, len(stored), size, 1, levels, 1, 1]])
    bodies = found(chunk, pages)
    assert len(bodies) % 8 == 0
    assert not bodies[size:].any()
    return bodies[:size].tobytes()


@pytest.mark.parametrize("how", ["GZIP", "SNAPPY", "ZSTD", "ZSTD without its library"])
def test_a_page_of_another_size_than_its_header_says_is_damaged(how: str) -> None:
    plain = bytes(range(256)) * 8
    stored = bytes(pa.Codec(how.split()[0].lower()).compress(plain))
    assert unpack(how, stored, len(plain)) == plain
    assert unpack(how, b"12345" + stored, len(plain) + 5, levels=5) == b"12345" + plain
    assert unpack(how, stored, 0) == b""
    for size in (1, len(plain) - 1, len(plain) + 1, 10 * len(plain)):
        with pytest.raises(DamagedPageError):
            unpack(how, stored, size)
    for cut in (0, 1, 5, len(stored) // 2):
        with pytest.raises(DamagedPageError):
            unpack(how, stored[:cut], len(plain))


@pytest.mark.parametrize("how", ["ZSTD", "ZSTD without its library", "GZIP"])
def test_several_frames_and_frames_that_tell_no_size_make_one_page(how: str) -> None:
    plain = b"flow" * 1000
    packer = zstandard.ZstdCompressor(write_content_size=False)
    stored = packer.compress(plain) + zstandard.ZstdCompressor().compress(plain)
    if how == "GZIP":
        stored = b""
        for _ in range(2):
            member = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
            stored += member.compress(plain) + member.flush()
    assert unpack(how, stored, 2 * len(plain)) == plain + plain


@pytest.mark.soak
def test_damaged_pages_stay_inside_their_arrays(tmp_path: Path) -> None:
    """The tests of damage again, the loops compiled so that they look at every index."""
    checked = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path / "compiled")}
    files = [str(Path(__file__)), str(Path(__file__).with_name("test_page_entries.py"))]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    ran = subprocess.run(
        command, env={**os.environ, **checked}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout[-2000:]
