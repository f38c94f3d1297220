"""Scatter and aggregation, against a plain dictionary loop: any order of records and batches."""

import math
import tracemalloc
from collections import defaultdict
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowpatch.errors import RecordError
from flowpatch.series import dense
from flowpatch.series.buckets import Buckets
from flowpatch.series.dense import CELL_BYTES, COUNTED_BY_DAY, RecordCounts, Scatter, list_causes
from flowpatch.sources.aggregation import Aggregate
from flowpatch.sources.contract import NODE_WITHOUT_COORDINATES, UNKNOWN_NODE, RecordBlock

STEPS, NODES = 4, 3
DAY_STEPS = 2
AGGREGATES: tuple[Aggregate, ...] = ("mean", "sum", "max", "last")

Record = tuple[int, int, float, int]
"""Step, node, value, instant."""

numbers = st.sampled_from([0.0, 0.1, 0.2, 0.3, 1 / 3, -0.7, 5.0, 1e4, -12345.678]) | st.integers(
    -100, 100
).map(float)
values = st.one_of(numbers, numbers, st.just(math.nan))
# Instants repeat, so that `last` has ties to break.
records = st.lists(
    st.tuples(
        st.integers(0, STEPS - 1),
        st.sampled_from([0, 1, 2, 0, 1, 2, UNKNOWN_NODE, NODE_WITHOUT_COORDINATES]),
        values,
        st.integers(0, 3),
    ),
    max_size=40,
)


def block_of(rows: list[Record]) -> RecordBlock:
    step, node, value, instant = zip(*rows, strict=True) if rows else ((), (), (), ())
    return RecordBlock(
        np.array(step, np.int64),
        np.array(node, np.int32),
        np.array(value, np.float32),
        np.array(instant, np.int64),
    )


def scatter(
    batches: list[list[Record]], aggregate: Aggregate, null_value: float | None = None
) -> tuple[np.ndarray, RecordCounts]:
    gatherer = Scatter(STEPS, NODES, aggregate, null_value, day_steps=DAY_STEPS)
    for batch in batches:
        gatherer.add(block_of(batch))
    values, by_day = gatherer.finish()
    return values, RecordCounts.of_days(by_day, int(np.isfinite(values).sum()))


def plain(
    rows: list[Record], aggregate: Aggregate, null_value: float | None
) -> tuple[np.ndarray, dict[str, int]]:
    """The same by a dictionary of lists, with sums that are exact (fsum)."""
    counts: dict[str, int] = defaultdict(int, read=len(rows))
    cells: dict[tuple[int, int], list[tuple[int, float]]] = defaultdict(list)
    for step, node, value, instant in rows:
        value = float(np.float32(value))
        if node == UNKNOWN_NODE:
            counts["unknown_node"] += 1
        elif node == NODE_WITHOUT_COORDINATES:
            counts["node_without_coordinates"] += 1
        elif math.isnan(value):
            counts["not_a_number"] += 1
        elif null_value is not None and value == float(np.float32(null_value)):
            counts["null_value"] += 1
        else:
            counts["used"] += 1
            counts["repeated"] += (step, node) in cells
            cells[step, node].append((instant, value))
    result = np.full((STEPS, NODES), np.nan, np.float32)
    for (step, node), found in cells.items():
        total = math.fsum(value for _, value in found)
        result[step, node] = {
            "mean": total / len(found),
            "sum": total,
            "max": max(value for _, value in found),
            "last": max(found)[1],
        }[aggregate]
    return result, counts


@pytest.mark.parametrize("aggregate", AGGREGATES)
@given(rows=records, null_value=st.sampled_from([None, 0.0, 0.1]), data=st.data())
def test_any_order_and_any_batches_give_what_a_dictionary_loop_gives(
    aggregate: Aggregate, rows: list[Record], null_value: float | None, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(rows))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    borders = [0, *cuts, len(rows)]
    batches = [shuffled[a:b] for a, b in pairwise(borders)]

    found, counts = scatter(batches, aggregate, null_value)
    expected, expected_counts = plain(rows, aggregate, null_value)
    np.testing.assert_array_equal(found, expected)
    assert {k: v for k, v in asdict(counts).items() if v} == {
        k: v for k, v in expected_counts.items() if v
    }
    # The order in which records came leaves no trace in a single bit.
    assert found.tobytes() == scatter([rows], aggregate, null_value)[0].tobytes()


@given(rows=records, null_value=st.sampled_from([None, 0.0]))
def test_every_record_read_is_used_or_has_one_cause(
    rows: list[Record], null_value: float | None
) -> None:
    counts = asdict(scatter([rows], "mean", null_value)[1])
    read, repeated = counts.pop("read"), counts.pop("repeated")
    assert read == len(rows) == sum(counts.values())
    assert repeated <= counts["used"]


def test_a_mean_of_many_tenths_is_a_tenth() -> None:
    """Summed in float32, a million tenths drift to 0.1009."""
    count = 1_000_000
    gatherer = Scatter(1, 1, "mean")
    zeros = np.zeros(count, np.int64)
    gatherer.add(RecordBlock(zeros, zeros.astype(np.int32), np.full(count, 0.1, np.float32)))
    assert gatherer.finish()[0][0, 0] == np.float32(0.1)


def test_a_mean_is_of_all_records_and_not_of_the_means_of_batches() -> None:
    values, counts = scatter([[(0, 0, 1.0, 0)] * 3, [(0, 0, 5.0, 0)]], "mean")
    assert values[0, 0] == 2
    assert (counts.used, counts.repeated) == (4, 3)


def test_last_takes_the_latest_instant_even_if_it_came_first() -> None:
    values, _ = scatter([[(0, 0, 3.0, 9)], [(0, 0, 8.0, 1)], [(0, 0, 2.0, 9)]], "last")
    assert values[0, 0] == 3


def test_last_without_instants_is_a_fault_of_the_caller() -> None:
    block = block_of([(0, 0, 1.0, 0)])
    with pytest.raises(ValueError, match="needs the instants"):
        Scatter(1, 1, "last").add(RecordBlock(block.step, block.node, block.value))


def test_a_cell_without_record_is_missing_and_not_zero() -> None:
    for aggregate in AGGREGATES:
        values, counts = scatter([[], [(1, 1, 0.0, 0)]], aggregate)
        assert np.isnan(values).sum() == STEPS * NODES - 1
        assert values[1, 1] == 0
        assert values.dtype == np.float32
        assert counts.used == 1


def test_a_null_value_is_met_after_rounding_and_with_either_sign_of_zero() -> None:
    assert scatter([[(0, 0, 0.1, 0)]], "sum", null_value=0.1)[1].null_value == 1
    assert scatter([[(0, 0, -0.0, 0)]], "sum", null_value=0.0)[1].null_value == 1
    assert scatter([[(0, 0, -1.0, 0)]], "sum", null_value=1.0)[1].null_value == 0


def test_a_null_value_beyond_float32_meets_no_record() -> None:
    assert scatter([[(0, 0, 1.0, 0)]], "sum", null_value=1e300)[1].used == 1


@given(rows=records, aggregate=st.sampled_from(AGGREGATES))
def test_each_day_counts_its_own_records(rows: list[Record], aggregate: Aggregate) -> None:
    gatherer = Scatter(STEPS, NODES, aggregate, 0.0, day_steps=DAY_STEPS)
    gatherer.add(block_of(rows))
    _, by_day = gatherer.finish()
    for day, counts in enumerate(by_day):
        own = [row for row in rows if row[0] // DAY_STEPS == day]
        _, expected = plain(own, aggregate, 0.0)
        assert {k: v for k, v in zip(COUNTED_BY_DAY, counts.tolist(), strict=True) if v} == {
            k: v for k, v in expected.items() if v and k != "repeated"
        }


def test_counts_add_up_cause_by_cause() -> None:
    one = RecordCounts(*range(1, 10))
    assert one + one == RecordCounts(*range(2, 20, 2))
    assert RecordCounts() + one == one


def test_dropped_are_the_faults_and_not_what_was_chosen() -> None:
    counts = RecordCounts(read=100, used=10, out_of_period=50, null_value=40)
    assert sum(counts.dropped.values()) == 0
    counts.check_dropped_share(0)


def test_a_share_at_the_limit_passes_and_one_record_more_does_not() -> None:
    RecordCounts(read=100, used=95, unknown_node=3, not_a_number=2).check_dropped_share(0.05)
    with pytest.raises(RecordError) as caught:
        RecordCounts(read=100, used=94, unknown_node=4, without_time=2).check_dropped_share(0.05)
    message = str(caught.value)
    assert "6 of 100 records cannot be used (6.0%)" in message
    assert "2 without time, 4 unknown node. Allowed: 5.0%" in message
    assert "--max-dropped-share" in message


def test_records_out_of_the_period_do_not_hide_a_bad_period() -> None:
    counts = RecordCounts(read=10_000, used=60, out_of_period=9_900, unknown_node=40)
    with pytest.raises(RecordError, match=r"40 of 100 records cannot be used \(40.0%\)"):
        counts.check_dropped_share(0.05)


def test_no_record_at_all_drops_no_share() -> None:
    RecordCounts().check_dropped_share(0)
    assert list_causes(RecordCounts().dropped) == "none dropped"


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("many", [False, True])
def test_no_rule_holds_more_than_it_states(
    aggregate: Aggregate, many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So large that four bytes a cell would be more than what does not grow with the cells.
    shape = (40, 150_000)
    block = RecordBlock(
        np.full(5000, 39), np.arange(5000, dtype=np.int32), np.ones(5000, np.float32),
        np.arange(5000),
    )  # fmt: skip
    # A pool of a few pages, so that most records are reduced before the end.
    monkeypatch.setattr(Buckets.__init__, "__defaults__", (1, 2000))
    gathered = Scatter(*shape, aggregate, many=many)
    gathered.add(block)  # Compiled before memory is watched.
    gathered.finish()
    tracemalloc.start()
    try:
        gathered = Scatter(*shape, aggregate, many=many)
        gathered.add(block)
        gathered.add(block)
        before, _ = tracemalloc.get_traced_memory()
        values, _ = gathered.finish()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.isfinite(values).sum() == 5000
    cells, fixed = shape[0] * shape[1], 12 * 2**20
    assert 8 * cells < max(before, peak) or aggregate == "max"
    assert peak < min(16, CELL_BYTES[aggregate]) * cells + fixed


@given(rows=records, cells=st.integers(1, 13))
def test_sums_become_values_alike_however_many_at_a_time(rows: list[Record], cells: int) -> None:
    expected, _ = scatter([rows], "mean")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dense, "FINISHED_CELLS", cells)
        found, _ = scatter([rows], "mean")
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))
