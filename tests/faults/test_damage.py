"""Damaged files of stores, drafts and runs: an error that names them, never other numbers."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_forker import Commands
from flowpatch.errors import FlowpatchError
from flowpatch.preprocessing.build import preprocess
from flowpatch.preprocessing.settings import UpdateSettings
from flowpatch.preprocessing.update import update
from flowpatch.store.sample_store import SampleStore, open_store
from growing_city import GrowingCity, Grown, copy_of, hashes_of

Damage = Callable[[bytes], bytes | None]
"""What becomes of a file; None: it is gone."""

WHOLE_FILES: dict[str, Damage] = {
    "missing": lambda content: None,
    "emptied": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "cut by a byte": lambda content: content[:-1],
    "zeros": lambda content: bytes(len(content)),
    "longer": lambda content: content + b"\0",
}


IN_SHORT = ("missing", "cut", "zeros")
"""The kinds that every run of the tests goes through."""


def flip(position: int) -> Damage:
    return lambda content: (
        content[:position] + bytes([content[position] ^ 0x41]) + content[position + 1 :]
    )


def everything_of(store: SampleStore) -> dict[str, Any]:
    """All that a version gives, to be compared."""
    ledger = store.ledger
    return {
        "value": store.read(),
        "nodes": store.nodes.fingerprint(),
        "manifest": json.dumps(store.manifest.to_json()),
        "ledger": None if ledger is None else ledger.to_arrays(),
        "observed_at": store.observed_at,
    }


def outcome(path: Path, version: str | None, expected: dict[str, Any]) -> str:
    """`error`, `right`, or what is wrong."""
    try:
        found = everything_of(open_store(path, version))
    except FlowpatchError as error:
        assert str(path) in str(error), error
        return "error"
    wrong = []
    for name in ("value", "observed_at"):
        if not np.array_equal(found[name], expected[name], equal_nan=True):
            wrong.append(name)
    wrong += [name for name in ("nodes", "manifest") if found[name] != expected[name]]
    same = all(
        np.array_equal(array, expected["ledger"][name], equal_nan=True)
        for name, array in found["ledger"].items()
    )
    wrong += [] if same else ["ledger"]
    return ", ".join(wrong) or "right"


@dataclass(frozen=True)
class Known:
    """A store of three versions, two of them updates, and what each holds; None is the current."""

    path: Path
    versions: dict[str | None, dict[str, Any]]

    def files(self) -> list[str]:
        return sorted(
            str(file.relative_to(self.path)) for file in self.path.rglob("*") if file.is_file()
        )


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    folder = tmp_path_factory.mktemp("known")
    city = GrowingCity(folder / "city", nodes=3)
    city.write_days(range(3))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("flowpatch.store.arrays.BLOCK_BYTES", 1)
        preprocess(city.settings(folder / "s"))
        city.write_days([1, 3], seed=1)
        update(folder / "s")
        city.write_days([4], seed=2)
        update(folder / "s", UpdateSettings(keep_days=4))
    store = open_store(folder / "s")
    versions: dict[str | None, dict[str, Any]] = {None: everything_of(store)}
    for info in store.versions():
        versions[info.version] = everything_of(open_store(folder / "s", info.version))
    return Known(folder / "s", versions)


def damaged(known: Known, copy: Path, name: str, damage: Damage) -> Iterator[str]:
    """The outcome of each version with one file damaged."""
    content = (known.path / name).read_bytes()
    changed = damage(content)
    file = copy / name
    try:
        if changed is None:
            file.unlink()
        else:
            file.write_bytes(changed)
        for version, expected in known.versions.items():
            # The current version is the newest one, but for what says so.
            if version is not None or name.startswith("refs"):
                yield outcome(copy, version, expected)
    finally:
        file.write_bytes(content)


FLIPS = [pytest.param(1, id="few"), pytest.param(20, marks=pytest.mark.soak, id="many")]


@pytest.mark.parametrize("flips", FLIPS)
def test_a_flipped_byte_is_an_error_or_does_no_harm(
    flips: int, known: Known, tmp_path: Path
) -> None:
    copy = copy_of(known.path, tmp_path / "s")
    generator = np.random.default_rng(flips)
    outcomes = Counter[str]()
    for name in known.files():
        size = (known.path / name).stat().st_size
        for position in generator.integers(0, size, flips).tolist():
            for found in damaged(known, copy, name, flip(position)):
                outcomes[found] += 1
                assert found in ("error", "right"), (name, position, found)
    print(f"\n{flips} flipped bytes in each of {len(known.files())} files: {dict(outcomes)}")
    assert outcomes["error"] > len(known.files()) * flips / 2


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(damage, id=kind, marks=() if kind in IN_SHORT else pytest.mark.soak)
        for kind, damage in WHOLE_FILES.items()
    ],
)
def test_a_file_that_is_not_whole_is_an_error_or_does_no_harm(
    damage: Damage, known: Known, tmp_path: Path
) -> None:
    copy = copy_of(known.path, tmp_path / "s")
    outcomes = Counter[str]()
    for name in known.files():
        for found in damaged(known, copy, name, damage):
            outcomes[found] += 1
            assert found in ("error", "right"), (name, found)
    print(f"\n{len(known.files())} files: {dict(outcomes)}")
    assert outcomes["right"]
    assert outcomes["error"] or damage is WHOLE_FILES["longer"]


@pytest.mark.parametrize("times", [7, pytest.param(120, marks=pytest.mark.soak)])
def test_a_damaged_draft_is_refused_or_gone_on_with(
    times: int, grown: Grown, commands: Commands, tmp_path: Path
) -> None:
    """What only the draft holds is damaged: the version before is as it was, --resume ends with the
    right content or says what is damaged, and the plain command begins anew.
    """
    left = grown.store_before(tmp_path / "left")
    whole = {file.relative_to(left) for file in left.rglob("*")}
    update_of = ["update", str(left)]
    assert commands.run(update_of, signal_at="flowpatch.store.writer:StoreWriter.commit").is_killed
    files = sorted(
        file.relative_to(left)
        for file in left.rglob("*")
        if file.is_file() and file.relative_to(left) not in whole
    )
    generator = np.random.default_rng(times)
    outcomes = Counter[str]()
    for number in range(times):
        store = copy_of(left, tmp_path / f"{number}")
        file = store / files[generator.integers(len(files))]
        content = file.read_bytes()
        kind = [*WHOLE_FILES, "flipped"][number % (len(WHOLE_FILES) + 1)]
        damage = WHOLE_FILES.get(kind) or flip(int(generator.integers(len(content))))
        changed = damage(content)
        if changed is None:
            file.unlink()
        else:
            file.write_bytes(changed)
        assert hashes_of(store)[open_store(grown.before).version] == grown.hash_before
        ended = commands.run(["update", str(store), "--resume"])
        outcomes["gone on with" if ended.code == 0 else "refused"] += 1
        if ended.code:
            assert f"'{store}'" in ended.said, ended.said
            assert "fault of flowpatch" not in ended.said, (file, kind, ended.said)
            ended = commands.run(["update", str(store)])
            assert ended.code == 0, (file, kind, ended.said)
        assert list(hashes_of(store).values()) == [grown.hash_after, grown.hash_before], file
        shutil.rmtree(store)
    print(f"\n{times} damaged drafts: {dict(outcomes)}; every one ended with the right hash")
    assert outcomes["refused"]


# --- runs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from flowpatch.model.settings import ModelSettings
    from flowpatch.training.runs import train
    from flowpatch.training.settings import TrainSettings

    path = tmp_path_factory.mktemp("run") / "r"
    widths = ModelSettings(layers=1, input_dims=2, node_dims=2, tod_dims=2, dow_dims=2)
    training = TrainSettings(max_epoch=1, device="cpu", log_every=1)
    train(open_store(small_store), path, widths, training)
    return path


def loaded(run: Path, name: Any) -> dict[str, bytes | str]:
    """All that a checkpoint gives."""
    from flowpatch.training.run_folder import RunFolder

    found = RunFolder(run).load(name)
    tensors = {
        **{f"w/{key}": tensor.numpy().tobytes() for key, tensor in found.weights.items()},
        **{f"r/{key}": tensor.numpy().tobytes() for key, tensor in found.resume.items()},
    }
    return {
        **tensors,
        "layout": found.layout.slots.tobytes() + found.layout.slot_of_node.tobytes(),
        "rest": str((found.progress, found.statistics, found.store, found.nodes.fingerprint())),
    }


@pytest.mark.parametrize("name", ["best", "last"])
def test_a_damaged_checkpoint_is_refused(name: Any, run: Path, tmp_path: Path) -> None:
    """Every 5th byte flipped, the file cut at many places, and whole-file damage."""
    copy = copy_of(run, tmp_path / "r")
    file = copy / f"checkpoints/{name}.safetensors"
    content, expected = file.read_bytes(), loaded(run, name)
    cuts = range(0, len(content), 997)
    damages = [
        *(flip(position) for position in range(0, len(content), max(1, len(content) // 1500))),
        *((lambda content, cut=cut: content[:cut]) for cut in cuts),
        *WHOLE_FILES.values(),
    ]
    refused = 0
    for damage in damages:
        changed = damage(content)
        if changed is None:
            file.unlink()
        else:
            file.write_bytes(changed)
        try:
            assert loaded(copy, name) == expected
        except FlowpatchError as error:
            assert str(file) in str(error) or (changed is None and str(copy) in str(error))
            refused += 1
    print(f"\n'{name}' damaged in {len(damages)} ways: {refused} refused, none believed")
    assert refused == len(damages)


@pytest.mark.parametrize("name", ["metrics.jsonl", "settings.json"])
def test_damage_beside_the_checkpoints_does_not_stop_a_run(
    name: str, run: Path, tmp_path: Path
) -> None:
    """What counts is inside the checkpoints; the log loses rows at most."""
    from flowpatch.cli.train import _recorded_settings
    from flowpatch.training.run_folder import RunFolder

    copy = copy_of(run, tmp_path / "r")
    file = copy / name
    content = file.read_bytes()
    known = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    odd = [b"[]\n", b"5\n", b'{"kind": 1}\n', b"\xff\xfe\n", b"null", b"[" * 100_000]
    damages = [
        *(flip(position) for position in range(0, len(content), 3)),
        *((lambda content, line=line: line + content) for line in odd),
        *((lambda content, line=line: line) for line in odd),
        *(damage for kind, damage in WHOLE_FILES.items() if kind != "missing"),
    ]
    for damage in damages:
        file.write_bytes(damage(content) or b"")
        folder = RunFolder(copy)
        folder.load("last")
        assert isinstance(_recorded_settings(copy), dict)
        folder.keep_rows(10**9, 10**9)
        assert len(folder.rows()) <= len(known)
        assert all({"kind", "step", "epoch"} <= row.keys() for row in folder.rows())
