"""Windows put together: the order does not matter, contradictions are counted, nothing is lost."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowpatch.tables.rebuild import Overlaps, Rebuilding

STEPS, NODES = 8, 3
ALL = np.arange(NODES)

PLACED = st.tuples(
    st.integers(0, STEPS - 2),
    st.sampled_from([ALL, np.array([0, 2]), np.array([2, 1, 0])]),
    st.lists(st.sampled_from([1.0, 2.0, np.nan]), min_size=6, max_size=6),
    st.booleans(),
)


def rebuilt(folder: Path, windows: list[Any]) -> Rebuilding:
    found = Rebuilding(folder, STEPS, NODES)
    for first, nodes, values, labels in windows:
        block = np.array(values, dtype=np.float32).reshape(2, 3)[:, : len(nodes)]
        found.place(first, nodes, block, labels=labels)
    return found


def plain(windows: list[Any]) -> tuple[np.ndarray, Overlaps]:
    """Cell by cell: the labels' smallest value, else the inputs'; NaN only where all are."""
    seen: dict[tuple[int, int], list[tuple[bool, float]]] = {}
    for first, nodes, values, labels in windows:
        block = np.array(values).reshape(2, 3)[:, : len(nodes)]
        for row in range(2):
            for column, node in enumerate(nodes):
                seen.setdefault((first + row, int(node)), []).append((labels, block[row, column]))
    series = np.full((STEPS, NODES), np.nan, dtype=np.float32)
    twice = contradicted = 0
    for cell, found in seen.items():
        of_labels = [value for labels, value in found if labels]
        chosen = of_labels or [value for _, value in found]
        numbers = [value for value in chosen if not np.isnan(value)]
        series[cell] = min(numbers) if numbers else np.nan
        twice += len(found) > 1
        contradicted += len({str(value) for _, value in found}) > 1
    return series, Overlaps(twice, contradicted)


@settings(max_examples=150)
@given(windows=st.lists(PLACED, max_size=6), seed=st.integers(0, 5))
def test_it_is_as_taken_cell_by_cell_in_any_order(
    windows: list[Any], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shuffled = [windows[i] for i in np.random.default_rng(seed).permutation(len(windows))]
    found = rebuilt(tmp_path_factory.mktemp("rebuild"), shuffled)
    series, overlaps = plain(windows)
    np.testing.assert_array_equal(found.read(0, STEPS), series)
    assert found.overlaps() == overlaps


def test_a_folder_is_gone_on_with(tmp_path: Path) -> None:
    first = Rebuilding(tmp_path, STEPS, NODES)
    first.place(0, ALL, np.full((2, NODES), 5, dtype=np.float32), labels=True)
    again = Rebuilding(tmp_path, STEPS, NODES)
    again.place(2, ALL, np.full((2, NODES), 6, dtype=np.float32), labels=True)
    np.testing.assert_array_equal(again.read(0, 4)[:, 0], [5, 5, 6, 6])
    np.testing.assert_array_equal(again.unseen(), [False] * 4 + [True] * 4)


def test_no_overlap_contradicts_nothing() -> None:
    assert Overlaps(0, 0).share == 0.0


def test_a_kill_while_the_files_are_made_leaves_no_zeros(tmp_path: Path) -> None:
    for name, size in (("values.f4", 4), ("seen.u1", 1)):
        (tmp_path / f"{name}.filling").write_bytes(bytes(STEPS * NODES * size))
    assert np.isnan(Rebuilding(tmp_path, STEPS, NODES).read(0, STEPS)).all()
