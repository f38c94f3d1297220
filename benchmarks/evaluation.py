"""Peak memory of an evaluation at CA's shape, with few windows and with many.

The model is narrow, so that it takes seconds; memory of predictions does not depend on it.
"""

import itertools
from typing import Literal

import numpy as np
import torch

from benchmarks.baselines import held_predictions
from benchmarks.measuring import highest_resident_bytes, run_child
from benchmarks.rows import Found, FoundRow
from benchmarks.shapes import BATCH, INPUT_LEN, OUTPUT_LEN, STEPS_A_DAY, shape_of
from benchmarks.step import make_windows
from benchmarks.workshop import Workshop
from flowpatch.model.patchstg import PatchSTG
from flowpatch.model.settings import ModelSettings
from flowpatch.training.scoring import in_real_units, score

Way = Literal["by batch", "held"]
DAYS = 7
FEW, MANY = 32, 256
NARROW = ModelSettings(layers=1, input_dims=4, node_dims=4, tod_dims=4, dow_dims=4)


def measure(workshop: Workshop) -> FoundRow:
    """How much larger the peak is with many windows, scored by batch and held."""
    ways: tuple[Way, ...] = ("by batch", "held")
    peaks: dict[tuple[Way, int], float] = {}
    for way, windows in itertools.product(ways, (FEW, MANY)):
        peaks[way, windows], _ = run_child(
            "benchmarks.evaluation:peak_of_evaluating",
            way=way,
            windows=windows,
            quick=workshop.quick,
        )
    grown, held = ([peaks[way, MANY] - peaks[way, FEW]] for way in ways)
    note = f"{FEW} and {MANY} windows, one run: " + "; ".join(
        f"{way} {peaks[way, FEW]:,.0f} and {peaks[way, MANY]:,.0f} MB" for way in ways
    )
    return {"growth": Found(grown, held, note)}


def peak_of_evaluating(way: Way, windows: int, quick: bool) -> float:
    """MB of this process at its peak, having scored an untrained model on so many windows."""
    shape = shape_of("CA", quick=quick, days=DAYS)
    cut = make_windows(shape, "cpu")
    torch.manual_seed(1)
    model = PatchSTG(NARROW, shape.balanced(), INPUT_LEN, OUTPUT_LEN, STEPS_A_DAY).eval()
    forecaster = in_real_units(model, cut.statistics)
    origins = INPUT_LEN + np.arange(windows, dtype=np.int64)
    if way == "held":
        held_predictions.mean_absolute_error(forecaster, cut, origins, BATCH)
    else:
        score({"model": forecaster}, cut, origins, BATCH)
    return highest_resident_bytes() / 1e6
