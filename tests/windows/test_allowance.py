"""What a process may take: a limit that was given, or what machine and container have."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from flowpatch.windows import allowance
from flowpatch.windows.allowance import PROCESS_BYTES, Group, cgroups, memory_allowed, process_bytes

GB = 10**9


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_groups_of_version_2_are_found_up_the_tree(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    (tmp_path / "self").write_text("0::/pod/container\n")
    write(root / "pod", memory__max=8 * GB, memory__current=3 * GB, memory__stat="inactive_file 5")
    write(
        root / "pod/container",
        memory__max="max",
        memory__current=2 * GB,
        memory__stat="inactive_file 1",
    )
    assert list(cgroups(tmp_path / "self", root)) == [Group(8 * GB, 3 * GB - 5)]


@pytest.mark.parametrize("path", ["/docker/abc", "/"])
def test_groups_of_version_1_are_found_where_a_container_sees_them(
    tmp_path: Path, path: str
) -> None:
    # Inside a container the path is that of outside, and its group is at the root.
    root = tmp_path / "cgroup"
    (tmp_path / "self").write_text(f"5:cpu,cpuacct:/x\n4:memory:{path}\n0::/\n")
    write(
        root / "memory",
        memory__limit_in_bytes=4 * GB,
        memory__usage_in_bytes=GB,
        memory__stat=f"cache 7\ntotal_inactive_file {GB // 4}",
    )
    assert list(cgroups(tmp_path / "self", root)) == [Group(4 * GB, GB - GB // 4)]


def test_without_groups_there_are_none(tmp_path: Path) -> None:
    assert list(cgroups(tmp_path / "nothing", tmp_path)) == []
    (tmp_path / "self").write_text("0::/\n")
    assert list(cgroups(tmp_path / "self", tmp_path)) == []


@pytest.fixture
def real_group() -> Iterator[tuple[Path, int]]:
    """A group of the system itself, made for the test, and its limit."""
    root, limit = Path("/sys/fs/cgroup"), 2**30
    for parent, name in ((root / "memory", "memory.limit_in_bytes"), (root, "memory.max")):
        group = parent / f"flowpatch-test-{os.getpid()}"
        with suppress(OSError):
            group.mkdir()
            try:
                if (group / name).exists():
                    (group / name).write_text(str(limit))
                    yield group, limit
                    return
            finally:
                group.rmdir()
    pytest.skip("no group of memory can be made here: that takes root, and cgroups of a kind")


def test_a_process_finds_the_group_that_it_is_really_in(real_group: tuple[Path, int]) -> None:
    group, limit = real_group
    code = "from flowpatch.windows.allowance import *; a = memory_allowed(); print(a.bytes, a.of)"
    words = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group)]
    found = subprocess.run(
        [*words, sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    bytes_allowed, of = found.stdout.split(maxsplit=1)
    assert of.strip() == "this container"
    assert 0.8 * limit < int(bytes_allowed) <= 0.9 * limit


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> list[Group]:
    """A machine of 20 GB with 15 GB free, where this process holds 1 GB; its groups."""
    groups: list[Group] = []
    memory = SimpleNamespace(total=20 * GB, available=15 * GB)
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=GB))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(psutil, "Process", lambda: process)
    monkeypatch.setattr(allowance, "cgroups", lambda: iter(groups))
    return groups


@pytest.mark.parametrize(
    ("group", "limit", "allowed", "of"),
    [
        (None, None, 16 * GB, "this machine"),
        (None, 2 * GB, 2 * GB, "--memory-limit"),
        (None, 50 * GB, 20 * GB, "this machine"),
        (Group(8 * GB, GB), None, int(7.2 * GB), "this container"),
        (Group(8 * GB, 5 * GB), None, 4 * GB, "this container"),
        (Group(8 * GB, 5 * GB), 6 * GB, 6 * GB, "--memory-limit"),
        (Group(8 * GB, 5 * GB), 9 * GB, 8 * GB, "this container"),
        (Group(2**63 - 4096, GB), None, 16 * GB, "this machine"),
    ],
)
def test_what_is_allowed(
    machine: list[Group], group: Group | None, limit: int | None, allowed: int, of: str
) -> None:
    machine += [group] if group else []
    found = memory_allowed(limit)
    assert (found.bytes, found.of) == (allowed, of)


def test_this_machine_allows_something() -> None:
    assert 0 < memory_allowed().bytes <= psutil.virtual_memory().total


def test_what_the_process_holds_is_a_fixed_figure_until_it_holds_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = SimpleNamespace(rss=0)
    process = SimpleNamespace(memory_info=lambda: held)
    monkeypatch.setattr(psutil, "Process", lambda: process)
    for held.rss in (200 * 10**6, 390 * 10**6):
        assert process_bytes() == PROCESS_BYTES
    held.rss = 3 * GB
    assert held.rss <= process_bytes() < held.rss + 256 * 10**6
