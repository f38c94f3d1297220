"""The processes that do one command together; here, those of a command that runs alone.

Whatever asks the others goes through here, so that one process never touches `torch.distributed`
(which `processes.py` does) and the code that trains reads the same for one and for many.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

from flowpatch.launch import Launch

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


class World:
    """One process alone. `Processes` does the same with others.

    All of them call the same methods in the same order.
    """

    def __init__(self, launch: Launch | None = None) -> None:
        self.launch = launch or Launch()

    @property
    def is_alone(self) -> bool:
        """Whether there is no other process."""
        return self.launch.is_alone

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.launch.is_main

    def together(self) -> AbstractContextManager[None]:
        """Work inside this block is done by all or fails in all: nobody waits for one that failed.

        Raises:
            Exception: what was raised in any process; each raises its own, the others the first.
        """
        return nullcontext()

    def from_main(self, action: Callable[[], T]) -> T:
        """What an action of the main process returns or raises, in all."""
        return action()

    def gather(self, value: T) -> list[T]:
        """The values of all, by rank."""
        return [value]

    def hand_out(self, value: T) -> T:
        """The value of the first process of this machine."""
        return value

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether any process has set it."""
        return flags

    def add_up(self, tensor: "Tensor") -> None:
        """Replaces a tensor, in place, by the sum of those of all."""

    def gather_tensors(self, tensor: "Tensor") -> list["Tensor"]:
        """The tensors of all, of equal shape, by rank."""
        return [tensor]

    def spread(self, tensors: Sequence["Tensor"]) -> None:
        """Replaces tensors, in place, by those of the main process."""


@contextmanager
def joined() -> Iterator[World]:
    """The processes that this one was launched with, connected; alone where there are none.

    Inside another such block the connection is the same one.

    Raises:
        SettingsError: the environment does not say which process this is.
        ProcessLostError: not all of them came.
    """
    launch = Launch.of_environment()
    if launch.is_alone:
        yield World(launch)
        return
    # Imported here: what runs alone never touches it.
    from flowpatch.training.processes import connected

    with connected(launch) as world:
        yield world
