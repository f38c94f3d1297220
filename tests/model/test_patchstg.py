"""PatchSTG for any lengths and layouts. `tests/reference_cases.py` holds it to the published."""

from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from flowpatch.errors import SettingsError
from flowpatch.model.patchstg import PatchSTG
from flowpatch.model.settings import ModelSettings
from flowpatch.patches.layout import PatchLayout, balanced_layout, paper_layout
from flowpatch.series.statistics import Statistics
from flowpatch.time_axis import TimeAxis
from flowpatch.training.scoring import in_real_units, score
from flowpatch.windows.in_memory import InMemory

STEPS_A_DAY = 24
NODES = 11


def narrow(**changes: Any) -> ModelSettings:
    return ModelSettings(
        **{"layers": 2, "input_dims": 5, "node_dims": 3, "tod_dims": 2, "dow_dims": 2, **changes}
    )


def layout_of(kind: Literal["balanced", "paper"], nodes: int = NODES) -> PatchLayout:
    generator = np.random.default_rng(2)
    points, profiles = generator.random((nodes, 2)), generator.random((STEPS_A_DAY, nodes))
    if kind == "balanced":
        return balanced_layout(points, min(3, nodes))
    return paper_layout(points, lambda: profiles, leaf_size=min(4, nodes))


def make(
    layout: PatchLayout | None = None,
    input_len: int = 6,
    output_len: int = 4,
    seed: int = 0,
    **changes: Any,
) -> PatchSTG:
    torch.manual_seed(seed)
    model = PatchSTG(
        narrow(**changes), layout or layout_of("balanced"), input_len, output_len, STEPS_A_DAY
    )
    # Published initial weights are near zero; these make every part of the model matter.
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model.eval()


def inputs(
    input_len: int = 6, windows: int = 2, nodes: int = NODES, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(7 * STEPS_A_DAY, (windows, 1), generator=generator)
    steps = first + torch.arange(input_len)
    return (
        torch.randn(windows, input_len, nodes, generator=generator),
        steps % STEPS_A_DAY,
        steps // STEPS_A_DAY % 7,
    )


# Shapes and settings


@settings(deadline=None, max_examples=40)
@given(
    kind=st.sampled_from(["balanced", "paper"]),
    nodes=st.integers(1, 12),
    patch_size=st.integers(1, 4),
    patch_count=st.integers(1, 4),
    output_len=st.integers(1, 9),
    windows=st.integers(1, 3),
)
def test_any_number_of_nodes_temporal_patches_and_label_steps(
    kind: Literal["balanced", "paper"],
    nodes: int,
    patch_size: int,
    patch_count: int,
    output_len: int,
    windows: int,
) -> None:
    input_len = patch_size * patch_count
    layout = layout_of(kind, nodes)
    model = make(layout, input_len, output_len, layers=1, temporal_patch_size=patch_size)
    assert (model.patch_size, model.patch_count) == (patch_size, patch_count)
    x = inputs(input_len, windows, nodes)
    with torch.no_grad():
        together = model(*x)
        alone = torch.cat([model(*(part[i : i + 1] for part in x)) for i in range(windows)])
    assert together.shape == (windows, output_len, nodes)
    # A window's forecast does not depend on the others of its batch.
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_one_temporal_patch_is_the_default() -> None:
    assert narrow().temporal_patches(12) == (12, 1)
    assert narrow(temporal_patch_size=3).temporal_patches(12) == (3, 4)


def test_a_temporal_patch_that_does_not_divide_the_input_names_those_that_do() -> None:
    with pytest.raises(
        SettingsError, match=r"5 does not divide --input-len 12.*: 1, 2, 3, 4, 6, 12"
    ):
        make(input_len=12, temporal_patch_size=5)


@pytest.mark.parametrize("changes", [{"depth": 2}, {"leaf_size": 3}])
def test_settings_of_the_paper_layout_are_refused_for_balanced(changes: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match="--layout paper"):
        narrow(**changes).check_layout()
    narrow(layout="paper", **changes).check_layout()


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": 0},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"layout": "grid"},
        {"factors": 0},
        {"width": 3},
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(changes))):
        narrow(**changes)


def test_published_names_are_all_that_a_checkpoint_holds() -> None:
    names = set(make(layers=1).state_dict())
    half_block = {
        f"{part}.{kind}"
        for part in ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
        for kind in ("weight", "bias")
    }
    expected = {"node_emb", "time_in_day_emb", "day_in_week_emb"}
    expected |= {
        f"{map_}.{kind}"
        for map_ in ("input_st_fc", "regression_conv")
        for kind in ("weight", "bias")
    }
    expected |= {f"spa_encoder.0.{side}{name}" for side in "sn" for name in half_block}
    assert names == expected


# Embedding and decoding


@pytest.mark.parametrize("patch_size", [1, 2, 3, 6])
def test_the_embedding_is_the_convolution_that_it_replaces(patch_size: int) -> None:
    model = make(temporal_patch_size=patch_size)
    x_BTN, time_of_day, day_of_week = inputs()
    channels_B3NT = torch.stack(
        [
            x_BTN.transpose(1, 2),
            (time_of_day / STEPS_A_DAY)[:, None].expand(-1, NODES, -1),
            (day_of_week / 7)[:, None].expand(-1, NODES, -1),
        ],
        dim=1,
    )
    convolution = nn.Conv2d(3, 5, kernel_size=(1, patch_size), stride=(1, patch_size))
    convolution.load_state_dict(model.input_st_fc.state_dict())
    with torch.no_grad():
        expected_BKNE = convolution(channels_B3NT).permute(0, 3, 2, 1)
        found_BKND = model._unpatch(model._embed(x_BTN, time_of_day, day_of_week))
    found_BKNE = found_BKND[..., : expected_BKNE.shape[-1]]
    torch.testing.assert_close(found_BKNE, expected_BKNE, rtol=1e-5, atol=1e-5)


def test_channels_are_value_time_of_day_day_of_week_node() -> None:
    model = make(temporal_patch_size=2)
    x_BTN, time_of_day, day_of_week = inputs()
    with torch.no_grad():
        embedded = model._unpatch(model._embed(x_BTN, time_of_day, day_of_week))
    assert embedded.shape == (2, 3, NODES, 12)
    for window in range(2):
        for patch in range(3):
            # Published: patch k is dated by input step T - K + k.
            step = 6 - 3 + patch
            tod = model.time_in_day_emb[time_of_day[window, step]]
            dow = model.day_in_week_emb[day_of_week[window, step]]
            for node in range(NODES):
                expected = torch.cat([tod, dow, model.node_emb[node]])
                torch.testing.assert_close(embedded[window, patch, node, 5:], expected)


def test_the_decoder_is_the_convolution_that_it_replaces() -> None:
    model = make(temporal_patch_size=2, output_len=5)
    x_BKND = torch.randn(2, 3, NODES, 12)
    laid_end_to_end = x_BKND.permute(0, 1, 3, 2).reshape(2, 36, NODES, 1)
    with torch.no_grad():
        expected = model.regression_conv(laid_end_to_end)[..., 0]
        torch.testing.assert_close(model._decode(x_BKND), expected, rtol=1e-5, atol=1e-5)


# Slots


@pytest.mark.parametrize("kind", ["balanced", "paper"])
def test_slots_show_their_nodes_and_nodes_are_read_from_their_own_slots(
    kind: Literal["balanced", "paper"],
) -> None:
    layout = layout_of(kind)
    assert layout.padding_share > 0
    model = make(layout)
    x_BTN, *time = inputs()
    with torch.no_grad():
        x_BKPSD = model._embed(x_BTN, *time)
        x_BKND = model._unpatch(x_BKPSD)
    for patch in range(layout.patches):
        for slot in range(layout.patch_size):
            shown = x_BKND[:, :, layout.slots[patch, slot]]
            torch.testing.assert_close(x_BKPSD[:, :, patch, slot], shown)
    for node in range(NODES):
        node_emb = model.node_emb[node].expand(2, 1, -1)
        torch.testing.assert_close(x_BKND[:, :, node, -3:], node_emb, rtol=0, atol=0)
    # What the encoder makes of padding is read nowhere.
    is_padding = torch.ones(layout.slots.size, dtype=torch.bool)
    is_padding[torch.from_numpy(layout.slot_of_node)] = False
    spoilt = x_BKPSD.flatten(2, 3).masked_fill(is_padding[:, None], torch.nan)
    found = model._unpatch(spoilt.reshape(x_BKPSD.shape))
    torch.testing.assert_close(found, x_BKND, rtol=0, atol=0)


def with_layout(model: PatchSTG, layout: PatchLayout) -> PatchSTG:
    other = PatchSTG(model.settings, layout, model.input_len, model.output_len, STEPS_A_DAY)
    other.load_state_dict(model.state_dict())
    return other.eval()


def moved(layout: PatchLayout, patches: list[int], slots: list[int]) -> PatchLayout:
    """The layout with its patches in another order, and the slots of all patches alike."""
    rows, columns = np.array(patches), np.array(slots)
    row, column = np.divmod(layout.slot_of_node, layout.patch_size)
    new_row, new_column = np.argsort(rows)[row], np.argsort(columns)[column]
    return PatchLayout(
        layout.kind, layout.slots[rows][:, columns], new_row * layout.patch_size + new_column
    )


@settings(deadline=None, max_examples=25)
@given(kind=st.sampled_from(["balanced", "paper"]), data=st.data())
def test_the_order_of_patches_and_of_slots_changes_no_forecast(
    kind: Literal["balanced", "paper"], data: st.DataObject
) -> None:
    layout = layout_of(kind)
    other = moved(
        layout,
        data.draw(st.permutations(range(layout.patches))),
        data.draw(st.permutations(range(layout.patch_size))),
    )
    model, x = make(layout), inputs()
    with torch.no_grad():
        torch.testing.assert_close(with_layout(model, other)(*x), model(*x), rtol=1e-4, atol=1e-4)


def test_in_one_patch_the_order_of_its_padding_changes_no_forecast() -> None:
    nodes = np.arange(NODES)
    first, second = (
        PatchLayout("paper", np.concatenate([nodes, padding])[None], nodes)
        for padding in ([3, 7, 1], [1, 3, 7])
    )
    model, x = make(first), inputs()
    with torch.no_grad():
        torch.testing.assert_close(with_layout(model, second)(*x), model(*x), rtol=1e-4, atol=1e-4)


def test_padding_with_a_twin_of_a_node_changes_no_forecast() -> None:
    # Nodes 0 and 1 have the same input and embedding, so a slot may show either.
    slots = np.array([[0, 2, 3], [1, 4, 5], [6, 7, 0], [8, 9, 10]])
    positions = np.array([0, 3, 1, 2, 4, 5, 6, 7, 9, 10, 11])
    twin = slots.copy()
    twin[2, 2] = 1
    model = make(PatchLayout("paper", slots, positions))
    x_BTN, *times = inputs()
    with torch.no_grad():
        model.node_emb[1] = model.node_emb[0]
        x_BTN[:, :, 1] = x_BTN[:, :, 0]
        other = with_layout(model, PatchLayout("paper", twin, positions))
        torch.testing.assert_close(other(x_BTN, *times), model(x_BTN, *times), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["balanced", "paper"])
def test_every_node_sees_every_other_after_one_block(
    kind: Literal["balanced", "paper"],
) -> None:
    model = make(layout_of(kind), layers=1)
    x_BTN, *times = inputs(windows=1)
    x_BTN.requires_grad_()
    for node in range(NODES):
        (gradient,) = torch.autograd.grad(model(x_BTN, *times)[..., node].sum(), x_BTN)
        assert (gradient.abs().sum(dim=(0, 1)) > 0).all()


# Training and determinism


@pytest.mark.parametrize("kind", ["balanced", "paper"])
@pytest.mark.parametrize("patch_size", [6, 2])
def test_gradient_reaches_every_parameter(
    kind: Literal["balanced", "paper"], patch_size: int
) -> None:
    model = make(layout_of(kind), temporal_patch_size=patch_size).train()
    model(*inputs()).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_dropout_acts_in_training_only() -> None:
    model, x = make(dropout=0.3), inputs()
    with torch.no_grad():
        torch.testing.assert_close(model(*x), model(*x), rtol=0, atol=0)
        torch.testing.assert_close(
            model(*x), with_layout(make(dropout=0.0), model.layout)(*x), rtol=0, atol=0
        )
        model.train()
        assert not torch.allclose(model(*x), model(*x))


@pytest.mark.parametrize("training", [False, True])
def test_one_seed_gives_one_model_and_one_forecast(training: bool) -> None:
    def outcome(seed: int) -> Tensor:
        torch.manual_seed(seed)
        model = PatchSTG(narrow(), layout_of("balanced"), 6, 4, STEPS_A_DAY).train(training)
        return model(*inputs()).detach()

    assert torch.equal(outcome(3), outcome(3))
    assert not torch.equal(outcome(3), outcome(4))


# In real units


def test_forecasts_in_real_units_are_unscaled_and_scored_in_them() -> None:
    statistics = Statistics(mean=100.0, deviation=20.0, observed=1)
    axis = TimeAxis.of_days(np.datetime64("2025-03-03"), 2, 60)
    values = np.random.default_rng(0).normal(100, 20, (48, NODES)).astype(np.float32)
    windows = InMemory(values, axis, statistics, 6, 4)
    model, origins = make(), np.arange(6, 45)
    seen: list[int] = []
    tables = score(
        {"model": in_real_units(model, statistics)}, windows, origins, 16, after_batch=seen.append
    )
    with torch.no_grad():
        batch = windows.batch(origins)
        scaled = model(batch.x_BTN, batch.time_of_day_BT, batch.day_of_week_BT)
    errors = np.abs(scaled.numpy() * 20 + 100 - batch.y_BHN.numpy())
    assert tables["model"].pooled.mae == pytest.approx(errors.mean(), rel=1e-5)
    assert tables["model"].pooled.labels == 39 * 4 * NODES
    assert seen == [16, 16, 7]
