"""Checkpoints: what is saved is loaded, and what is damaged is refused."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowpatch.errors import CheckpointDamagedError, OutputError, RunNotFoundError
from flowpatch.model.settings import ModelSettings
from flowpatch.patches.layout import balanced_layout
from flowpatch.series.nodes import NodeTable
from flowpatch.series.statistics import Statistics
from flowpatch.training.checkpoint import (
    Checkpoint,
    Progress,
    StoreReference,
    load_optimizer_tensors,
    optimizer_tensors,
)
from flowpatch.training.settings import TrainSettings


def small_checkpoint() -> Checkpoint:
    """A checkpoint of five nodes with text keys, without a training behind it."""
    coordinates = np.random.default_rng(1).random((5, 2))
    keys = np.array(["a", "007", "东单", "x'; DROP", "…"], dtype=object)
    return Checkpoint(
        model_settings=ModelSettings(layers=1, input_dims=4),
        train_settings=TrainSettings(seed=3),
        input_len=6,
        output_len=2,
        steps_a_day=48,
        layout=balanced_layout(coordinates, 2),
        statistics=Statistics(1.5, 2.5, 10),
        nodes=NodeTable(("名",), (keys,), coordinates[:, 0], coordinates[:, 1]),
        store=StoreReference("/somewhere/city.store", "V1", "abc"),
        weights={"w": torch.randn(3, 4), "half": torch.randn(3).bfloat16(), "n": torch.tensor(7)},
        progress=Progress(epoch=2, epoch_loss_sum=0.1, best_val_mae=1 / 3),
        resume={"random/cpu": torch.get_rng_state()},
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A saved checkpoint."""
    path = tmp_path / "last.safetensors"
    small_checkpoint().save(path)
    return path


def test_everything_comes_back(tmp_path: Path) -> None:
    written = small_checkpoint()
    written.save(tmp_path / "c.safetensors")
    read = Checkpoint.load(tmp_path / "c.safetensors")
    for part in ("model_settings", "train_settings", "statistics", "store", "progress"):
        assert getattr(read, part) == getattr(written, part)
    assert read.nodes.fingerprint() == written.nodes.fingerprint()
    assert np.array_equal(read.layout.slots, written.layout.slots)
    assert {name: tensor.dtype for name, tensor in read.weights.items()} == {
        name: tensor.dtype for name, tensor in written.weights.items()
    }
    assert all(torch.equal(read.weights[name], written.weights[name]) for name in written.weights)
    assert torch.equal(read.resume["random/cpu"], written.resume["random/cpu"])


def test_every_flipped_byte_is_noticed(saved: Path) -> None:
    content = saved.read_bytes()
    # Every 7th position: header, metadata and each tensor are hit many times.
    for position in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[position] ^= 0x20
        saved.write_bytes(damaged)
        with pytest.raises(CheckpointDamagedError, match="last"):
            Checkpoint.load(saved)


@given(st.floats(0, 0.999))
def test_a_truncated_file_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    path = tmp_path_factory.mktemp("cut") / "best.safetensors"
    small_checkpoint().save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointDamagedError, match="best"):
        Checkpoint.load(path)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'sprung'}",)

    torch.save({"weights": Trap()}, tmp_path / "last.safetensors")
    with pytest.raises(CheckpointDamagedError):
        Checkpoint.load(tmp_path / "last.safetensors")
    assert not (tmp_path / "sprung").exists()


def test_a_newer_format_says_to_upgrade(saved: Path) -> None:
    content = saved.read_bytes().replace(b'"format":"1"', b'"format":"2"')
    saved.write_bytes(content)
    with pytest.raises(CheckpointDamagedError, match="Upgrade"):
        Checkpoint.load(saved)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError, match="flowpatch train"):
        Checkpoint.load(tmp_path / "none.safetensors")


def test_a_full_disk_leaves_the_checkpoint_before_it(
    small_disk: Path, fill_disk: Callable[[int], None]
) -> None:
    path = small_disk / "last.safetensors"
    small_checkpoint().save(path)
    before = path.read_bytes()
    fill_disk(4096)
    with pytest.raises(OutputError, match="No space left"):
        small_checkpoint().save(path)
    assert path.read_bytes() == before
    assert {found.name for found in small_disk.iterdir()} == {"last.safetensors", "filler"}


def test_the_optimizer_goes_on_where_it_was() -> None:
    def make() -> tuple[torch.nn.Linear, torch.optim.AdamW]:
        torch.manual_seed(1)
        model = torch.nn.Linear(3, 2)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    def step(model: torch.nn.Linear, optimizer: torch.optim.AdamW) -> None:
        model(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    model, optimizer = make()
    step(model, optimizer)
    copy, copied = make()
    copy.load_state_dict(model.state_dict())
    load_optimizer_tensors(copied, optimizer_tensors(optimizer))
    for _ in range(3):
        step(model, optimizer)
        step(copy, copied)
    assert torch.equal(model.weight, copy.weight)
