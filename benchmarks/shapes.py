"""The sizes of LargeST's sets: coordinates, a series of that shape, and the published settings.

Speed and memory do not depend on the values, so the series is made up; the coordinates are those
of the sensors where the folder of shared data lies beside the project, and made up where not.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flowpatch.model.settings import ModelSettings
from flowpatch.patches.layout import PatchLayout, balanced_layout, paper_layout
from flowpatch.patches.similarity import daily_profiles
from flowpatch.series.statistics import Statistics
from flowpatch.time_axis import TimeAxis

SENSORS = Path(__file__).resolve().parents[2] / "shared" / "reference" / "sensors"
STEP_MINUTES = 15
STEPS_A_DAY = 96
INPUT_LEN = OUTPUT_LEN = 12
BATCH = 16
MISSING_SHARE = 0.01


@dataclass(frozen=True)
class Shape:
    """A set of LargeST: its nodes and days, and what was published for it."""

    name: str
    nodes: int
    depth: int
    leaf_size: int
    factors: int
    input_dims: int
    node_dims: int
    days: int = 365

    @property
    def widths(self) -> ModelSettings:
        """The published widths and depth, all else by default."""
        return ModelSettings(
            layers=5,
            input_dims=self.input_dims,
            node_dims=self.node_dims,
            tod_dims=32,
            dow_dims=32,
        )

    @property
    def axis(self) -> TimeAxis:
        """The time axis from 2019 on."""
        return TimeAxis.of_days(np.datetime64("2019-01-01"), self.days, STEP_MINUTES)

    def coordinates(self) -> NDArray[np.float64]:
        """(N, 2) latitude and longitude of the first nodes of the set, made up if need be."""
        if not self.has_sensors():
            return np.random.default_rng(self.nodes).uniform(
                (32, -122), (38, -117), (self.nodes, 2)
            )
        path = SENSORS / f"{self.name.lower()}_meta.csv"
        found = np.loadtxt(path, delimiter=",", skiprows=1, usecols=(1, 2), max_rows=self.nodes)
        return np.asarray(found, dtype=np.float64)

    def has_sensors(self) -> bool:
        """Whether the coordinates are those of real sensors."""
        return (SENSORS / f"{self.name.lower()}_meta.csv").is_file()

    def note(self) -> str:
        """What a row says of the coordinates: nothing where they are real."""
        return "" if self.has_sensors() else "simulated coordinates"

    def series(self) -> NDArray[np.float32]:
        """(T, N) counts with a daily shape, one in a hundred missing."""
        generator = np.random.default_rng(1)
        steps = self.days * STEPS_A_DAY
        values = generator.random((steps, self.nodes), dtype=np.float32)
        phase = generator.random(self.nodes, dtype=np.float32)
        day = np.arange(STEPS_A_DAY, dtype=np.float32)[:, None] / STEPS_A_DAY
        values[values < MISSING_SHARE] = np.nan
        values.reshape(self.days, STEPS_A_DAY, -1)[...] *= 200 + 150 * np.sin(
            2 * np.pi * (day + phase)
        )
        return values

    def profiles(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """(STEPS_A_DAY, N) mean daily profiles of the scaled series."""
        statistics = statistics_of(values)

        def days() -> Iterator[NDArray[np.float32]]:
            for first in range(0, len(values), STEPS_A_DAY):
                yield statistics.scale(values[first : first + STEPS_A_DAY])

        return daily_profiles(days(), STEPS_A_DAY, self.nodes)

    def paper(self, profiles: NDArray[np.float64]) -> PatchLayout:
        """The published layout, padded by (STEPS_A_DAY, N) mean daily profiles."""
        return paper_layout(
            self.coordinates(), lambda: profiles, self.depth, self.leaf_size, self.factors
        )

    def balanced(self) -> PatchLayout:
        """The layout that is the default."""
        return balanced_layout(self.coordinates())


def statistics_of(values: NDArray[np.float32]) -> Statistics:
    """Mean and deviation of the observed values; the first days tell enough."""
    part = values[: 7 * STEPS_A_DAY]
    observed = part[~np.isnan(part)]
    return Statistics(float(observed.mean()), float(observed.std()), observed.size)


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("SD", 716, depth=9, leaf_size=2, factors=32, input_dims=64, node_dims=64),
        Shape("GBA", 2352, depth=11, leaf_size=2, factors=128, input_dims=128, node_dims=32),
        Shape("GLA", 3834, depth=11, leaf_size=2, factors=32, input_dims=64, node_dims=32),
        Shape("CA", 8600, depth=12, leaf_size=3, factors=8, input_dims=64, node_dims=32),
    )
}


def shape_of(name: str, *, quick: bool, days: int | None = None) -> Shape:
    """A shape by name; `quick` gives one of a few dozen nodes and a week."""
    shape = SHAPES[name]
    if quick:
        return replace(shape, nodes=60, depth=5, leaf_size=2, factors=4, days=7)
    return replace(shape, days=days or shape.days)
