"""All predictions held until they are scored, as published: memory grows with what is scored."""

import numpy as np
import torch
from numpy.typing import NDArray

from flowpatch.model.baselines import Forecaster
from flowpatch.windows.batches import Windows


@torch.no_grad()
def mean_absolute_error(
    forecaster: Forecaster, windows: Windows, origins: NDArray[np.int64], batch_size: int
) -> float:
    """Mean absolute error over the observed labels of all windows at once, in real units."""
    forecasts, labels = [], []
    for batch in windows.batches(origins, batch_size):
        forecasts.append(forecaster(batch).cpu().numpy())
        labels.append(batch.y_BHN.cpu().numpy())
    error = np.abs(np.concatenate(forecasts) - np.concatenate(labels))
    return float(np.nanmean(error))
