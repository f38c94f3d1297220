"""Several processes, connected by `torch.distributed`: gloo between hosts, NCCL between GPUs.

What goes wrong in one must not leave the others waiting, nor be told by each of them:

    fails where all do the same      all raise it, one says it          `together`, `from_main`
    dies, or fails on its own        the others raise ProcessLostError  every operation here
    says something                   the first one to say it            `one_voice`
"""

import hashlib
import os
import pickle
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from flowpatch.errors import FlowpatchError, ProcessLostError
from flowpatch.launch import Launch, is_main
from flowpatch.places.reasons import first_line
from flowpatch.training.world import World

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)
"""For a process that lives but does not come: the first of a machine may read from far away."""
_VOICE_PATIENCE = timedelta(seconds=10)


class Processes(World):
    """One of several processes that are connected."""

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work that is done by all or fails in all."""
        mine: Exception | None = None
        try:
            yield
        except Exception as error:
            mine = error
        found = self.gather((_portable(mine), socket.gethostname()))
        met = [(error, host) for error, host in found if error is not None]
        if mine is not None and len(met) == len(found):
            raise mine
        if met:
            raise _at(*met[0], self.launch) from mine

    def from_main(self, action: Callable[[], T]) -> T:
        """What an action of the main process returns or raises, in all."""
        handed: list[Any] = [_Outcome.of(action) if self.is_main else None]
        with _noticing_loss():
            dist.broadcast_object_list(handed, src=0)
        outcome: _Outcome[T] = handed[0]
        return outcome.take()

    def gather(self, value: T) -> list[T]:
        """The values of all, by rank."""
        found: list[Any] = [None] * self.launch.size
        with _noticing_loss():
            dist.all_gather_object(found, value)
        return found

    def hand_out(self, value: T) -> T:
        """The value of the first process of this machine."""
        return self.gather(value)[self.launch.first_here]

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether any process has set it."""
        # On the host, so that no GPU is waited for.
        counts = torch.tensor(flags, dtype=torch.int32)
        self.add_up(counts)
        return tuple(count > 0 for count in counts.tolist())

    def add_up(self, tensor: Tensor) -> None:
        """Replaces a tensor, in place, by the sum of those of all."""
        with _noticing_loss():
            dist.all_reduce(tensor)

    def gather_tensors(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all, of equal shape, by rank."""
        found = [torch.empty_like(tensor) for _ in range(self.launch.size)]
        with _noticing_loss():
            dist.all_gather(found, tensor)
        return found

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Replaces tensors, in place, by those of the main process."""
        with _noticing_loss(), torch.no_grad():
            for tensor in tensors:
                dist.broadcast(tensor, src=0)


@contextmanager
def connected(launch: Launch) -> Iterator[World]:
    """The processes of a launch, connected for the time of this block."""
    if dist.is_initialized():
        yield Processes(launch)
        return
    # NCCL connects when a GPU first asks for it.
    with _noticing_loss():
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE
        )
    world = Processes(launch)
    try:
        yield world
        # Nobody leaves while another may still ask.
        world.gather(None)
    except ProcessLostError:
        _ignore_termination()
        raise
    finally:
        dist.destroy_process_group()


@contextmanager
def one_voice(message: str) -> Iterator[bool]:
    """Whether this process is the one that says a message which others may have to say as well.

    The others wait until it is said: a launcher ends all when the first one goes.
    """
    said = f"said/{hashlib.sha256(message.encode()).hexdigest()}"
    done = f"{said}/done"
    try:
        store = _launcher_store()
        if store is None:
            is_first = is_main()
        elif not (is_first := store.add(said, 1) == 1):
            store.wait([done], _VOICE_PATIENCE)
    except (RuntimeError, OSError):
        # Better said twice than never.
        store, is_first = None, True
    yield is_first
    if store is not None and is_first:
        with suppress(RuntimeError, OSError):
            store.set(done, "")


def _launcher_store() -> Store | None:
    """The launcher's own table of keys, which outlives any process that it started."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    # It is another one for processes that are started anew, which have something new to say.
    store, _, _ = next(rendezvous("env://", timeout=_VOICE_PATIENCE))
    return PrefixStore("flowpatch", store)


@dataclass(frozen=True)
class _Outcome(Generic[T]):
    """What an action returned, or what it raised."""

    value: T | None
    error: Exception | None

    @classmethod
    def of(cls, action: Callable[[], T]) -> "_Outcome[T]":
        try:
            return cls(action(), None)
        except Exception as error:
            return cls(None, _portable(error))

    def take(self) -> T:
        if self.error is not None:
            raise self.error
        return cast(T, self.value)


def _portable(error: Exception | None) -> Exception | None:
    """The error, or its description where it does not survive the way to another process."""
    try:
        # Made on the line itself.
        pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _at(error: Exception, host: str, launch: Launch) -> Exception:
    """An error that not all processes met, with the machine on which it was met."""
    if isinstance(error, FlowpatchError) and launch.local_size < launch.size:
        return type(error)(f"{error} (on {host})")
    return error


@contextmanager
def _noticing_loss() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ProcessLostError(
            f"Another process of this command has ended or cannot be reached ({first_line(error)})."
        ) from error


def _ignore_termination() -> None:
    """The launcher ends those that are left; what they still say and save takes a moment."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
