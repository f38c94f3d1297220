"""Both layouts for LargeST's sets, beside the published padding with all similarities at once."""

from benchmarks.baselines import dense_similarity
from benchmarks.measuring import alternate, run_child, seconds_of
from benchmarks.rows import Found, FoundRow
from benchmarks.shapes import SHAPES, shape_of
from benchmarks.workshop import Workshop
from flowpatch.patches.kdtree import split_leaves

DAYS = 7


def measure(workshop: Workshop) -> FoundRow:
    """Seconds of both layouts for every set, and the peak memory for CA."""
    found: dict[str, Found] = {}
    quick = workshop.quick
    for name in SHAPES:
        taken, _ = run_child(
            "benchmarks.layout:ours", name=name, quick=quick, rounds=workshop.rounds(3)
        )
        dense, _ = run_child("benchmarks.layout:dense", name=name, quick=quick)
        note = shape_of(name, quick=quick).note()
        found[f"{name.lower()}_paper"] = Found(taken["paper"], [dense], note)
        found[f"{name.lower()}_balanced"] = Found(taken["balanced"], note=note)
    _, ours = run_child("benchmarks.layout:ours", memory=True, name="CA", quick=quick, rounds=1)
    _, held = run_child("benchmarks.layout:dense", memory=True, name="CA", quick=quick)
    found["ca_memory"] = Found([ours.peak_bytes / 1e6], [held.peak_bytes / 1e6], "one run each")
    return found


def ours(name: str, quick: bool, rounds: int) -> dict[str, list[float]]:
    """Seconds of each layout, from coordinates and daily profiles."""
    shape = shape_of(name, quick=quick, days=DAYS)
    profiles = shape.profiles(shape.series())
    paper, balanced = alternate(
        rounds,
        lambda: seconds_of(lambda: shape.paper(profiles)),
        lambda: seconds_of(shape.balanced),
    )
    return {"paper": list(paper), "balanced": list(balanced)}


def dense(name: str, quick: bool) -> float:
    """Seconds of the published padding, the tree included."""
    shape = shape_of(name, quick=quick, days=DAYS)
    profiles, coordinates = shape.profiles(shape.series()), shape.coordinates()

    def pad() -> None:
        leaves = split_leaves(coordinates, shape.depth)
        dense_similarity.pad_leaves(leaves, shape.leaf_size, profiles)

    return seconds_of(pad)
