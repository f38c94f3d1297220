"""Spawned processes that work through tasks, a bounded number of them under way.

Spawned, not forked: a fork would share the client's open sockets.
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Generic, TypeVar

from flowpatch.errors import MaxComputeError

T = TypeVar("T")
R = TypeVar("R")


class Workers(Generic[T, R]):
    """Calls `work` on tasks in `count` processes; with none, in this one.

    `work` is sent to each process once, a task and its result each time. Used as a context
    manager.
    """

    def __init__(self, work: Callable[[T], R], count: int) -> None:
        self._work, self._count = work, count
        self._pool: ProcessPoolExecutor | None = None
        self._running: dict[Future[R], T] = {}

    def __enter__(self) -> "Workers[T, R]":
        if self._count:
            self._pool = ProcessPoolExecutor(
                self._count,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start,
                initargs=(self._work,),
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._pool is None:
            return
        if self._running:
            # Nobody waits for what is still under way, and it may wait for MaxCompute itself, for
            # as long as its patience lasts.
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None

    def results(
        self, tasks: Iterable[T], mend: Callable[[T, Exception], T] | None = None
    ) -> Iterator[tuple[T, R]]:
        """(task, result) of each, in any order.

        Args:
            tasks: taken as workers become free.
            mend: gives a task to do in place of one that failed, or raises.

        Raises:
            MaxComputeError: a process died.
        """
        if self._pool is None:
            for task in tasks:
                yield self._here(task, mend)
            return
        waiting = iter(tasks)
        while True:
            for task in waiting:
                self._running[self._pool.submit(_call, task)] = task
                if len(self._running) >= 2 * self._count:
                    break
            if not self._running:
                return
            yield from self._finished(self._pool, mend)

    def _here(self, task: T, mend: Callable[[T, Exception], T] | None) -> tuple[T, R]:
        while True:
            try:
                return task, self._work(task)
            except Exception as error:
                if mend is None:
                    raise
                task = mend(task, error)

    def _finished(
        self, pool: ProcessPoolExecutor, mend: Callable[[T, Exception], T] | None
    ) -> Iterator[tuple[T, R]]:
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        for future in done:
            task = self._running.pop(future)
            try:
                result = future.result()
            except BrokenProcessPool:
                raise MaxComputeError(
                    "A worker process died, most likely for want of memory. Use fewer --workers."
                ) from None
            except Exception as error:
                if mend is None:
                    raise
                again = mend(task, error)
                self._running[pool.submit(_call, again)] = again
                continue
            yield task, result


_work: Callable[[Any], Any]


def _start(work: Callable[[Any], Any]) -> None:
    global _work
    # Ctrl-C is the parent's concern, which ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _work = work


def _call(task: Any) -> Any:
    return _work(task)
