"""How this process was launched: alone, or as one of several that do one command together.

`torchrun` and `accelerate launch` start the same command several times, on one machine or on
more, and say in the environment which of them each is:

    machine         A       B
    rank          0   1   2   3     of size 4; rank 0 is the main process: it writes and speaks
    local rank    0   1   0   1     of local size 2; local rank 0 is the first of its machine

Free of torch, which a command that runs alone need not wait for here.
"""

import os
from dataclasses import dataclass

from flowpatch.errors import SettingsError


@dataclass(frozen=True)
class Launch:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_alone(self) -> bool:
        """Whether there is no other process."""
        return self.size == 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    @property
    def is_first_here(self) -> bool:
        """Whether this is the first process of its machine."""
        return self.local_rank == 0

    @property
    def first_here(self) -> int:
        """The rank of the first process of this machine: a launcher numbers machine by machine."""
        return self.rank - self.local_rank

    @classmethod
    def of_environment(cls) -> "Launch":
        """What the launcher says.

        Raises:
            SettingsError: it contradicts itself, or leaves something out.
        """
        if not is_one_of_several():
            return cls()
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        said = {name: os.environ.get(name, "") for name in names}
        text = ", ".join(f"{name}={value}" for name, value in said.items())
        if not all(value.isdecimal() for value in said.values()):
            raise SettingsError(
                f"The environment tells of several processes, but not which this one is: {text}. "
                "Start them with torchrun or accelerate launch, or unset WORLD_SIZE."
            )
        rank, size, local_rank, local_size = map(int, said.values())
        if not (rank < size and local_rank < local_size <= size and local_rank <= rank):
            raise SettingsError(
                f"The environment contradicts itself: {text}. Start the processes with torchrun "
                "or accelerate launch, or unset WORLD_SIZE."
            )
        return cls(rank, size, local_rank, local_size)


def is_main() -> bool:
    """Whether this process speaks for all, whatever else the environment says."""
    return not is_one_of_several() or os.environ.get("RANK", "0") == "0"


def is_one_of_several() -> bool:
    """Whether a launcher started more than this process."""
    size = os.environ.get("WORLD_SIZE", "1")
    return size.isdecimal() and int(size) > 1
