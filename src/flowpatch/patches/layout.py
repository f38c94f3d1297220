"""PatchLayout: which node each slot of each patch shows, and where each node stands.

    balanced   the KD-tree cut into equal patches; sizes differ by at most one, so less than one
               slot a patch is padding
    paper      the published layout: 2**depth leaves, padded to leaf_size by similarity, `factors`
               leaves in a row to a patch

        patch 0          patch 1
      +-----------+    +-----------+        slots[p, s]       the node that slot s of patch p shows
      | 4 7 1 (2) |    | 0 2 5  6  |        slot_of_node[n]   the slot p * S + s where n stands
      +-----------+    +-----------+        (2) is padding: node 2 shown again, read nowhere

How settings become a layout is here too, with defaults drawn from the number of nodes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowpatch.errors import LayoutError
from flowpatch.patches.kdtree import Nodes, split_equal, split_leaves
from flowpatch.patches.kinds import LayoutKind
from flowpatch.patches.similarity import pad_leaves


@dataclass(frozen=True)
class PatchLayout:
    """`slots` is (P, S), `slot_of_node` (N,) positions in the flattened slots.

    Raises:
        LayoutError: a node has no slot, or a slot shows another node than stands there.
    """

    kind: LayoutKind
    slots: NDArray[np.int64]
    slot_of_node: NDArray[np.int64]

    def __post_init__(self) -> None:
        nodes = len(self.slot_of_node)
        positions = self.slot_of_node
        if (
            self.slots.ndim != 2
            or self.slots.min(initial=0) < 0
            or self.slots.max(initial=0) >= nodes
            or positions.min(initial=0) < 0
            or positions.max(initial=0) >= self.slots.size
            or not np.array_equal(self.slots.ravel()[positions], np.arange(nodes))
        ):
            raise LayoutError("The patch layout does not give each node a slot of its own.")

    @property
    def patches(self) -> int:
        """P."""
        return int(self.slots.shape[0])

    @property
    def patch_size(self) -> int:
        """S, slots a patch."""
        return int(self.slots.shape[1])

    @property
    def padding_share(self) -> float:
        """Padding slots as a share of the nodes: what the encoder computes for nothing."""
        return self.slots.size / len(self.slot_of_node) - 1


def balanced_layout(coordinates: NDArray[np.float64], patches: int | None = None) -> PatchLayout:
    """Equal patches, from coordinates alone.

    A patch that is one node short shows, as padding, the node nearest to its centre of those
    outside it.

    Args:
        coordinates: (N, 2) latitude and longitude.
        patches: how many; by default near the square root of N, which balances attention inside
            patches against attention across them, with the least padding there.

    Raises:
        LayoutError: more patches than nodes, or none.
    """
    nodes = len(coordinates)
    patches = default_patches(nodes) if patches is None else patches
    if not 1 <= patches <= nodes:
        raise LayoutError(
            f"{nodes} nodes cannot be cut into {patches} patches. "
            f"Set --factors (the number of patches) to 1..{nodes}; near {default_patches(nodes)} "
            "is fastest."
        )
    parts = split_equal(coordinates, patches)
    size = -(-nodes // patches)
    return _of_parts("balanced", parts, [_pad_nearest(part, size, coordinates) for part in parts])


def paper_layout(
    coordinates: NDArray[np.float64],
    profiles: Callable[[], NDArray[np.float64]],
    depth: int | None = None,
    leaf_size: int | None = None,
    factors: int | None = None,
) -> PatchLayout:
    """The published layout.

    Args:
        coordinates: (N, 2) latitude and longitude.
        profiles: gives the (steps_a_day, N) mean daily profiles; called if a leaf needs padding.
        depth: the tree has 2**depth leaves; by default as many as keep two nodes in each.
        leaf_size: nodes a leaf after padding; by default the largest leaf.
        factors: leaves a patch; by default near the square root of the number of leaves.

    Raises:
        LayoutError: a combination that does not fit; the message says what would.
    """
    nodes = len(coordinates)
    depth = check_depth(nodes, default_depth(nodes) if depth is None else depth)
    leaves = 2**depth
    factors = check_factors(2 ** ((depth + 1) // 2) if factors is None else factors, leaves)
    largest = -(-nodes // leaves)
    leaf_size = largest if leaf_size is None else leaf_size
    if leaf_size < largest:
        raise LayoutError(
            f"{nodes} nodes in {leaves} leaves are up to {largest} a leaf, more than --leaf-size "
            f"{leaf_size}. Set --leaf-size to {largest}..{nodes}{_or_a_depth(nodes, leaf_size)}."
        )
    if leaf_size > nodes:
        raise LayoutError(
            f"--leaf-size {leaf_size} is more than the {nodes} nodes. "
            f"Set --leaf-size to {largest}..{nodes}; {largest} pads least."
        )
    parts = split_leaves(coordinates, depth)
    lacking = any(len(part) < leaf_size for part in parts)
    padded = pad_leaves(parts, leaf_size, profiles()) if lacking else parts
    layout = _of_parts("paper", parts, padded)
    return PatchLayout("paper", layout.slots.reshape(-1, leaf_size * factors), layout.slot_of_node)


def default_patches(nodes: int) -> int:
    """The number of patches near sqrt(nodes), within a factor of 1.5, that wastes least."""
    root = nodes**0.5
    candidates = range(max(1, int(root / 1.5)), max(1, int(root * 1.5)) + 1)

    def cost(patches: int) -> tuple[int, float]:
        return -(-nodes // patches) * patches, abs(np.log(patches / root))

    return min(candidates, key=cost)


def default_depth(nodes: int) -> int:
    """The deepest tree that keeps two nodes in every leaf."""
    return max(0, (nodes // 2).bit_length() - 1)


def check_depth(nodes: int, depth: int) -> int:
    """The depth itself, if no leaf of its tree is empty.

    Raises:
        LayoutError: there are more leaves than nodes.
    """
    deepest = nodes.bit_length() - 1
    if not 0 <= depth <= deepest:
        raise LayoutError(
            f"--depth {depth} does not fit {nodes} nodes: it makes 2**depth leaves, none empty. "
            f"Set --depth to 0..{deepest}; {default_depth(nodes)} keeps two nodes in every leaf."
        )
    return depth


def check_factors(factors: int, leaves: int) -> int:
    """The factors themselves, if they divide the leaves.

    Raises:
        LayoutError: they do not; the message names those that do.
    """
    if factors < 1 or leaves % factors:
        fitting = [2**power for power in range(leaves.bit_length())]
        raise LayoutError(
            f"--factors {factors} does not divide the {leaves} leaves. "
            f"Allowed: {', '.join(map(str, fitting))}. "
            "With --layout balanced, --factors is the number of patches and may be any number."
        )
    return factors


def _or_a_depth(nodes: int, leaf_size: int) -> str:
    """The depths at which no leaf is larger than `leaf_size`, as the end of a message."""
    depths = range(nodes.bit_length())
    fitting = [depth for depth in depths if -(-nodes // 2**depth) <= leaf_size]
    return f", or --depth to {fitting[0]}..{fitting[-1]}" if fitting else ""


def _pad_nearest(part: Nodes, size: int, coordinates: NDArray[np.float64]) -> Nodes:
    if len(part) == size:
        return part
    distance = ((coordinates - coordinates[part].mean(axis=0)) ** 2).sum(axis=1)
    distance[part] = np.inf
    return np.append(part, np.argmin(distance))


def _of_parts(kind: LayoutKind, parts: list[Nodes], padded: list[Nodes]) -> PatchLayout:
    """Stacks parts of equal padded size; a part's own nodes come first in it."""
    slots = np.stack(padded)
    slot_of_node = np.empty(sum(map(len, parts)), dtype=np.int64)
    for row, part in enumerate(parts):
        slot_of_node[part] = row * slots.shape[1] + np.arange(len(part))
    return PatchLayout(kind, slots, slot_of_node)
