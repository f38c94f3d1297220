"""What a model takes in memory at some work, before the work begins: figures to plan by.

They are fitted to measurements, see docs/decisions/0018-larger-than-memory.md, and rather too large
than too small: what is planned by them must not be killed half way.
"""

from typing import Literal

import torch

from flowpatch.model.patchstg import PatchSTG
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
_OF_THE_MEAN = 24
"""Bytes of each value of the historical mean of a week, while it is taken."""


def needs_of(
    work: Work, model: PatchSTG, batch_size: int, dtype: torch.dtype, device: torch.device
) -> Needs:
    """Bytes that everything but the windows takes on host and GPU.

    Args:
        work: what is done with the model.
        model: of shapes alone is enough.
        batch_size: windows of one step.
        dtype: what the encoder computes in.
        device: where it computes.
    """
    nodes, window = len(model.node_emb), model.input_len + model.output_len
    batches = _COPIES[work] * 4 * batch_size * window * nodes
    if work == "evaluate":
        batches += _OF_THE_MEAN * DAYS_A_WEEK * len(model.time_in_day_emb) * nodes
    parameters = _OF_A_PARAMETER[work] * sum(one.numel() for one in model.parameters())
    computing = _LIBRARIES[work] + _tokens_bytes(work, model, batch_size, dtype.itemsize)
    if device.type == "cpu":
        return Needs(process_bytes() + parameters + computing + batches)
    # What CUDA takes on the host is seen once it is there.
    torch.cuda.init()  # type: ignore[no-untyped-call]
    return Needs(process_bytes() + parameters + batches, parameters + computing + batches)


def _tokens_bytes(work: Work, model: PatchSTG, batch_size: int, value_bytes: int) -> int:
    """What the tokens of a batch take on their way through the model."""
    tokens = batch_size * model.patch_count * model.layout.slots.size
    width = model.settings.dims
    if work != "train":
        return tokens * width * _WITHOUT_WAY_BACK[value_bytes]
    pairs = model.layout.patches + model.layout.patch_size
    block = width * _OF_A_BLOCK[value_bytes] + pairs * _PAIR_VALUES * value_bytes
    return tokens * (model.settings.layers * block + width * _OUTSIDE_BLOCKS)
