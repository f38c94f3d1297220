"""What a training step is estimated to take, beside the tensors that a real one holds."""

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flowpatch.model import step_bytes
from flowpatch.model.patchstg import PatchSTG
from flowpatch.model.settings import ModelSettings
from flowpatch.model.step_bytes import describe_parts, training_bytes, windows_at_a_time
from flowpatch.patches.layout import balanced_layout

NODES, STEPS, WINDOWS = 1500, 12, 2
CPU = torch.device("cpu")


class HeldMemory(TorchDispatchMode):
    """Bytes of all storages that operations made and that are still held, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._held = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, operation: Any, _types: Any, args: Any = (), kwargs: Any = None):
        found = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return found

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self._held += storage.nbytes()
            self.peak = max(self.peak, self._held)
            weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._held -= size


def make_model(
    dtype: torch.dtype = torch.float32, recompute: bool = False, nodes: int = NODES, **widths: int
) -> PatchSTG:
    torch.manual_seed(0)
    layout = balanced_layout(np.random.default_rng(1).random((nodes, 2)))
    model = PatchSTG(ModelSettings(**widths), layout, STEPS, STEPS, steps_a_day=24)
    model.encoder_dtype, model.recompute_activations = dtype, recompute
    return model


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("widths", [{}, {"layers": 5, "temporal_patch_size": 4}])
def test_the_estimate_is_near_what_a_step_holds(
    dtype: torch.dtype, recompute: bool, widths: dict[str, int]
) -> None:
    model = make_model(dtype, recompute, **widths)
    x_BTN, times_BT = torch.randn(WINDOWS, STEPS, NODES), torch.zeros(WINDOWS, STEPS).long()
    with HeldMemory() as held:
        (model(x_BTN, times_BT, times_BT) - x_BTN).abs().mean().backward()
    assert held.peak / WINDOWS == pytest.approx(training_bytes(model), rel=0.2)


def test_recomputing_takes_less_the_deeper_the_encoder() -> None:
    shares = [
        training_bytes(make_model(recompute=True, layers=layers))
        / training_bytes(make_model(layers=layers))
        for layers in (1, 3, 9)
    ]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.35


def test_a_narrow_city_goes_at_once_and_a_wide_one_window_by_window() -> None:
    assert windows_at_a_time(make_model(nodes=100), CPU) > 1000
    assert windows_at_a_time(make_model(torch.bfloat16, nodes=100_000), CPU) == 1


def test_a_batch_in_parts_is_described_with_what_takes_less() -> None:
    wide = make_model(nodes=20_000)
    line = describe_parts(wide, at_a_time=1, batch_size=16)
    assert "16 windows of a step go through the model 1 at a time, in about 0.5 GB" in line
    assert "with --recompute-activations in 0.2 GB" in line
    assert "recompute" not in describe_parts(wide, at_a_time=2, batch_size=16)
    wide.recompute_activations = True
    assert describe_parts(wide, at_a_time=1, batch_size=16).endswith("1 at a time, in about 0.2 GB")


def test_one_window_goes_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_bytes, "AT_A_TIME_BYTES", 1)
    assert windows_at_a_time(make_model(), CPU) == 1
