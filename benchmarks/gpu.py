"""PatchSTG on a GPU: beside the published formulation, and beside the device's arithmetic.

Ours is compiled, as trainings of 5,000 steps and more are, and plain, as shorter ones and
evaluations are; both are recorded and played back.
Everything that a step queues on the device is waited for by events before and after several steps.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measuring import alternate, run_child
from benchmarks.rows import Found, FoundRow, NotMeasured, row_of
from benchmarks.shapes import shape_of
from benchmarks.step import (
    DAYS,
    Origins,
    TrainingContender,
    make_ours,
    make_published,
    make_windows,
    some_origins,
)
from benchmarks.workshop import Workshop

NO_GPU = "no GPU here"
WARM_UP = 5
STEPS = 10
MATRIX = 8192
BACKWARD = 2
"""Arithmetic of the backward pass in multiples of the forward pass: one product for the gradient
of each factor."""


def measure(workshop: Workshop) -> FoundRow:
    """Training steps and inference at SD's and CA's shapes."""
    if not torch.cuda.is_available():
        return {figure.name: NotMeasured(NO_GPU) for figure in row_of("gpu").figures}
    found: dict[str, Found] = {}
    for name in ("SD", "CA"):
        measured, _ = run_child(
            "benchmarks.gpu:milliseconds",
            name=name,
            quick=workshop.quick,
            rounds=workshop.rounds(5),
        )
        note = shape_of(name, quick=workshop.quick).note()
        for kind in ("train", "infer"):
            prefix, taken = f"{name.lower()}_{kind}", measured[kind]
            found[f"{prefix}_float32"] = Found(taken["ours"], taken["float32"], note)
            found[f"{prefix}_plain"] = Found(taken["plain"], taken["float32"], note)
            found[f"{prefix}_bf16"] = Found(taken["ours"], taken["bf16"], note)
            rates = [1e-9 * measured["flops"][kind] / each for each in taken["ours"]]
            found[f"{prefix}_limit"] = Found(rates, measured["limit"], note)
    return found


def milliseconds(name: str, quick: bool, rounds: int) -> dict[str, object]:
    """Milliseconds of each contender in turn, our arithmetic, and TFLOP/s of the device."""
    shape = shape_of(name, quick=quick, days=DAYS)
    windows, origins = make_windows(shape, "cuda"), some_origins(shape)
    contenders = {
        "ours": make_ours(shape, windows, "cuda", compiled=True),
        "plain": make_ours(shape, windows, "cuda"),
        "float32": make_published(shape, windows, "no"),
        "bf16": make_published(shape, windows, "bf16"),
    }
    forward = _forward_flops(contenders["plain"], origins)
    found: dict[str, object] = {
        "limit": alternate(rounds, _matrix_product_rate)[0],
        "flops": {"train": (1 + BACKWARD) * forward, "infer": forward},
    }
    for kind in ("train", "infer"):
        timers = [
            _timer(partial(getattr(contender, kind), origins)) for contender in contenders.values()
        ]
        taken = alternate(rounds, *timers)
        found[kind] = dict(zip(contenders, taken, strict=True))
    return found


def _timer(action: Callable[[], object]) -> Callable[[], float]:
    """Milliseconds an action takes when it is repeated, after a warm-up."""

    def timed() -> float:
        for _ in range(WARM_UP):
            action()
        begin, end = (torch.Event("cuda", enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        for _ in range(STEPS):
            action()
        end.record()
        torch.cuda.synchronize()
        return float(begin.elapsed_time(end)) / STEPS

    return timed


def _matrix_product_rate() -> float:
    """TFLOP/s of a product of two large square bf16 matrices."""
    left, right = (
        torch.randn(MATRIX, MATRIX, dtype=torch.bfloat16, device="cuda") for _ in range(2)
    )
    return 1e-9 * 2 * MATRIX**3 / _timer(lambda: left @ right)()


def _forward_flops(contender: TrainingContender, origins: Origins) -> int:
    """Arithmetic of our forward pass on one batch."""
    with FlopCounterMode(display=False) as counter:
        contender.infer(origins)
    return int(counter.get_total_flops())
