"""A Dask cluster that builds: one that runs already, or processes of this machine for one build.

What its workers do is in `block_work.py`, what is done with what they give back in `spreading.py`.
Dask is imported when a cluster is opened.
"""

import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future as LocalFuture
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from flowpatch.errors import (
    ClusterError,
    ClusterUnreachableError,
    FlowpatchError,
    UnfitWorkerError,
    needing_extra,
)
from flowpatch.interruption import raise_if_stop_asked
from flowpatch.places.reasons import first_line
from flowpatch.preprocessing.block_work import HOW_TO_FIT, clear_bench
from flowpatch.preprocessing.settings import PreprocessSettings

Item = TypeVar("Item")
Result = TypeVar("Result")

CONNECT_S = 10.0
"""For the scheduler to answer."""
ANSWER_S = 30.0
"""For workers to say what they have and see."""
GONE_S = 60.0
"""Without any worker, before it is given up; a nanny needs seconds to start one anew."""
STOP_S = 15.0
"""For workers to end what they are about once they were told to stop."""
POLL_S = 0.2
COUNT_S = 2.0
"""Between two looks at which workers there are."""
_LOGGERS = ("distributed", "distributed.client", "tornado", "asyncio")


class Cluster:
    """The workers of a scheduler, through a client; `name` is it in messages."""

    def __init__(self, client: Any, name: str) -> None:
        self._client, self.name = client, name
        self._workers = self._count()
        self._counted_at = self._seen_at = time.monotonic()

    @property
    def workers(self) -> int:
        """How many there were a moment ago."""
        return self._workers

    def wait_for_workers(self) -> None:
        """Makes sure that there is one.

        Raises:
            ClusterUnreachableError: none comes.
        """
        while not self._workers:
            raise_if_stop_asked()
            if time.monotonic() - self._seen_at > CONNECT_S:
                raise ClusterUnreachableError(
                    f"{self.name} has no worker. Start one or more where records and store are "
                    "seen: dask worker ADDRESS."
                )
            time.sleep(POLL_S)
            self._workers = self._count()

    def check(self, lacking: Callable[[], str | None]) -> None:
        """Asks every worker what it lacks.

        Raises:
            UnfitWorkerError: one lacks something.
        """
        for address, found in self._ask_all(lacking).items():
            if isinstance(found, Exception):
                found = f"cannot do the work of this flowpatch ({first_line(found)})"
            if found is not None:
                raise UnfitWorkerError(f"The worker {address} {found}. {HOW_TO_FIT}")

    def work_off(
        self,
        do: Callable[[Item, int], Result],
        items: Iterable[Item],
        between: Callable[[], None],
        stop: Callable[[], None],
    ) -> Generator[Result, None, None]:
        """Has each item done by some worker; gives the results as they come.

        `do` gets an item, and how many threads the worker has.

        As many are under way as there are workers, so that little is lost with them. An item whose
        worker dies is done again by another. `between` is called now and then while waiting. Left
        before the end, `stop` is called on every worker, and what is under way is waited for: once
        this returns, nobody writes any more, unless the cluster is out of reach.

        Raises:
            ClusterUnreachableError: scheduler or workers went away.
            ClusterError: an item brought down one worker after another.
            FlowpatchError: whatever doing it raised.
        """
        waiting, under_way = iter(items), set[Any]()
        try:
            while True:
                for item in islice(waiting, max(1, self._workers) - len(under_way)):
                    under_way.add(self._submit(do, item))
                if not under_way:
                    return
                done = self._wait(under_way, between)
                under_way -= done
                # Before results are looked at: no worker need wait for that.
                for item in islice(waiting, len(done)):
                    under_way.add(self._submit(do, item))
                for future in done:
                    yield self._result(future)
        finally:
            self._give_up(under_way, stop)

    def clear(self) -> None:
        """Has the workers give back what a build took there."""
        with suppress(Exception):
            self._ask_all(clear_bench)

    def _submit(self, do: Callable[[Item, int], Result], item: Item) -> Any:
        with warnings.catch_warnings():
            # That what is sent is large, for which there is no better way: it is sent once a part.
            warnings.simplefilter("ignore")
            return self._client.submit(_with_threads, do, item, pure=False)

    def _wait(self, under_way: Collection[Any], between: Callable[[], None]) -> set[Any]:
        """At least one that is done."""
        from distributed import CancelledError, wait

        while True:
            between()
            try:
                with self._client.as_current():
                    done = wait(under_way, timeout=POLL_S, return_when="FIRST_COMPLETED").done
                return set(done)
            except TimeoutError:
                self._check_alive()
            except CancelledError:
                raise self._gone() from None

    def _result(self, future: Any) -> Any:
        from distributed import KilledWorker

        if future.status == "finished":
            try:
                return future.result(timeout=ANSWER_S)
            except Exception as error:
                raise self._gone() from error
        if future.status != "error":
            raise self._gone()
        failure = future.exception()
        match failure:
            case FlowpatchError() | MemoryError():
                raise failure from None
            case KilledWorker():
                raise ClusterError(
                    f"{self.name}: some days brought down one worker after another, the last one "
                    f"{failure.last_worker.address}. That is mostly too little memory: start fewer "
                    "workers with more each, and look into their logs."
                ) from None
            case ImportError() | AttributeError():
                reason = first_line(failure)
                raise UnfitWorkerError(
                    f"A worker cannot do the work of this flowpatch ({reason}). {HOW_TO_FIT}"
                ) from failure
        raise failure

    def _check_alive(self) -> None:
        if self._client.status != "running":
            raise self._gone()
        now = time.monotonic()
        if now - self._counted_at < COUNT_S:
            return
        self._workers, self._counted_at = self._count(), now
        if self._workers:
            self._seen_at = now
        elif now - self._seen_at > GONE_S:
            raise ClusterUnreachableError(
                f"{self.name} has had no worker for {GONE_S:.0f} seconds."
            )

    def _count(self) -> int:
        try:
            return len(_within(ANSWER_S, self._client.nthreads))
        except Exception as error:
            raise self._gone() from error

    def _ask_all(self, ask: Callable[[], Any]) -> Mapping[str, Any]:
        try:
            answers: Mapping[str, Any] = _within(
                ANSWER_S, lambda: self._client.run(ask, on_error="return")
            )
        except TimeoutError as error:
            raise ClusterUnreachableError(
                f"The workers of {self.name} did not answer within {ANSWER_S:.0f} seconds. Look "
                "into their logs; a worker that hangs must be stopped."
            ) from error
        except OSError as error:
            raise self._gone() from error
        return answers

    def _give_up(self, futures: Collection[Any], stop: Callable[[], None]) -> None:
        if not futures or self._client.status != "running":
            return
        # The reason for giving up is told; what goes wrong with it as well is not.
        with suppress(Exception):
            self._ask_all(stop)
            end = time.monotonic() + STOP_S
            while any(future.status == "pending" for future in futures):
                if time.monotonic() > end:
                    break
                time.sleep(POLL_S / 10)
            self._client.cancel(list(futures), force=True)

    def _gone(self) -> ClusterUnreachableError:
        return ClusterUnreachableError(f"{self.name} went away.")


def _with_threads(do: Callable[[Item, int], Result], item: Item) -> Result:
    """Runs on a worker."""
    from distributed import get_worker

    return do(item, get_worker().state.nthreads)


@contextmanager
def open_cluster(settings: PreprocessSettings) -> Iterator[Cluster]:
    """The cluster that the settings name, or processes that end with the block.

    Raises:
        MissingExtraError: Dask is not installed.
        ClusterUnreachableError: no scheduler answers, or it has no worker.
    """
    with needing_extra("dask"):
        import distributed  # noqa: F401
    with ExitStack() as leaving:
        leaving.enter_context(_quiet())
        if settings.dask is not None:
            client = leaving.enter_context(_connected(settings.dask))
            cluster = Cluster(client, f"The Dask scheduler at {settings.dask}")
        else:
            workers = settings.workers or 1
            client = leaving.enter_context(_started(workers))
            cluster = Cluster(client, f"The cluster of {workers} processes on this machine")
        cluster.wait_for_workers()
        yield cluster
        cluster.clear()


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    from distributed import Client

    try:
        with warnings.catch_warnings():
            # Versions that matter are looked at by ourselves.
            warnings.simplefilter("ignore")
            client = Client(address, timeout=CONNECT_S, set_as_default=False)
    except Exception as error:
        # Whatever answers there may be no scheduler, or one of another Dask.
        raise ClusterUnreachableError(
            f"No Dask scheduler answers at {address} ({first_line(error)}). Check --dask, that "
            "`dask scheduler` runs there with the same version of Dask, and the network; or leave "
            "--dask out."
        ) from error
    try:
        yield client
    finally:
        _close(client)


@contextmanager
def _started(workers: int) -> Iterator[Any]:
    """Processes of this machine; nobody else can reach them."""
    import dask
    from distributed import Client, LocalCluster

    own = {
        # A worker that nears its share of the memory has nothing that it could put on a disk.
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        # Nobody looks at them, and they take a share of every core.
        "distributed.worker.profile.enabled": False,
    }
    with ExitStack() as leaving:
        folder = leaving.enter_context(TemporaryDirectory(prefix="flowpatch-dask-"))
        leaving.enter_context(dask.config.set(own))
        try:
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=max(1, (os.cpu_count() or 1) // workers),
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                worker_dashboard_address="127.0.0.1:0",
                local_directory=folder,
                silence_logs=logging.CRITICAL,
                preload=["flowpatch.preprocessing.quiet_worker"],
                security=True,
            )
        except (OSError, RuntimeError) as error:
            raise ClusterUnreachableError(
                f"Cannot start {workers} processes: {first_line(error)}. Give fewer --workers, or "
                "none."
            ) from error
        leaving.callback(_close, cluster)
        client = Client(cluster, timeout=CONNECT_S, set_as_default=False)
        leaving.callback(_close, client)
        yield client


def _close(opened: Any) -> None:
    """A cluster that went away cannot take leave."""
    with suppress(Exception):
        opened.close(timeout=ANSWER_S)


@contextmanager
def _quiet() -> Iterator[None]:
    """What Dask logs is told by errors of our own, once."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _within(seconds: float, ask: Callable[[], Result]) -> Result:
    """The answer to a question to which there may be none for ever.

    Raises:
        TimeoutError: there is none in time.
    """
    answer = LocalFuture[Result]()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, name="asking the cluster", daemon=True).start()
    return answer.result(seconds)
