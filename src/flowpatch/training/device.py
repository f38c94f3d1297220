"""The device of a run, Accelerate on it, and the same result each time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from flowpatch.errors import SettingsError
from flowpatch.launch import Launch
from flowpatch.model.compiling import missing_for_compiling
from flowpatch.progress import say
from flowpatch.training.settings import COMPILED_STEPS, Compile, Precision, TrainSettings


def make_accelerator(settings: TrainSettings, launch: Launch | None = None) -> Accelerator:
    """Accelerate on the device asked for; of several processes, each on its own.

    Raises:
        SettingsError: there is no such device, or it lacks the precision.
    """
    cpu = select_device(settings.device, launch).type == "cpu"
    if cpu and settings.precision == "fp16":
        raise SettingsError("--precision fp16 needs a GPU. On a CPU use bf16 or no.")
    # What cuBLAS needs to give the same result twice; it is read when CUDA starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if launch is not None and not launch.is_alone:
        # Where nobody has said how many threads, Accelerate would choose, and warn.
        os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    # Accelerate keeps its state for the whole process; a second run may ask for another.
    AcceleratorState._reset_state(reset_partial_state=True)
    # fp16 brings the scaling of gradients; the precision itself is the model's own affair.
    scaled = "fp16" if settings.precision == "fp16" else "no"
    return Accelerator(cpu=cpu, mixed_precision=scaled)


def encoder_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """What the encoder computes in on a device; see `TrainSettings.precision`."""
    if precision == "auto":
        return torch.bfloat16 if _has_bfloat16(device) else torch.float32
    return {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def is_compiled(asked: Compile, device: torch.device, steps: int) -> bool:
    """Whether the encoder of a training of so many steps is compiled for a device.

    Raises:
        SettingsError: it is asked for, and the device or the machine is not made for it.
    """
    if asked == "no" or (asked == "auto" and steps < COMPILED_STEPS):
        return False
    missing = missing_for_compiling(device)
    if asked == "yes" and missing:
        raise SettingsError(f"--compile yes needs {missing}, and there is none. Use auto or no.")
    return not missing


def _has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; elsewhere it would be slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    checks = (torch.cpu._is_avx512_bf16_supported, torch.cpu._is_amx_tile_supported)
    return any(has() for has in checks)


def select_device(name: str, launch: Launch | None = None) -> torch.device:
    """The device of a name: auto, cpu, cuda or cuda:N; of several processes, each has its own.

    Raises:
        SettingsError: the name is unknown, there is no such device, or too few of them.
    """
    launch = launch or Launch()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise SettingsError(f"Unknown device '{name}'. Allowed: auto, cpu, cuda, cuda:0, ...")
    if device.type == "cuda":
        if launch.local_size > 1:
            return _own_gpu(device, launch)
        if (device.index or 0) >= torch.cuda.device_count():
            raise SettingsError(
                f"No device '{name}': torch sees {torch.cuda.device_count()} GPUs. "
                "Use --device auto or cpu."
            )
        torch.cuda.set_device(device.index or 0)
    return device


def _own_gpu(device: torch.device, launch: Launch) -> torch.device:
    """The GPU of this process among those of its machine."""
    count = torch.cuda.device_count()
    if device.index is not None:
        raise SettingsError(
            f"--device {device} is one GPU, and {launch.local_size} processes were started on "
            "this machine. Use --device cuda, which gives each its own, or start one process."
        )
    if launch.local_size > count:
        raise SettingsError(
            f"{launch.local_size} processes were started on a machine where torch sees {count} "
            f"GPUs. Start one process for each GPU, or use --device cpu."
        )
    torch.cuda.set_device(launch.local_rank)
    return torch.device("cuda", launch.local_rank)


def cuda_or_cpu(number: int) -> str:
    """The name of a GPU by its number, or of the CPU where there is no GPU at all."""
    if torch.cuda.device_count():
        return f"cuda:{number}"
    say(f"No GPU is there (--cuda {number}): training on the CPU")
    return "cpu"


def seed_step(device: torch.device, seed: int, step: int, rank: int) -> None:
    """Makes what is random in a training step a function of the run's seed and the step alone.

    A GPU draws for the windows that it holds, whatever their place, so there each process has a
    seed of its own.
    """
    torch.default_generator.manual_seed(_mixed(seed, step))
    if device.type == "cuda":
        torch.cuda.manual_seed(_mixed(seed, step, rank))


def _mixed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


@contextmanager
def deterministic() -> Iterator[None]:
    """The same loss curve each time, on one device; put back afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    # An operation that cannot be had in a fixed order ends in an error, not in another curve.
    torch.use_deterministic_algorithms(True)
    # Filling every new tensor would cost a pass over memory and change no result.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = fill
