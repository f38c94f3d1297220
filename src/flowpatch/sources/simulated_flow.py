"""What flows over a simulated city's network: mean vehicles, gaps, and the records of one day.

    mean vehicles of a node in a step
        = its scale                     heavy-tailed: few nodes carry much
        x its daily profile             morning, midday and evening, mixed alike among neighbours
        x the factor of the weekday     commuting rests at weekends
        x exp(disturbance)              today is not like every day; it travels downstream

Everything is drawn from `generator(seed, purpose, day)`, so that no day depends on how many random
numbers another one used. Only the disturbance carries over from day to day.

Suffixes of array names: N nodes, L links, T steps of a block or of a day, K bumps, P parts of the
daily profile, C observed cells of a block, R records.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from flowpatch.sources.simulated_network import Network
from flowpatch.time_axis import MINUTES_A_DAY

Purpose = Literal[
    "network", "scale", "mixture", "bumps", "before", "disturbance", "missing", "records", "order"
]
_PURPOSES: tuple[Purpose, ...] = get_args(Purpose)

CELLS_PER_BLOCK = 2_000_000
"""Work is done in blocks of about this many cells, so that temporary arrays stay small."""

VEHICLES_PER_MINUTE = 4.0
"""At the peak of a median node, before its disturbance."""

CAPACITY_PER_MINUTE = 40.0
"""What the lanes of one turn can carry on average, however disturbed."""

# The parts of the daily profile: peak and width in minutes, and weight on a weekday, on Saturday
# and on Sunday.
_PROFILE = {
    "morning": (465, 55, 1.0, 0.25, 0.15),
    "midday": (770, 170, 0.6, 0.75, 0.5),
    "evening": (1030, 80, 1.0, 0.5, 0.35),
}
_NIGHT = 0.04

BUMPS = 48
"""Places whose random moods, blended by distance, make anything that is smooth in space."""

SMOOTH_DEVIATION = 0.25
LOCAL_DEVIATION = 0.25
"""Of the disturbance: what a whole district shares, and what is new at one node in each step."""

MEMORY_MINUTES = 90
PASSED_ON = 0.6
"""The share of what stays of a disturbance that comes from upstream rather than the node itself."""

OUTAGE_HOURS = (1, 2, 3, 4, 5, 6)
MOST_IN_OUTAGES = 0.1
"""At most this share of all cells; what else is missing is missing cell by cell."""


def generator(seed: int, purpose: Purpose, day: int = 0) -> np.random.Generator:
    """The random numbers of one purpose on one day."""
    sequence = np.random.SeedSequence(seed, spawn_key=(_PURPOSES.index(purpose), day))
    return np.random.default_rng(sequence)


@dataclass(frozen=True)
class DayRecords:
    """The records of one day; as they are made, ordered by step and then node.

    Attributes:
        node: (R,) int32, index of the node.
        second: (R,) int32, seconds since midnight.
        flow: (R,) int32, vehicles.
    """

    node: NDArray[np.int32]
    second: NDArray[np.int32]
    flow: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.node)

    def shuffled(self, rng: np.random.Generator) -> "DayRecords":
        """The same records in random order."""
        order_R = rng.permutation(len(self))
        return DayRecords(self.node[order_R], self.second[order_R], self.flow[order_R])


class Traffic:
    """The flow of a city, made day after day: `day_records` must be called in order of the days."""

    def __init__(self, network: Network, seed: int, step_minutes: int) -> None:
        self._seed, self._step_minutes = seed, step_minutes
        bumps_NK = _bumps(network, generator(seed, "bumps"))
        self._scale_N = _node_scales(network, generator(seed, "scale"))
        self._mixture_NP = _mixture(bumps_NK, generator(seed, "mixture"))
        self._disturbance = _Disturbance(network, bumps_NK, seed, step_minutes)

    def day_records(self, day: int, on: date, missing: float, target: int | None) -> DayRecords:
        """All records of day number `day`.

        Args:
            day: counted from 0.
            on: its date, which says whether it is a weekend.
            missing: the share of cells without any record.
            target: about how many records to make; None: one in each observed cell.
        """
        steps, nodes = MINUTES_A_DAY // self._step_minutes, len(self._scale_N)
        observed_TN = observed_cells(
            steps, nodes, missing, self._step_minutes, generator(self._seed, "missing", day)
        )
        # The rate is taken from the cells that are really observed, which keeps a small city, where
        # one outage weighs much, near its target.
        observed = max(1, int(np.count_nonzero(observed_TN)))
        per_cell = 1.0 if target is None else min(target / observed, 60 * self._step_minutes)
        rng = generator(self._seed, "records", day)
        blocks = [
            self._block_records(mean_TN, observed_TN[rows], rows.start, per_cell, rng)
            for rows, mean_TN in self._mean_flow(day, on)
        ]
        return DayRecords(
            node=np.concatenate([block.node for block in blocks]),
            second=np.concatenate([block.second for block in blocks]),
            flow=np.concatenate([block.flow for block in blocks]),
        )

    def _mean_flow(self, day: int, on: date) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Mean vehicles in a step, (T, N), block by block over the steps of a day."""
        profile_TP = daily_profile(on.weekday(), self._step_minutes)
        rng = generator(self._seed, "disturbance", day)
        height = max(1, CELLS_PER_BLOCK // len(self._scale_N))
        for first in range(0, len(profile_TP), height):
            rows = slice(first, min(first + height, len(profile_TP)))
            mean_TN = np.exp(self._disturbance.next_steps(rows.stop - rows.start, rng))
            mean_TN *= (profile_TP[rows] @ self._mixture_NP.T + np.float32(_NIGHT)) * self._scale_N
            yield rows, np.minimum(mean_TN, CAPACITY_PER_MINUTE) * np.float32(self._step_minutes)

    def _block_records(
        self,
        mean_TN: NDArray[np.float32],
        observed_TN: NDArray[np.bool_],
        first_step: int,
        per_cell: float,
        rng: np.random.Generator,
    ) -> DayRecords:
        step_seconds = 60 * self._step_minutes
        cell_C = np.flatnonzero(observed_TN)
        # Below one record a cell this thins the cells; above, each has one and some have more.
        count_C = np.full(len(cell_C), int(per_cell))
        count_C += rng.random(len(cell_C), dtype=np.float32) < per_cell % 1
        cell_R = np.repeat(cell_C, count_C)
        step_R, node_R = np.divmod(cell_R, mean_TN.shape[1])
        return DayRecords(
            node=node_R.astype(np.int32),
            second=((first_step + step_R) * step_seconds).astype(np.int32)
            + instants_in_step(count_C, step_seconds, rng),
            flow=rng.poisson(mean_TN.ravel()[cell_R]).astype(np.int32),
        )


def daily_profile(weekday: int, step_minutes: int) -> NDArray[np.float32]:
    """(T, P) how much of each part of the profile a step has; Monday is 0."""
    minute = np.arange(MINUTES_A_DAY) + 0.5
    kind = max(0, weekday - 4)
    parts = [
        weights[kind] * np.exp(-0.5 * np.square((minute - peak) / width))
        for peak, width, *weights in _PROFILE.values()
    ]
    by_step = np.stack(parts, axis=1).reshape(-1, step_minutes, len(parts))
    return np.asarray(by_step.mean(axis=1), dtype=np.float32)


def observed_cells(
    steps: int, nodes: int, missing: float, step_minutes: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """(T, N) which cells of a day have a record, all but about `missing` of them.

    Half of what is missing, where that is not too much, is missing in outages: hours at one node.
    """
    length_choices = np.minimum(
        steps, [-(-hours * 60 // step_minutes) for hours in OUTAGE_HOURS]
    ).astype(np.int64)
    in_outages = min(missing / 2, MOST_IN_OUTAGES)
    # Outages may run over midnight at either end, or else nights would have fewer.
    length_N = rng.choice(length_choices, nodes)
    begin_N = rng.integers(1 - length_N, steps)
    struck_N = rng.random(nodes) < in_outages * steps / length_choices.mean()
    end_N = np.where(struck_N, np.minimum(begin_N + length_N, steps), begin_N)
    begin_N = np.maximum(begin_N, 0)

    outage_share = np.maximum(end_N - begin_N, 0).sum() / (steps * nodes)
    single_share = max(0.0, 1 - (1 - missing) / (1 - outage_share)) if outage_share < 1 else 0.0
    observed_TN = np.empty((steps, nodes), dtype=np.bool_)
    for step in range(steps):
        single_N = rng.random(nodes, dtype=np.float32) < single_share
        observed_TN[step] = ~single_N & ((step < begin_N) | (step >= end_N))
    return observed_TN


def instants_in_step(
    count_C: NDArray[np.int64], step_seconds: int, rng: np.random.Generator
) -> NDArray[np.int32]:
    """(R,) whole seconds since the step began; those of one cell are distinct.

    A cell's records are spread evenly from a random second on, as a device reports them.
    """
    first_C = rng.integers(0, step_seconds, len(count_C), dtype=np.int32)
    apart_C = (step_seconds // np.maximum(count_C, 1)).astype(np.int32)
    begin_C = (np.cumsum(count_C) - count_C).astype(np.int32)
    rank_R = np.arange(count_C.sum(), dtype=np.int32) - np.repeat(begin_C, count_C)
    since_R = np.repeat(first_C, count_C) + rank_R * np.repeat(apart_C, count_C)
    return np.asarray(since_R % step_seconds, dtype=np.int32)


def _bumps(network: Network, rng: np.random.Generator) -> NDArray[np.float32]:
    """(N, K) how near a node is to each of K places; each row has length 1."""
    place_K2 = network.position[rng.integers(0, network.nodes, BUMPS)]
    reach = 0.25 * np.hypot(*network.position.T).max()
    squared_NK = sum(
        np.square(network.position[:, axis, None] - place_K2[:, axis]) for axis in (0, 1)
    )
    # A floor, as a node far from every place would else be divided by nothing.
    near_NK = np.exp(-0.5 * squared_NK / reach**2) + 1e-6
    return np.asarray(near_NK / np.linalg.norm(near_NK, axis=1, keepdims=True), dtype=np.float32)


def _node_scales(network: Network, rng: np.random.Generator) -> NDArray[np.float32]:
    """(N,) vehicles a minute at the peak, log-normal: a part of the link, a part of the turn."""
    log_scale_N = 0.5 * rng.standard_normal(network.links)[network.in_link]
    log_scale_N += 0.6 * rng.standard_normal(network.nodes)
    return np.asarray(VEHICLES_PER_MINUTE * np.exp(log_scale_N), dtype=np.float32)


def _mixture(bumps_NK: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """(N, P) the weights of the daily profile's parts, alike among neighbours; each row sums to 1.

    Bedroom districts leave in the morning, centres empty in the evening.
    """
    mood_KP = rng.standard_normal((BUMPS, len(_PROFILE)), dtype=np.float32)
    weight_NP = np.exp(1.5 * (bumps_NK @ mood_KP))
    return np.asarray(weight_NP / weight_NP.sum(axis=1, keepdims=True), dtype=np.float32)


class _Disturbance:
    """The logarithm of how far traffic is off its usual level, carried from step to step."""

    def __init__(
        self, network: Network, bumps_NK: NDArray[np.float32], seed: int, step_minutes: int
    ) -> None:
        self._network, self._bumps_KN = network, np.ascontiguousarray(bumps_NK.T)
        upstream_L = np.bincount(network.out_link, minlength=network.links)
        self._share_L = (1 / np.maximum(upstream_L, 1)).astype(np.float32)

        kept = float(np.exp(-step_minutes / MEMORY_MINUTES))
        self._own, self._passed = kept * (1 - PASSED_ON), kept * PASSED_ON
        # New noise replaces what is forgotten, so that the deviation stays the same over time.
        self._smooth_noise = SMOOTH_DEVIATION * float(np.sqrt(1 - kept**2))
        before = generator(seed, "before").standard_normal(BUMPS, dtype=np.float32)
        self._state_N = np.float32(SMOOTH_DEVIATION) * (before @ self._bumps_KN)

    def next_steps(self, steps: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """(T, N) the disturbance of the next steps."""
        noise_TK = rng.standard_normal((steps, BUMPS), dtype=np.float32)
        state_TN = rng.standard_normal((steps, self._network.nodes), dtype=np.float32)
        state_TN *= LOCAL_DEVIATION
        state_TN += (self._smooth_noise * noise_TK) @ self._bumps_KN
        for step in range(steps):
            state_TN[step] += self._own * self._state_N + self._passed * self._upstream()
            self._state_N = state_TN[step].copy()
        return state_TN

    def _upstream(self) -> NDArray[np.float32]:
        """(N,) mean state of the nodes that lead onto each node's link; 0 where none does."""
        network = self._network
        sum_L = np.bincount(network.out_link, weights=self._state_N, minlength=network.links)
        mean_L = sum_L.astype(np.float32) * self._share_L
        return np.asarray(mean_L[network.in_link])
