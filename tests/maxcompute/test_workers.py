"""Workers: every task once, failures mended or raised, a dead process named, none left behind."""

import os
import time
from collections.abc import Callable

import psutil
import pytest

from flowpatch.errors import MaxComputeError
from flowpatch.maxcompute.workers import Workers


def square(task: int) -> int:
    return task * task


def fail_on_odd(task: int) -> int:
    if task % 2:
        raise ValueError(f"{task} is odd")
    return task


def die_on_three(task: int) -> int:
    if task == 3:
        os._exit(1)
    return task


def sleep_long(task: int) -> int:
    time.sleep(0 if task == 0 else 60)
    return task


def children() -> int:
    return len(psutil.Process().children(recursive=True))


@pytest.mark.parametrize("count", [0, 2])
def test_every_task_is_done_once(count: int) -> None:
    with Workers(square, count) as workers:
        assert sorted(workers.results(range(20))) == [(task, task * task) for task in range(20)]


@pytest.mark.parametrize("count", [0, 2])
def test_a_failed_task_is_mended(count: int) -> None:
    with Workers(fail_on_odd, count) as workers:
        found = workers.results(range(6), lambda task, error: task + 100 - 1)
        assert sorted(result for _, result in found) == [0, 2, 4, 100, 102, 104]


@pytest.mark.parametrize("count", [0, 2])
def test_a_failure_that_nobody_mends_is_raised(count: int) -> None:
    # One failure alone: of two at once, either may be seen first.
    with Workers(fail_on_odd, count) as workers, pytest.raises(ValueError, match="1 is odd"):
        list(workers.results([0, 2, 1, 4]))


def test_a_dead_process_is_an_error_that_says_what_to_do() -> None:
    with Workers(die_on_three, 2) as workers, pytest.raises(MaxComputeError, match="--workers"):
        list(workers.results(range(6)))


def leave_early(work: Callable[[int], int]) -> None:
    with Workers(work, 2) as workers:
        for _ in workers.results(range(4)):
            raise InterruptedError


def test_leaving_early_waits_for_nothing_and_leaves_no_process() -> None:
    before, begun = children(), time.monotonic()
    with pytest.raises(InterruptedError):
        leave_early(sleep_long)
    assert time.monotonic() - begun < 30
    # The resource tracker of multiprocessing stays, one for all.
    assert children() <= before + 1
