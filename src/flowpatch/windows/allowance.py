"""How much memory this process may take: what was asked for, or what machine and container have.

A container is a cgroup, of version 1 or 2; any group above it may be the one that is short.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

PROCESS_BYTES = 400 * 10**6
"""What Python, torch and the libraries take before there is a series or a model: 260 to 350 MB.
A fixed figure, so that the same settings always cut the same blocks."""
_STEP_BYTES = 256 * 10**6
"""By so much more, where the process holds more than that already."""
_SPARE_SHARE = 0.1
"""Of a machine or container, left to others."""
_CGROUPS = Path("/sys/fs/cgroup")
_OF_PROCESS = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Allowance:
    """Bytes that the process may take in all, `of` a limit that was given, machine or container."""

    bytes: int
    of: str


@dataclass(frozen=True)
class Group:
    """The limit of a cgroup, and what of it is taken by what cannot be given back."""

    limit: int
    taken: int


def memory_allowed(limit: int | None = None) -> Allowance:
    """What the process may take: the limit that was given, but no more than there is at all.

    Without a limit it is what machine and container have, less a tenth, or less than that where
    others have taken it.
    """
    memory, groups = psutil.virtual_memory(), list(cgroups())
    has = min([memory.total, *(group.limit for group in groups)])
    if limit is not None:
        whose = "--memory-limit" if limit <= has else _whose(has, memory.total)
        return Allowance(min(limit, has), whose)
    free = min([memory.available, *(group.limit - group.taken for group in groups)])
    mine = psutil.Process().memory_info().rss
    least = min(int(has * (1 - _SPARE_SHARE)), free + mine)
    return Allowance(least, _whose(has, memory.total))


def process_bytes() -> int:
    """What the process takes without series and model."""
    beyond = int(psutil.Process().memory_info().rss) - PROCESS_BYTES
    return PROCESS_BYTES + max(0, -(-beyond // _STEP_BYTES)) * _STEP_BYTES


def cgroups(of_process: Path = _OF_PROCESS, root: Path = _CGROUPS) -> Iterator[Group]:
    """The limited groups of memory that this process is in, from its own to the outermost."""
    with suppress(OSError):
        for line in of_process.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield from _up(root, path, ("memory.max", "memory.current", "inactive_file"))
            elif "memory" in controllers.split(","):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                yield from _up(root / "memory", path, names)


def _up(root: Path, path: str, names: tuple[str, str, str]) -> Iterator[Group]:
    """Groups from a path up to the root; inside a container the path may be that of outside."""
    limit_name, usage_name, cache_name = names
    folder = root / path.strip("/")
    for group in [folder, *folder.parents]:
        with suppress(OSError, ValueError, LookupError):
            # "max" where there is no limit, which is no number.
            limit = int((group / limit_name).read_text())
            usage = int((group / usage_name).read_text())
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            # Pages of files that were read are given back when memory is short.
            yield Group(limit, max(0, usage - int(stat[cache_name])))
        if group == root:
            break


def _whose(has: int, machine: int) -> str:
    return "this container" if has < machine else "this machine"
