"""What a model takes in memory at some work, before the work begins: figures to plan by.

They are fitted to measurements, see docs/decisions/0018-larger-than-memory.md, and rather too large
than too small: what is planned by them must not be killed half way.
"""

from typing import Literal

import torch

from flowpatch.model.baselines import GROUP_BYTES
from flowpatch.model.patchstg import PatchSTG
from flowpatch.model.step_bytes import training_bytes, windows_at_a_time
from flowpatch.time_axis import DAYS_A_WEEK
from flowpatch.windows.allowance import process_bytes
from flowpatch.windows.residence import Needs

Work = Literal["train", "evaluate", "forecast"]

_LIBRARIES = {"train": 120_000_000, "evaluate": 60_000_000, "forecast": 60_000_000}
"""Bytes that torch takes for itself once it computes."""
_OF_A_PARAMETER = {"train": 40, "evaluate": 12, "forecast": 12}
"""In training: weight, gradient, two moments, and twelve bytes twice while a checkpoint is made."""
_OF_A_BLOCK = {2: 80, 4: 210}
"""Bytes that a block keeps of each value of a token for the way back, by bytes of its precision."""
_PAIR_VALUES = 4
"""Values that it keeps of two tokens that attend to each other."""
_OUTSIDE_BLOCKS = 40
"""Bytes of each value of a token that embedding and decoding keep."""
_WITHOUT_WAY_BACK = {2: 10, 4: 16}
"""Bytes of each value of a token where no gradient is asked for."""
_COPIES = {"train": 6, "evaluate": 16, "forecast": 6}
"""Of input and labels: kept to be used again, gathered by patch, naive forecasts of them."""
_OF_THE_MEAN = 4
"""Bytes of each value of the historical mean of a week."""
_WHILE_IT_IS_TAKEN = 24
"""Of each value of as many nodes as it is taken of at a time."""


def needs_of(
    work: Work,
    model: PatchSTG,
    batch_size: int,
    device: torch.device,
    micro_batch: int | None = None,
) -> Needs:
    """Bytes that everything but the windows takes on host and GPU.

    Args:
        work: what is done with the model.
        model: of shapes alone is enough; in the precision in which it will compute.
        batch_size: windows of one step.
        device: where it computes.
        micro_batch: windows that go through the model at a time, where training was told.
    """
    nodes, window = len(model.node_emb), model.input_len + model.output_len
    batches = _COPIES[work] * 4 * batch_size * window * nodes
    if work == "evaluate":
        values = DAYS_A_WEEK * len(model.time_in_day_emb) * nodes
        batches += _OF_THE_MEAN * values + min(_WHILE_IT_IS_TAKEN * values, 2 * GROUP_BYTES)
    parameters = _OF_A_PARAMETER[work] * sum(one.numel() for one in model.parameters())
    if work == "train":
        batch_size = min(batch_size, micro_batch or windows_at_a_time(model, device))
    computing = _LIBRARIES[work] + _tokens_bytes(work, model, batch_size)
    if device.type == "cpu":
        return Needs(process_bytes() + parameters + computing + batches)
    # What CUDA takes on the host is seen once it is there.
    torch.cuda.init()  # type: ignore[no-untyped-call]
    return Needs(process_bytes() + parameters + batches, parameters + computing + batches)


def _tokens_bytes(work: Work, model: PatchSTG, batch_size: int) -> int:
    """What the tokens of a batch take on their way through the model."""
    value_bytes = model.encoder_dtype.itemsize
    tokens = batch_size * model.patch_count * model.layout.slots.size
    width = model.settings.dims
    if work != "train":
        return tokens * width * _WITHOUT_WAY_BACK[value_bytes]
    pairs = model.layout.patches + model.layout.patch_size
    block = width * _OF_A_BLOCK[value_bytes] + pairs * _PAIR_VALUES * value_bytes
    whole = tokens * (model.settings.layers * block + width * _OUTSIDE_BLOCKS)
    # Computed again on the way back it is less, in proportion to what is counted there.
    return whole * training_bytes(model) // training_bytes(model, recompute=False)
