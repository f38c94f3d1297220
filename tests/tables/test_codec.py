"""Cells: both encodings give back what was written, and what is no cell is an error."""

import base64

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flowpatch.errors import SampleTableError
from flowpatch.tables.codec import Encoding, decode, encode, longest_cell

ARRAYS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=8),
    elements=st.floats(width=32, allow_nan=True, allow_infinity=False),
)


@pytest.mark.parametrize("encoding", ["zstd", "text"])
@given(values=ARRAYS)
def test_a_cell_gives_back_every_number(encoding: Encoding, values: np.ndarray) -> None:
    cell = encode(values, encoding)
    np.testing.assert_array_equal(decode(cell, "a cell", 10_000), values.ravel())
    assert len(cell) <= longest_cell(values.size, encoding)


@given(values=ARRAYS)
def test_text_is_what_other_tools_read(values: np.ndarray) -> None:
    plain = np.array([np.float32(number) for number in encode(values, "text").split(",")])
    np.testing.assert_array_equal(plain, values.ravel())


def test_text_is_as_python_prints_it() -> None:
    values = np.array([12, 0.5, -3, np.nan], dtype=np.float32)
    assert encode(values, "text") == ",".join(str(float(value)) for value in values)
    assert encode(np.arange(3), "text") == "0,1,2"


def test_zstd_is_base64_of_compressed_little_endian_float32() -> None:
    values = np.array([[1.5, np.nan], [-3, 1e30]], dtype=np.float32)
    packed = zstandard.ZstdDecompressor().decompress(base64.b64decode(encode(values, "zstd")))
    np.testing.assert_array_equal(np.frombuffer(packed, "<f4"), values.ravel())


@pytest.mark.parametrize(
    ("cell", "numbers"),
    [
        ("1,2.5,-3", [1, 2.5, -3]),
        ("[[1.0, 2.5], [nan, -3e2]]", [1, 2.5, np.nan, -300]),
        ("1,,3", [1, np.nan, 3]),
        ("None,null,NaN,\\N, 7 ", [np.nan, np.nan, np.nan, np.nan, 7]),
        ("", []),
        ("42", [42]),
    ],
)
def test_cells_of_other_tools_are_read(cell: str, numbers: list[float]) -> None:
    np.testing.assert_array_equal(
        decode(cell, "a cell", 10_000), np.array(numbers, dtype=np.float32)
    )


@pytest.mark.parametrize("cell", ["1;2", "one,two", "KLUv", "KLUv####", "KLUv/SAEIQAAAQ=="])
def test_what_is_no_cell_is_an_error_that_names_it(cell: str) -> None:
    with pytest.raises(SampleTableError, match="X of row 7"):
        decode(cell, "X of row 7", 10_000)


def test_a_cell_cut_short_is_an_error() -> None:
    cell = encode(np.arange(1000), "zstd")
    with pytest.raises(SampleTableError):
        decode(cell[: len(cell) // 2 // 4 * 4], "X", 10_000)


def test_a_cell_that_unpacks_to_more_than_was_asked_for_is_refused() -> None:
    packing = zstandard.ZstdCompressor(write_content_size=False)
    bomb = base64.b64encode(packing.compress(bytes(200_000_000))).decode()
    assert len(bomb) < 100_000
    with pytest.raises(SampleTableError, match="more than 100 numbers"):
        decode(bomb, "X", 100)
    with pytest.raises(SampleTableError, match="more than 2 numbers"):
        decode("1,2,3", "X", 2)


def test_what_is_not_finite_is_missing() -> None:
    np.testing.assert_array_equal(decode("1,inf,-inf,2", "X", 4), [1, np.nan, np.nan, 2])


@pytest.mark.parametrize("cell", ["1 2,3", "1,2\n3,4"])
def test_numbers_that_run_together_are_refused(cell: str) -> None:
    with pytest.raises(SampleTableError, match="no list of numbers"):
        decode(cell, "X", 10)
