"""Row groups read by any thread against DuckDB's scan: the same records, and the same refusals."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowpatch.sources import row_groups
from flowpatch.sources.columns import RecordColumns
from flowpatch.sources.contract import NodeIndex, RecordBlock, RecordPart
from flowpatch.sources.files import FilesSource
from flowpatch.sources.listing import Listing
from flowpatch.sources.row_groups import find_row_groups
from flowpatch.time_axis import TimeAxis

COLUMNS = RecordColumns(node_columns=("a", "b"), time_column="t", value_column="v")
AXIS = TimeAxis.of_days(np.datetime64("2025-03-03"), 3, 60)
FIRST_S = int(np.datetime64("2025-03-03", "s").astype(np.int64))
KEYS = np.array([[1, 1], [1, 2], [-3, 2], [0, 0]])
NODES = NodeIndex(("a", "b"), (KEYS[:, 0].copy(), KEYS[:, 1].copy()), np.arange(4, dtype=np.int32))


def listing(path: Path) -> Listing:
    return Listing((path,), "parquet")


def write(path: Path, records: int, seed: int, unit: str, kinds: dict[str, pa.DataType]) -> None:
    """Records of three days and of one day before and behind, some without a time, key or value."""
    generator = np.random.default_rng(seed)
    seconds = np.sort(generator.integers(-86_400, 4 * 86_400, records)) + FIRST_S

    def column(values: np.ndarray, kind: pa.DataType) -> pa.Array:
        missing = generator.random(records) < 0.05
        return pa.array(values, from_pandas=False, mask=missing).cast(kind, safe=False)

    keys = generator.choice([-3, 0, 1, 2, 7], (2, records))
    values = generator.choice([0.0, 1.5, -2.0, 3e38, 7.0], records)
    if pa.types.is_floating(kinds["v"]):
        values = generator.choice([0.1, np.inf, np.nan, 1e300, 16777217.0], records)
    table = pa.table(
        {
            "a": column(keys[0], kinds["a"]),
            "b": column(keys[1], kinds["b"]),
            "t": column(seconds.astype("datetime64[s]"), pa.timestamp(unit)),
            "v": column(values.astype(np.float64), kinds["v"]),
        }
    )
    pq.write_table(table, path, row_group_size=max(1, records // 4))


def found(source: FilesSource, first: int, stop: int, *, parts: bool) -> list[tuple[float, ...]]:
    """All records of a stretch in one order."""
    rows: list[tuple[float, ...]] = []
    for one in blocks_of(source, first, stop, parts=parts):
        value = np.where(np.isnan(one.value), np.float32(-1), one.value)
        rows += zip(one.step.tolist(), one.node.tolist(), value.tolist(), strict=True)
    return sorted(rows)


def blocks_of(source: FilesSource, first: int, stop: int, *, parts: bool) -> Iterator[RecordBlock]:
    for one in source.read_blocks(NODES, AXIS, first, stop, in_order=False):
        assert isinstance(one, RecordPart) == parts
        yield from one.read() if isinstance(one, RecordPart) else (one,)


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowpatch.sources.files.MANY_RECORDS", 0)


INTEGERS = [pa.int16(), pa.int32(), pa.int64()]


@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    files=st.lists(st.tuples(st.integers(1, 300), st.integers(0, 99)), min_size=1, max_size=3),
    unit=st.sampled_from(["s", "ms", "us"]),
    key=st.sampled_from(INTEGERS),
    value=st.sampled_from([*INTEGERS, pa.float32(), pa.float64()]),
)
def test_parts_hold_the_records_that_duckdb_finds(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[tuple[int, int]],
    unit: str,
    key: pa.DataType,
    value: pa.DataType,
) -> None:
    folder = tmp_path_factory.mktemp("records")
    for number, (records, seed) in enumerate(files):
        kinds = {"a": key, "b": pa.int64(), "v": value}
        write(folder / f"{number}.parquet", records, seed, unit, kinds)
    with pytest.MonkeyPatch.context() as patch:
        plain = FilesSource(str(folder), "", COLUMNS)
        expected = [found(plain, step, step + 24, parts=False) for step in (0, 24, 48)]
        patch.setattr("flowpatch.sources.files.MANY_RECORDS", 0)
        parted = FilesSource(str(folder), "", COLUMNS)
        assert [found(parted, step, step + 24, parts=True) for step in (0, 24, 48)] == expected


def test_what_lies_in_one_day_is_read_for_that_day_only(tmp_path: Path, many: None) -> None:
    path = tmp_path / "r.parquet"
    write(path, 4000, 1, "ms", {"a": pa.int64(), "b": pa.int64(), "v": pa.int32()})
    groups = find_row_groups(listing(path), COLUMNS)
    assert groups is not None
    asked = [{part.group.number for part in groups.parts(NODES, AXIS, s, s + 24)} for s in (0, 48)]
    assert asked[0]
    assert asked[1]
    assert not asked[0] & asked[1]


@pytest.mark.parametrize(
    "change",
    [
        {"t": pa.timestamp("ns")},
        {"t": pa.timestamp("ms", tz="UTC")},
        {"t": pa.string()},
        {"a": pa.string()},
        {"a": pa.uint64()},
        {"b": pa.float64()},
        {"v": pa.string()},
        {"v": pa.decimal128(9, 2)},
    ],
)
def test_a_column_that_needs_conversion_is_left_to_duckdb(
    tmp_path: Path, change: dict[str, pa.DataType]
) -> None:
    kinds = {"a": pa.int64(), "b": pa.int64(), "t": pa.timestamp("ms"), "v": pa.int32(), **change}
    table = pa.table({name: pa.nulls(2, kind) for name, kind in kinds.items()})
    pq.write_table(table, tmp_path / "r.parquet")
    assert find_row_groups(listing(tmp_path / "r.parquet"), COLUMNS) is None


def test_what_row_groups_cannot_tell_is_left_to_duckdb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {"a": pa.int64(), "b": pa.int64(), "v": pa.int32()}
    write(tmp_path / "r.parquet", 50, 1, "ms", kinds)
    files = listing(tmp_path / "r.parquet")
    assert find_row_groups(files, COLUMNS) is not None
    table = pq.read_table(files.paths[0])
    pq.write_table(table, tmp_path / "silent.parquet", write_statistics=False)
    assert find_row_groups(listing(tmp_path / "silent.parquet"), COLUMNS) is None
    (tmp_path / "a=1").mkdir()
    pq.write_table(table, tmp_path / "a=1" / "r.parquet")
    assert find_row_groups(listing(tmp_path / "a=1" / "r.parquet"), COLUMNS) is None
    pq.write_table(table.append_column("T", table["t"]), tmp_path / "case.parquet")
    assert find_row_groups(listing(tmp_path / "case.parquet"), COLUMNS) is None
    for changed in ({"adcode": "110000"}, {"time_format": "unix_s"}, {"node_columns": ("a",) * 3}):
        other = RecordColumns(**{**vars(COLUMNS), **changed})
        assert find_row_groups(files, other) is None
    monkeypatch.setattr(row_groups, "MOST_RECORDS", 1)
    assert find_row_groups(files, COLUMNS) is None
