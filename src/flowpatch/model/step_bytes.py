"""What a training step takes in memory, from sizes alone: how many windows may go at a time.

Counted is what the encoder keeps for the way back, and the scores that one attention holds there
for a moment. Attention makes both grow with the length of its sequences: S inside patches, P across
them. Measured beside real steps in `docs/decisions/0020-wide-cities.md`.
"""

import torch

from flowpatch.model.patchstg import PatchSTG

AT_A_TIME_BYTES = 4 * 2**30
"""What the windows that go through a model at a time may take on a CPU. A constant, not a share of
the machine's memory: the same settings give the same loss on every machine."""
GPU_SHARE = 0.5
"""The same on a GPU, as a share of its memory: larger parts keep it busy."""

_WIDE_KEPT = 8
"""Tensors of the encoder's width that half a block keeps: its input and the residual, both
normalised, query, value, and the MLP's hidden layer before and behind its GELU."""
_MASKS_KEPT = 3
"""Masks of that width: behind attention and behind both maps of the MLP."""
_MASK_BYTES = 2
_SCORES_HELD = 3
"""Tensors of scores held on the way back in the encoder's precision, and as many in float32."""
_FLOAT_BYTES = torch.float32.itemsize


def training_bytes(model: PatchSTG, *, recompute: bool | None = None) -> int:
    """About how many bytes a training step takes for each window, beside weights and series.

    `recompute` says whether activations are computed again, by default as the model does. On a
    GPU, whose fused attention keeps no scores, it takes less.
    """
    recompute = model.recompute_activations if recompute is None else recompute
    width, value_bytes = model.settings.dims, model.encoder_dtype.itemsize
    lengths = (model.layout.patch_size, model.layout.patches)
    of_width = (_WIDE_KEPT * value_bytes + _MASKS_KEPT * _MASK_BYTES) * width
    halves = [of_width + (value_bytes + _MASK_BYTES) * length for length in lengths]
    held = _SCORES_HELD * (value_bytes + _FLOAT_BYTES) * max(lengths)
    if recompute:
        kept = len(halves) * model.settings.layers * value_bytes * width + max(halves)
    else:
        kept = model.settings.layers * sum(halves)
    tokens = model.patch_count * model.layout.slots.size
    return tokens * kept + max(tokens * held, _decoding_bytes(model))


def _decoding_bytes(model: PatchSTG) -> int:
    """Of a window's decoding, with forecasts, labels and what the loss makes of them."""
    nodes = len(model.layout.slot_of_node)
    encoded = model.patch_count * model.settings.dims
    return nodes * (
        encoded * (model.encoder_dtype.itemsize + 2 * _FLOAT_BYTES)
        + 5 * model.output_len * _FLOAT_BYTES
    )


def describe_parts(model: PatchSTG, at_a_time: int, batch_size: int) -> str:
    """How a batch goes through the model in training, and what takes less memory."""
    whole, less = (training_bytes(model, recompute=recompute) for recompute in (False, True))
    chosen = less if model.recompute_activations else whole
    line = (
        f"{batch_size} windows of a step go through the model {at_a_time} at a time, "
        f"in about {at_a_time * chosen / 1e9:.1f} GB"
    )
    if model.recompute_activations or at_a_time > 1:
        return line
    return f"{line}; with --recompute-activations in {less / 1e9:.1f} GB"


def windows_at_a_time(model: PatchSTG, device: torch.device) -> int:
    """How many windows go through a model in training at a time: at least one."""
    if device.type == "cuda":
        allowed = int(GPU_SHARE * torch.cuda.get_device_properties(device).total_memory)
    else:
        allowed = AT_A_TIME_BYTES
    return max(1, allowed // training_bytes(model))
