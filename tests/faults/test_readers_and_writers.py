"""Processes at one store at once: readers see whole versions, and one writer writes."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from command_forker import Commands
from flowpatch.preprocessing.build import preprocess
from flowpatch.preprocessing.settings import UpdateSettings
from flowpatch.preprocessing.update import update
from growing_city import GrowingCity, Grown, hashes_of

COMMITS = 50

READ_ON = """
import json, sys
from pathlib import Path
from flowpatch.store.sample_store import open_store
from growing_city import recomputed_hash

path, stop = Path(sys.argv[1]), Path(sys.argv[2])
current = open_store(path)
print("reading", flush=True)
reads, torn, seen, rounds = 0, [], set(), 0
while True:
    is_last = stop.exists()
    newest = open_store(path)
    for info in [None, *newest.versions()]:
        store = newest if info is None else open_store(path, info.version)
        reads += 1
        seen.add(store.version)
        if recomputed_hash(store) != store.manifest.content_hash:
            torn.append(store.version)
    rounds += 1
    if is_last:
        break
print(json.dumps({"reads": reads, "torn": torn, "versions": len(seen), "rounds": rounds}))
"""


def test_a_reader_never_sees_half_a_version(tmp_path: Path) -> None:
    """The writer commits 50 times, by updates and builds; the reader loops over all versions."""
    city = GrowingCity(tmp_path / "city")
    city.write_days(range(3))
    store, stop = tmp_path / "s", tmp_path / "stop"
    preprocess(city.settings(store))
    reader = subprocess.Popen(
        [sys.executable, "-c", READ_ON, store, stop],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"},
    )
    assert reader.stdout
    assert reader.stdout.readline() == "reading\n"
    for commit in range(COMMITS):
        city.write_days([commit % 3, 3 + commit // 10], seed=commit + 1)
        if commit % 5 == 4:
            preprocess(city.settings(store, overwrite=True))
        else:
            update(store, UpdateSettings(keep_days=5))
    stop.touch()
    out, err = reader.communicate(timeout=120)
    assert reader.returncode == 0, err
    found = json.loads(out)
    print(
        f"\n{COMMITS} commits beside a reader: {found['reads']} reads of {found['versions']} "
        f"versions in {found['rounds']} rounds, {len(found['torn'])} torn"
    )
    assert found["torn"] == []
    assert found["rounds"] > 2
    assert found["versions"] == COMMITS + 1 == len(hashes_of(store))


def command_of(name: str, grown: Grown, store: Path) -> list[str]:
    return grown.city.command(store, "--overwrite") if name == "build" else ["update", str(store)]


@pytest.mark.parametrize("ends", ["killed", "finishes"])
@pytest.mark.parametrize("holder", ["build", "update"])
def test_a_second_writer_is_told_who_the_first_is(
    holder: str, ends: str, grown: Grown, commands: Commands, tmp_path: Path
) -> None:
    store = grown.store_before(tmp_path / "s")
    running = commands.freeze(
        command_of(holder, grown, store), at="flowpatch.store.writer:StoreWriter.keep"
    )
    for name in ("build", "update"):
        for more in ([], ["--resume"]):
            refused = commands.run([*command_of(name, grown, store), *more])
            assert refused.code == 1
            who = (
                f"is being written by process {running.process} on {socket.gethostname()} since 20"
            )
            assert who in refused.said, refused.said
    assert list(hashes_of(store).values()) == [grown.hash_before], "readers are not held up"
    if ends == "killed":
        running.kill()
        assert running.wait().is_killed
        taken_over = commands.run(command_of("update", grown, store))
        assert taken_over.code == 0, taken_over.said
    else:
        running.go_on()
        assert running.wait().code == 0, running.said()
    assert list(hashes_of(store).values()) == [grown.hash_after, grown.hash_before]


def test_of_two_first_builds_one_works(grown: Grown, commands: Commands, tmp_path: Path) -> None:
    store = tmp_path / "s"
    running = commands.freeze(
        grown.city.command(store), at="flowpatch.store.writer:StoreWriter.keep"
    )
    refused = commands.run(grown.city.command(store))
    assert refused.code == 1
    assert f"is being written by process {running.process} on" in refused.said, refused.said
    running.go_on()
    assert running.wait().code == 0
    assert list(hashes_of(store).values()) == [grown.hash_after]


def test_two_updates_at_once_give_one_version(
    grown: Grown, commands: Commands, tmp_path: Path
) -> None:
    """Not held at any point: whichever comes first, the other is refused or finds nothing to do."""
    said = []
    for number in range(3):
        store = grown.store_before(tmp_path / f"{number}")
        both = [commands.start(["update", str(store)]) for _ in range(2)]
        ended = [each.wait() for each in both]
        assert sorted({each.code for each in ended}) in ([0], [0, 1]), ended
        for each in ended:
            refused = (
                "is being written by" in each.said or "another process a moment ago" in each.said
            )
            assert refused == bool(each.code), each.said
            said.append("refused" if refused else "done")
        assert list(hashes_of(store).values()) == [grown.hash_after, grown.hash_before]
        shutil.rmtree(store)
    print(
        f"\n3 pairs of updates at once: {said.count('done')} done, {said.count('refused')} refused"
    )
