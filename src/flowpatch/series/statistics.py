"""Mean and deviation of the observed training values, and the scaling that they define.

Each step's count, mean and squared deviation is kept, so that the statistics of any stretch of
steps follow without reading a value again.
"""

from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from flowpatch.errors import PeriodError
from flowpatch.series.filling import count_observed, shifted
from flowpatch.series.row_blocks import row_blocks

Scaled = TypeVar("Scaled")


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation in the unit of the values, over `observed` training values.

    `scale` and `unscale` are inverses, on arrays and tensors alike.
    """

    mean: float
    deviation: float
    observed: int

    def scale(self, values: Scaled) -> Scaled:
        """Real units -> mean 0, deviation 1 over the training period."""
        return (values - self.mean) / self.deviation  # type: ignore[operator,return-value]

    def unscale(self, scaled: Scaled) -> Scaled:
        """The inverse of `scale`."""
        return scaled * self.deviation + self.mean  # type: ignore[operator,return-value]

    def to_json(self) -> dict[str, Any]:
        """What the constructor takes."""
        return asdict(self)


@dataclass(frozen=True)
class StepMoments:
    """(T,) arrays: at each step the number of observed nodes, their mean, and M2.

    M2 is the sum of squared deviations from that step's mean, as in Chan, Golub and LeVeque,
    "Updating formulae and a pairwise algorithm for computing sample variances" (1979), which
    joins moments without cancellation.
    """

    count: NDArray[np.int64]
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]

    @classmethod
    def empty(cls, steps: int) -> "StepMoments":
        """Moments of `steps` steps that hold nothing."""
        return cls(np.zeros(steps, dtype=np.int64), np.zeros(steps), np.zeros(steps))

    def set(self, first_step: int, values: NDArray[np.float32]) -> None:
        """Takes the (S, N) values of steps first_step .. first_step + S."""
        for begin, rows in row_blocks(values):
            self._set_rows(first_step + begin, rows)

    def _set_rows(self, first_step: int, values: NDArray[np.float32]) -> None:
        rows = slice(first_step, first_step + len(values))
        count = count_observed(values)
        observed = shifted(values, np.zeros(len(values), dtype=np.float32), 0)
        mean = observed.sum(axis=1, dtype=np.float64) / np.maximum(count, 1)
        deviation = shifted(values, -mean.astype(np.float32), 0)
        # The mean above was rounded to float32 before it was subtracted: shift M2 to the true one.
        offset = mean.astype(np.float32) - mean
        squares = np.einsum("tn,tn->t", deviation, deviation, dtype=np.float64)
        self.count[rows], self.mean[rows] = count, mean
        self.m2[rows] = np.maximum(squares - count * offset**2, 0)

    def statistics(self, first: int, stop: int) -> Statistics:
        """Mean and deviation of all observed values of steps first .. stop.

        Raises:
            PeriodError: nothing was observed there.
        """
        count, mean, m2 = self.count[first:stop], self.mean[first:stop], self.m2[first:stop]
        observed = int(count.sum())
        if not observed:
            raise PeriodError(
                "No value was observed in the training period, so there is nothing to train on. "
                "Check the period, --value-column and --null-value."
            )
        overall = float((count * mean).sum() / observed)
        variance = float((m2 + count * (mean - overall) ** 2).sum() / observed)
        # A constant series has no deviation; 1 keeps scale and unscale inverses.
        return Statistics(overall, float(np.sqrt(variance)) or 1.0, observed)
