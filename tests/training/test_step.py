"""The fast step against the published formulation, and the precisions against float32."""

import numpy as np
import pytest
import torch

from benchmarks.baselines.published_patchstg import PublishedPatchSTG, Widths
from benchmarks.baselines.published_training import PublishedTraining
from flowpatch.errors import SettingsError
from flowpatch.model.patchstg import PatchSTG
from flowpatch.model.settings import ModelSettings
from flowpatch.patches.layout import PatchLayout, balanced_layout, paper_layout
from flowpatch.series.statistics import Statistics
from flowpatch.time_axis import TimeAxis
from flowpatch.training.device import encoder_dtype, make_accelerator
from flowpatch.training.settings import Precision, TrainSettings
from flowpatch.training.step import TrainingStep
from flowpatch.windows.in_memory import InMemory

STEPS_A_DAY, NODES, INPUT, OUTPUT, DAYS = 24, 11, 6, 4, 4
CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; none is here")


def make_windows(device: str = "cpu") -> InMemory:
    generator = np.random.default_rng(1)
    values = generator.gamma(2.0, 5.0, (DAYS * STEPS_A_DAY, NODES)).astype(np.float32)
    values[generator.random(values.shape) < 0.1] = np.nan
    axis = TimeAxis.of_days(np.datetime64("2025-03-03"), DAYS, 60, "UTC")
    statistics = Statistics(float(np.nanmean(values)), float(np.nanstd(values)), values.size)
    return InMemory(values, axis, statistics, INPUT, OUTPUT, device=device)


def make_layout() -> PatchLayout:
    generator = np.random.default_rng(2)
    points, profiles = generator.random((NODES, 2)), generator.random((STEPS_A_DAY, NODES))
    return paper_layout(points, lambda: profiles, depth=2, leaf_size=4, factors=2)


def make_model(layout: PatchLayout, dropout: float = 0.0) -> PatchSTG:
    torch.manual_seed(0)
    settings = ModelSettings(
        layers=2, input_dims=8, node_dims=4, tod_dims=2, dow_dims=2, dropout=dropout
    )
    return PatchSTG(settings, layout, INPUT, OUTPUT, STEPS_A_DAY)


def test_steps_learn_what_steps_of_the_published_formulation_learn() -> None:
    windows, layout = make_windows(), make_layout()
    settings = TrainSettings(precision="no", device="cpu")
    fast, slow = make_model(layout), PublishedPatchSTG(
        Widths(2, 8, 4, 2, 2, dropout=0.0), layout, OUTPUT, STEPS_A_DAY, INPUT
    )  # fmt: skip
    slow.load_state_dict(fast.state_dict())
    steps = (
        TrainingStep(fast, windows, settings, make_accelerator(settings)),
        PublishedTraining(slow, windows, settings).step,
    )
    generator = np.random.default_rng(3)
    for _ in range(4):
        origins = generator.integers(INPUT, DAYS * STEPS_A_DAY - OUTPUT, 5)
        losses = [step(origins, 0.01) for step in steps]
        torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
    expected = slow.state_dict()
    for name, weights in fast.state_dict().items():
        found, other = weights, expected[name]
        if name.endswith("qkv.bias"):
            # The bias of the keys moves no forecast; its gradient is 0, or rounding that Adam
            # blows up.
            found, other = (torch.cat([one[:16], one[32:]]) for one in (found, other))
        torch.testing.assert_close(found, other, rtol=1e-3, atol=1e-4, msg=name)


def steps_of(windows: InMemory, dropout: float = 0.0, **training: object) -> list[torch.Tensor]:
    """The losses of four steps, then the weights that they lead to."""
    settings = TrainSettings(device="cpu", **{"precision": "no", **training})
    model = make_model(make_layout(), dropout)
    model.encoder_dtype = encoder_dtype(settings.precision, CPU)
    model.recompute_activations = settings.recompute_activations
    step = TrainingStep(model, windows, settings, make_accelerator(settings))
    generator = np.random.default_rng(3)
    batches = [generator.integers(INPUT, DAYS * STEPS_A_DAY - OUTPUT, 7) for _ in range(4)]
    losses = [step(origins, 0.01) for origins in batches]
    return [torch.stack(losses), *(weights.detach() for weights in model.parameters())]


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 6])
def test_a_batch_in_parts_learns_what_it_learns_at_once(micro_batch: int) -> None:
    windows = make_windows()
    # Labels are missing unevenly: a mean of the parts' means would be another loss.
    windows.values_TN[: DAYS * STEPS_A_DAY // 2, ::2] = torch.nan
    at_once, in_parts = (steps_of(windows, micro_batch=size) for size in (7, micro_batch))
    for found, expected in zip(in_parts, at_once, strict=True):
        # Rounding alone moves the bias of the keys, whose gradient is 0 in real numbers.
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=0.02)
    torch.testing.assert_close(in_parts[0], at_once[0], rtol=1e-5, atol=1e-6)


def test_a_part_without_labels_changes_nothing() -> None:
    windows = make_windows()
    windows.values_TN[: DAYS * STEPS_A_DAY // 2] = torch.nan
    for found, expected in zip(
        steps_of(windows, micro_batch=1)[:1], steps_of(windows)[:1], strict=True
    ):
        assert found.isfinite().all()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("micro_batch", [7, 3])
def test_what_is_computed_again_is_the_same_to_the_bit(
    precision: Precision, micro_batch: int
) -> None:
    kept, recomputed = (
        steps_of(
            make_windows(),
            dropout=0.3,
            precision=precision,
            micro_batch=micro_batch,
            recompute_activations=recompute,
        )
        for recompute in (False, True)
    )
    for found, expected in zip(recomputed, kept, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("precision", ["bf16", "auto"])
def test_half_the_precision_forecasts_nearly_the_same(precision: Precision) -> None:
    windows = make_windows()
    model = make_model(balanced_layout(np.random.default_rng(2).random((NODES, 2))))
    batch = windows.batch(np.arange(INPUT, 40))
    inputs = batch.x_BTN, batch.time_of_day_BT, batch.day_of_week_BT
    with torch.no_grad():
        exact = model(*inputs)
        model.encoder_dtype = encoder_dtype(precision, CPU)
        rounded = model(*inputs)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().mean() < 0.01 * exact.abs().mean()


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_loss_falls_in_every_precision(precision: Precision) -> None:
    windows = make_windows()
    settings = TrainSettings(precision=precision, device="cpu")
    model = make_model(make_layout(), dropout=0.1)
    model.encoder_dtype = encoder_dtype(precision, CPU)
    step = TrainingStep(model, windows, settings, make_accelerator(settings))
    origins = np.arange(INPUT, 60)
    losses = [float(step(origins, 0.01)) for _ in range(40)]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("no", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_a_precision_that_is_named_is_taken(precision: Precision, expected: torch.dtype) -> None:
    assert encoder_dtype(precision, CPU) == expected


@pytest.mark.parametrize(("avx512", "amx"), [(True, False), (False, True), (False, False)])
def test_auto_takes_bfloat16_only_where_the_device_is_made_for_it(
    monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    expected = torch.bfloat16 if avx512 or amx else torch.float32
    assert encoder_dtype("auto", CPU) == expected


def test_fp16_on_a_cpu_is_refused() -> None:
    with pytest.raises(SettingsError, match="needs a GPU"):
        make_accelerator(TrainSettings(precision="fp16", device="cpu"))


@needs_gpu
@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_a_gpu_learns_what_the_cpu_learns(precision: Precision) -> None:
    losses = {}
    for device in ("cpu", "cuda"):
        on_gpu = device == "cuda"
        settings = TrainSettings(precision=precision if on_gpu else "no", device=device)
        accelerator = make_accelerator(settings)
        model = make_model(make_layout()).to(accelerator.device)
        model.encoder_dtype = encoder_dtype(settings.precision, accelerator.device)
        step = TrainingStep(model, make_windows(device), settings, accelerator)
        origins = np.arange(INPUT, 60)
        losses[device] = [float(step(origins, 0.01)) for _ in range(10)]
    tolerance = 1e-3 if precision == "no" else 0.05
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=tolerance)
