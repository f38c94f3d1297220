"""The road network of a simulated city: intersections, directed links, and turning flows.

A node is a turning flow: the vehicles that arrive at an intersection on the link `nds_id` and leave
it on the link `next_nds_id`. What flows over the network is left to `simulated_flow.py`.

                     link 100007            link 100031
        intersection ----------> intersection ----------> intersection
                                      ^
                       the node (100007, 100031) is observed here

Suffixes of array names: M intersections, L directed links, N nodes, E undirected edges,
D candidate turns, k nearest neighbours.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CENTRE_LAT, CENTRE_LNG = 48.76, 11.42
KM_PER_DEGREE_LAT = 111.2
KM_PER_DEGREE_LNG = KM_PER_DEGREE_LAT * float(np.cos(np.radians(CENTRE_LAT)))

NEIGHBOURS = 3
"""Each intersection is joined to this many nearest ones, so it has at least three roads."""

TURNS_PER_INTERSECTION = NEIGHBOURS * (NEIGHBOURS - 1)
"""At least this many: every road in, every other road out."""

FIRST_LINK_ID, FIRST_INTERSECTION_ID = 100_000, 1_000


@dataclass(frozen=True)
class Network:
    """The nodes of a city, ordered by key, and the links that join them.

    Attributes:
        position: (N, 2) float64, kilometres east and north of the centre.
        in_link: (N,) int64, the link a node's vehicles arrive on, 0 to `links` - 1.
        out_link: (N,) int64, the link they leave on.
        intersection: (N,) int64, where they turn.
        links: how many directed links there are.
    """

    position: NDArray[np.float64]
    in_link: NDArray[np.int64]
    out_link: NDArray[np.int64]
    intersection: NDArray[np.int64]
    links: int

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return len(self.in_link)

    @property
    def nds_id(self) -> NDArray[np.int64]:
        """(N,) the first column of the key."""
        return self.in_link + FIRST_LINK_ID

    @property
    def next_nds_id(self) -> NDArray[np.int64]:
        """(N,) the second column of the key."""
        return self.out_link + FIRST_LINK_ID

    @property
    def inter_id(self) -> NDArray[np.int64]:
        """(N,) the intersection's number, as `nodes.csv` gives it."""
        return self.intersection + FIRST_INTERSECTION_ID

    @property
    def lat(self) -> NDArray[np.float64]:
        """(N,) degrees."""
        return CENTRE_LAT + self.position[:, 1] / KM_PER_DEGREE_LAT

    @property
    def lng(self) -> NDArray[np.float64]:
        """(N,) degrees."""
        return CENTRE_LNG + self.position[:, 0] / KM_PER_DEGREE_LNG


def build_network(nodes: int, rng: np.random.Generator) -> Network:
    """A town of exactly `nodes` turning flows, denser towards its centre."""
    intersections = max(NEIGHBOURS + 1, -(-nodes // TURNS_PER_INTERSECTION))
    position_M2 = scatter_intersections(intersections, rng)
    source_L, target_L = join_neighbours(nearest(position_M2, NEIGHBOURS))
    in_link_D, out_link_D = turns(source_L, target_L)

    # There are always enough turns, mostly too many. The innermost are kept, not a random part of
    # them: every node then has its upstream nodes among the observed, except at the town's edge.
    from_centre_D = np.hypot(*position_M2[target_L[in_link_D]].T)
    kept_N = np.sort(np.argsort(from_centre_D, kind="stable")[:nodes])
    in_link_N, out_link_N = in_link_D[kept_N], out_link_D[kept_N]
    return Network(
        position=position_M2[target_L[in_link_N]],
        in_link=in_link_N,
        out_link=out_link_N,
        intersection=target_L[in_link_N],
        links=len(source_L),
    )


def scatter_intersections(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(M, 2) kilometres from the centre; the radius of the town grows with the root of `count`."""
    # An exponent of 0.5 would fill the disc evenly; a larger one draws points to the centre.
    radius_M = 0.1 * np.sqrt(count) * rng.random(count) ** 0.7
    angle_M = 2 * np.pi * rng.random(count)
    return np.stack([radius_M * np.cos(angle_M), radius_M * np.sin(angle_M)], axis=1)


def nearest(position_M2: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """(M, k) the nearest other intersections of each, in no particular order.

    The town is cut into strips from west to east and each strip is compared with itself and the
    two beside it. A strip is several intersections wide, so hardly a true neighbour is missed, and
    no M x M matrix is made.
    """
    count = len(position_M2)
    from_west_M = np.argsort(position_M2[:, 0], kind="stable")
    width = max(2 * k, 4 * int(np.sqrt(count)))
    neighbours_Mk = np.empty((count, k), dtype=np.int64)
    for first in range(0, count, width):
        own = from_west_M[first : first + width]
        candidates = from_west_M[max(0, first - width) : first + 2 * width]
        distance = np.square(position_M2[own, :1] - position_M2[candidates, 0])
        distance += np.square(position_M2[own, 1:] - position_M2[candidates, 1])
        distance[own[:, None] == candidates] = np.inf
        neighbours_Mk[own] = candidates[np.argpartition(distance, k - 1, axis=1)[:, :k]]
    return neighbours_Mk


def join_neighbours(neighbours_Mk: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """The directed links: source (L,) and target (L,), ordered by source and then target.

    A road runs both ways, even where only one end counts the other among its nearest.
    """
    count, k = neighbours_Mk.shape
    one_way_E2 = np.stack([np.repeat(np.arange(count), k), neighbours_Mk.ravel()], axis=1)
    both_ways = np.concatenate([one_way_E2, one_way_E2[:, ::-1]])
    code_L = np.unique(both_ways[:, 0] * count + both_ways[:, 1])
    return code_L // count, code_L % count


def turns(
    source_L: NDArray[np.int64], target_L: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All turns but U-turns: the link in (D,) and the link out (D,), ordered by both."""
    # The links are ordered by source, so those that leave one intersection lie side by side.
    begin_L = np.searchsorted(source_L, target_L, side="left")
    choices_L = np.searchsorted(source_L, target_L, side="right") - begin_L
    in_link_D = np.repeat(np.arange(len(source_L)), choices_L)
    rank_D = np.arange(len(in_link_D)) - np.repeat(np.cumsum(choices_L) - choices_L, choices_L)
    out_link_D = begin_L[in_link_D] + rank_D
    onward_D = target_L[out_link_D] != source_L[in_link_D]
    return in_link_D[onward_D], out_link_D[onward_D]
