import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maxcompute_emulator.wire.varints import (
    read_varint,
    unzigzag,
    varint,
    varints,
    zigzag,
    zigzags,
)

INT64 = st.integers(-(2**63), 2**63 - 1)
UINT64 = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), (2**32 - 1, "ffffffff0f")],
)
def test_known_values(value, encoded):
    assert varint(value).hex() == encoded


@pytest.mark.parametrize(("value", "encoded"), [(0, 0), (-1, 1), (1, 2), (-2, 3)])
def test_known_zigzag_values(value, encoded):
    assert zigzag(value) == bytes([encoded])


@given(UINT64, st.binary(max_size=3), st.binary(max_size=3))
def test_what_is_written_is_read(value, before, after):
    data = before + varint(value) + after
    assert read_varint(data, len(before)) == (value, len(data) - len(after))


@given(INT64)
def test_zigzag_is_undone(value):
    raw, _ = read_varint(zigzag(value), 0)
    assert unzigzag(raw) == value


@given(st.lists(INT64, max_size=30))
def test_many_at_once_are_as_one_by_one(values):
    assert zigzags(np.array(values, np.int64)) == [zigzag(value) for value in values]


@given(st.lists(UINT64, max_size=30))
def test_many_unsigned_at_once_are_as_one_by_one(values):
    assert varints(np.array(values, np.uint64)) == [varint(value) for value in values]


def test_an_end_too_early_is_an_index_error():
    with pytest.raises(IndexError):
        read_varint(b"\xff\xff", 0)


def test_more_than_ten_bytes_are_refused():
    with pytest.raises(ValueError, match="more than ten bytes"):
        read_varint(b"\xff" * 10 + b"\x01", 0)
