"""A disk that fills up at random moments: an error that says so, nothing lost, a way to go on."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from command_forker import Commands
from disks import fill, mounted
from flowpatch.errors import OutputError
from growing_city import Grown, hashes_of

SEED = 5
few_or_many = pytest.mark.parametrize("times", [6, pytest.param(60, marks=pytest.mark.soak)])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", "4m") as mounted_disk:
        yield mounted_disk


def used(disk: Path) -> int:
    return shutil.disk_usage(disk).used


def begin_nothing(_grown: Grown, _store: Path) -> None:
    """A first build begins with nothing."""


@few_or_many
@pytest.mark.parametrize("name", ["build", "update"])
def test_a_disk_that_fills_up_while_a_store_is_written(
    name: str, times: int, grown: Grown, commands: Commands, disk: Path
) -> None:
    store = disk / "s"
    begin: Callable[[Grown, Path], object]
    if name == "build":
        begin, command, before = begin_nothing, grown.city.command(store), []
    else:
        begin, command, before = Grown.store_before, ["update", str(store)], [grown.hash_before]
    begin(grown, store)
    at_first = used(disk)
    assert commands.run(command).code == 0
    needed = used(disk) - at_first
    refused = 0
    for leave in np.random.default_rng(SEED).integers(0, needed, times).tolist():
        shutil.rmtree(store)
        begin(grown, store)
        fill(disk, leave)
        ended = commands.run(command)
        if ended.code:
            refused += 1
            check_refusal(ended.said, store)
            left = list(hashes_of(store).values()) if before else []
            # An update may have become the current version before its last step was refused.
            assert left == before
        (disk / "filler").unlink()
        ended = commands.run([*command, "--resume"])
        assert ended.code == 0, ended.said
        assert list(hashes_of(store).values()) == [grown.hash_after, *before]
    print(
        f"\n{name}: the disk was full at {refused} of {times} moments, seed {SEED}: an error with "
        f"the store's name {refused} of {refused}, resumed to the right hash {times} of {times}"
    )
    assert refused > times / 2


def check_refusal(said: str, store: Path) -> None:
    assert f"'{store}'" in said, said
    assert "No space left on device" in said, said
    assert "MB free there" in said or "Free some space" in said, said
    assert "fault of flowpatch" not in said, said


def test_a_disk_that_fills_up_while_a_run_is_trained(
    small_store: Path, tmp_path: Path, disk: Path
) -> None:
    """Of several sizes of what is left: the run can go on and ends as one without an interruption,
    or it never began and leaves nothing in the way of another.
    """
    import torch

    from flowpatch.model.settings import ModelSettings
    from flowpatch.store.sample_store import open_store
    from flowpatch.training.runs import resume, train
    from flowpatch.training.settings import TrainSettings

    store = open_store(small_store)
    model = ModelSettings(layers=1, input_dims=4, node_dims=2, tod_dims=2, dow_dims=2)
    training = TrainSettings(max_epoch=2, device="cpu", log_every=1)
    whole = train(store, disk / "whole", model, training)
    needed = used(disk)
    shutil.rmtree(disk / "whole")
    refused = begun = 0
    for number, leave in enumerate(np.random.default_rng(SEED).integers(0, needed, 8).tolist()):
        run = disk / f"run-{number}"
        fill(disk, leave)
        with suppress(OutputError):
            train(store, run, model, training)
            continue
        refused += 1
        (disk / "filler").unlink()
        begun += run.exists()
        trained = resume(run) if run.exists() else train(store, run, model, training)
        for name, tensor in whole.weights.items():
            assert torch.equal(trained.weights[name], tensor), name
        known = {**asdict(whole.progress), "seconds": 0}
        assert {**asdict(trained.progress), "seconds": 0} == known
        shutil.rmtree(run)
    print(
        f"\nthe disk was full in {refused} of 8 trainings, seed {SEED}: {begun} went on and "
        f"{refused - begun} began again in the same folder, {refused} of {refused} ended the same"
    )
    assert refused > 3
    assert begun
