"""Which process gets which device, and what is random there. The GPUs are pretended."""

import pytest
import torch

from flowpatch.errors import SettingsError
from flowpatch.launch import Launch
from flowpatch.training.device import seed_step, select_device

SECOND_HERE = Launch(rank=5, size=8, local_rank=1, local_size=4)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Makes torch see four GPUs; the ones that were chosen."""
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


@pytest.mark.parametrize("name", ["cuda", "auto"])
def test_each_process_of_a_machine_gets_a_gpu_of_its_own(gpus: list[int], name: str) -> None:
    assert select_device(name, SECOND_HERE) == torch.device("cuda", 1)
    assert gpus == [1]


def test_one_process_a_machine_may_name_its_gpu(gpus: list[int]) -> None:
    assert select_device("cuda:3", Launch(1, 2, 0, 1)) == torch.device("cuda", 3)
    assert gpus == [3]


def test_what_does_not_fit_the_processes_is_refused(gpus: list[int]) -> None:
    with pytest.raises(SettingsError, match=r"cuda:2 is one GPU, and 4 processes"):
        select_device("cuda:2", SECOND_HERE)
    with pytest.raises(SettingsError, match=r"5 processes .* sees 4 GPUs"):
        select_device("auto", Launch(0, 5, 0, 5))
    assert gpus == []


def test_any_number_of_processes_fits_a_cpu() -> None:
    assert select_device("cpu", Launch(6, 9, 6, 9)).type == "cpu"


def test_a_step_draws_what_seed_and_number_say() -> None:
    def drawn(seed: int, step: int, rank: int = 0) -> list[int]:
        seed_step(torch.device("cpu"), seed, step, rank)
        return torch.randint(2**40, (3,)).tolist()

    assert drawn(1, 7) == drawn(1, 7) == drawn(1, 7, rank=2)
    assert len({tuple(drawn(seed, step)) for seed in range(3) for step in range(20)}) == 60
