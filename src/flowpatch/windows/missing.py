"""What the model sees in a missing cell: one named policy. No loss or metric counts the cell."""

from typing import Literal

Missing = Literal["zero", "last", "mean"]
"""The value 0; the last value observed in the window (the mean where there is none); or the mean
of the training values."""
