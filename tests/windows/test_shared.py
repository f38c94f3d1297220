"""Memory that the processes of a machine share; here they are threads of one."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch

from flowpatch.launch import Launch
from flowpatch.store.sample_store import SampleStore, open_store
from flowpatch.windows.in_memory import InMemory
from flowpatch.windows.shared import read_shared, read_shared_in_pieces, shared_array

T = TypeVar("T")
SIZE = 3


class Threads:
    """The threads of a machine; `Processes` does the same for processes."""

    def __init__(self, rank: int, barrier: threading.Barrier, said: dict) -> None:
        self.launch = Launch(rank, SIZE, rank, SIZE)
        self._barrier, self._said = barrier, said

    @contextmanager
    def together(self) -> Iterator[None]:
        yield
        self._barrier.wait()

    def hand_out(self, value: T) -> T:
        self._said[self.launch.rank] = value
        self._barrier.wait()
        found = self._said[0]
        self._barrier.wait()
        return found


def in_threads(action) -> list:
    barrier, said = threading.Barrier(SIZE, timeout=20), {}
    with ThreadPoolExecutor(SIZE) as pool:
        machines = [Threads(rank, barrier, said) for rank in range(SIZE)]
        return list(pool.map(action, machines))


def test_all_see_what_any_writes_and_it_has_no_name() -> None:
    arrays = in_threads(lambda machine: shared_array((4, 5), np.int16, machine))
    assert [array.shape for array in arrays] == [(4, 5)] * SIZE
    assert not any(array.any() for array in arrays)
    for rank, array in enumerate(arrays):
        array[rank] = rank + 1
    assert [array[:, 0].tolist() for array in arrays] == [[1, 2, 3, 0]] * SIZE
    # Without a name nothing is left behind, however a process ends.
    assert "/memfd:flowpatch (deleted)" in Path("/proc/self/maps").read_text()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The first steps of what any store was asked to read into memory."""
    asked, read_into = [], SampleStore.read_into

    def counted(self, values, first_step):
        asked.append(first_step)
        read_into(self, values, first_step)

    monkeypatch.setattr(SampleStore, "read_into", counted)
    return asked


def test_a_store_is_read_once(small_store: Path, reads: list) -> None:
    store = open_store(small_store)
    expected = store.read()
    for values in in_threads(lambda machine: read_shared(store, machine)):
        np.testing.assert_array_equal(values, expected)
    assert reads == [0]


@pytest.mark.parametrize("steps", [7, 100, 10_000])
def test_pieces_of_a_store_are_read_once(small_store: Path, reads: list, steps: int) -> None:
    store = open_store(small_store)
    expected = store.read()

    def put_together(machine: Threads | None) -> np.ndarray:
        values = np.zeros_like(expected)
        for first, piece in read_shared_in_pieces(store, machine, steps):
            values[first : first + len(piece)] = piece
        return values

    for values in in_threads(put_together):
        np.testing.assert_array_equal(values, expected)
    assert reads == list(range(0, len(expected), steps))
    np.testing.assert_array_equal(put_together(None), expected)


@pytest.mark.parametrize("missing", ["last", "mean", "zero"])
def test_batches_from_shared_memory_are_those_of_ones_own(small_store: Path, missing: str) -> None:
    store = open_store(small_store)
    own = InMemory.of_store(store, missing=missing)
    all_windows = in_threads(
        lambda machine: InMemory.of_store(store, missing=missing, machine=machine)
    )
    generator = np.random.default_rng(5)
    for _ in range(20):
        for windows in all_windows:
            origins = generator.integers(8, store.axis.length - 4, 6)
            found, expected = windows.batch(origins), own.batch(origins)
            assert torch.equal(found.x_BTN, expected.x_BTN)
            torch.testing.assert_close(found.y_BHN, expected.y_BHN, equal_nan=True)


def test_a_process_alone_reads_for_itself(small_store: Path) -> None:
    store = open_store(small_store)
    lone = Threads(0, threading.Barrier(1), {})
    lone.launch = Launch()
    for machine in (None, lone):
        np.testing.assert_array_equal(read_shared(store, machine), store.read())
