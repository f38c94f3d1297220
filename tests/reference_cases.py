"""Checks complete cases of the published PatchSTG against our own pipeline.

    python tests/reference_cases.py ../shared/reference/patchstg/*.npz

A case file holds coordinates, a series, weights, inputs and what the published model made of them
(keys: ../shared/reference/README.md). From coordinates and series our KD-tree, similarity and
layout are built, the weights are loaded into our model, and everything is compared. One line a
case goes to standard output. Exit code: 0 all agree, 1 a difference or a file that cannot be used,
2 no file given.
"""

import argparse
import json
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowpatch.errors import FlowpatchError
from flowpatch.model.patchstg import PatchSTG
from flowpatch.model.settings import ModelSettings
from flowpatch.patches.kdtree import split_leaves
from flowpatch.patches.layout import PatchLayout, paper_layout
from flowpatch.patches.similarity import daily_profiles, scaled_similarity

SIMILARITY_TOLERANCE = 1e-5
PREDICTION_TOLERANCE = 1e-4
SHOWN_NAMES = 3
WEIGHTS = "state_dict/"

SHAPES = {
    # N nodes, S steps of the series, L leaves, M slots, B windows, T input steps, H label steps.
    "lat": "N",
    "lng": "N",
    "normalised_series": "SN",
    "similarity": "NN",
    "leaves_flat": "N",
    "leaf_sizes": "L",
    "original_index": "N",
    "padded_position": "N",
    "padded_index": "M",
    "x": "BTN1",
    "time_of_day_index": "BT",
    "day_of_week_index": "BT",
    "prediction": "BHN1",
}
INDICES = {
    "leaves_flat",
    "leaf_sizes",
    "original_index",
    "padded_position",
    "padded_index",
    "time_of_day_index",
    "day_of_week_index",
}
HYPER = (
    "depth",
    "leaf_size",
    "factors",
    "temporal_patch_size",
    "temporal_patch_count",
    "layers",
    "input_dims",
    "node_dims",
    "tod_dims",
    "dow_dims",
    "time_of_day_size",
    "day_of_week_size",
    "nodes",
)


class MalformedCase(Exception):
    """The file is no case, or contradicts itself."""


@dataclass(frozen=True)
class Case:
    """One file: its arrays by the names of SHAPES, weights by published name, settings of HYPER."""

    arrays: Mapping[str, NDArray[Any]]
    weights: Mapping[str, NDArray[Any]]
    hyper: Mapping[str, int]

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]


@dataclass(frozen=True)
class Outcome:
    """What was checked, where it differs, and by how much the predictions do."""

    checked: str
    differences: list[str]
    prediction_difference: float | None = None

    def __str__(self) -> str:
        largest = self.prediction_difference
        return "; ".join(
            [
                self.checked,
                "no prediction made" if largest is None
                else f"largest prediction difference {largest:.2g}",
                "DIFFERS: " + "; ".join(self.differences) if self.differences else "ok",
            ]
        )  # fmt: skip


# Reading


def read_case(path: Path) -> Case:
    """Reads a case whole, and makes sure that its parts fit together.

    Raises:
        MalformedCase: they do not, or the file cannot be read.
    """
    content = _read_arrays(path)
    missing = [name for name in (*SHAPES, "hyper") if name not in content]
    if missing:
        raise MalformedCase(f"holds no {_names(missing)}")
    hyper = _read_hyper(content["hyper"])
    arrays = {name: content[name] for name in SHAPES}
    weights = {
        name.removeprefix(WEIGHTS): array
        for name, array in content.items()
        if name.startswith(WEIGHTS)
    }
    _check_kinds({**arrays, **weights})
    _check_shapes(arrays, hyper)
    return Case(arrays, weights, hyper)


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        # Opened here: numpy leaves a file open that it cannot read.
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise MalformedCase("is one array, not an .npz file of many")
            return {name: file[name] for name in file.files}
    except OSError as error:
        raise MalformedCase(f"cannot be read: {error.strerror or error}") from None
    except (EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise MalformedCase(f"is no whole .npz file: {error}") from None
    except ValueError:  # numpy takes what it does not know for a pickle, and says so at length
        raise MalformedCase("is no .npz file of plain arrays") from None


def _read_hyper(text: NDArray[Any]) -> dict[str, int]:
    try:
        hyper = json.loads(text.item())
    except (ValueError, TypeError) as error:
        raise MalformedCase(f"'hyper' is no JSON: {error}") from None
    if not isinstance(hyper, dict):
        raise MalformedCase(f"'hyper' is no JSON object: {text}")
    missing = [name for name in HYPER if name not in hyper]
    if missing:
        raise MalformedCase(f"'hyper' holds no {_names(missing)}")
    for name in HYPER:
        if type(hyper[name]) is not int or hyper[name] < (name != "depth"):
            raise MalformedCase(f"'hyper' holds {name} = {hyper[name]!r}")
    return {name: hyper[name] for name in HYPER}


def _check_kinds(arrays: Mapping[str, NDArray[Any]]) -> None:
    for name, array in arrays.items():
        if array.dtype.kind not in ("iu" if name in INDICES else "fiu"):
            raise MalformedCase(f"'{name}' holds {array.dtype}")


def _check_shapes(arrays: Mapping[str, NDArray[Any]], hyper: Mapping[str, int]) -> None:
    sizes = {"N": hyper["nodes"], "1": 1}
    for name, letters in SHAPES.items():
        shape = arrays[name].shape
        expected = [sizes.get(letter, letter) for letter in letters]
        if len(shape) != len(letters) or any(
            size != sizes.setdefault(letter, size)
            for letter, size in zip(letters, shape, strict=True)
        ):
            raise MalformedCase(f"'{name}' is {shape}, not ({', '.join(map(str, expected))})")
    for name, size in (("time_of_day", "time_of_day_size"), ("day_of_week", "day_of_week_size")):
        index = arrays[f"{name}_index"]
        if index.size and not 0 <= index.min() <= index.max() < hyper[size]:
            raise MalformedCase(f"'{name}_index' is not within 0..{hyper[size] - 1}")
    if sizes["S"] < hyper["time_of_day_size"]:
        raise MalformedCase(
            f"'normalised_series' of {sizes['S']} steps holds no whole day of "
            f"{hyper['time_of_day_size']}"
        )
    if not sizes["B"]:
        raise MalformedCase("'x' holds no window")


# Comparing


def check(case: Case) -> Outcome:
    """Runs our pipeline from coordinates to predictions and compares each stage."""
    depth, leaf_size, factors = (case.hyper[name] for name in ("depth", "leaf_size", "factors"))
    coordinates = np.stack([case["lat"], case["lng"]], axis=1).astype(np.float64)
    profiles = _profiles(case)
    layout = paper_layout(coordinates, lambda: profiles, depth, leaf_size, factors)
    leaves = split_leaves(coordinates, depth)
    with np.errstate(invalid="ignore"):  # where all nodes are alike, the z-score is 0 / 0
        similarity = scaled_similarity(profiles)
    model = _model(case, layout)

    differences = [
        *_differing("leaf_sizes", case["leaf_sizes"], np.array(list(map(len, leaves)))),
        *_differing("leaves_flat", case["leaves_flat"], np.concatenate(leaves)),
        *_differing_slots(case, layout),
        *_differing("padded_index", case["padded_index"], layout.slots.ravel()),
        *_differing("similarity", case["similarity"], similarity, SIMILARITY_TOLERANCE),
    ]
    unfit = list(_unfit_weights(case.weights, model.state_dict()))
    largest = None
    if not unfit:
        prediction = _predict(model, case)
        largest = float(np.abs(case["prediction"] - prediction).max())
        differences += _differing(
            "prediction", case["prediction"], prediction, PREDICTION_TOLERANCE, nan_equal=False
        )
    checked = (
        f"{len(coordinates)} nodes, {len(leaves)} leaves, {layout.slots.size} slots in "
        f"{layout.patches} patches, similarity, {len(case.weights)} weights, "
        f"{model.input_len} -> {model.output_len} steps"
    )
    return Outcome(checked, [*differences, *unfit], largest)


def _profiles(case: Case) -> NDArray[np.float64]:
    series, steps_a_day = case["normalised_series"], case.hyper["time_of_day_size"]
    days = (series[first : first + steps_a_day] for first in range(0, len(series), steps_a_day))
    return daily_profiles(days, steps_a_day, series.shape[1])


def _model(case: Case, layout: PatchLayout) -> PatchSTG:
    same_name = ("layers", "input_dims", "node_dims", "tod_dims", "dow_dims", "temporal_patch_size")
    layout_name = ("depth", "leaf_size", "factors")
    settings = ModelSettings(
        layout="paper", **{name: case.hyper[name] for name in (*same_name, *layout_name)}
    )
    model = PatchSTG(
        settings,
        layout,
        input_len=case["x"].shape[1],
        output_len=case["prediction"].shape[1],
        steps_a_day=case.hyper["time_of_day_size"],
        days_a_week=case.hyper["day_of_week_size"],
    )
    if model.patch_count != case.hyper["temporal_patch_count"]:
        raise MalformedCase(
            f"'hyper' holds temporal_patch_count = {case.hyper['temporal_patch_count']}, but "
            f"{model.input_len} input steps are {model.patch_count} temporal patches"
        )
    return model.eval()


def _predict(model: PatchSTG, case: Case) -> NDArray[np.float32]:
    """(B, H, N, 1)."""
    model.load_state_dict(
        {name: torch.from_numpy(np.asarray(array)) for name, array in case.weights.items()},
        strict=True,
    )
    x_BTN = torch.from_numpy(case["x"][..., 0].astype(np.float32))
    time_of_day, day_of_week = (
        torch.from_numpy(case[name].astype(np.int64))
        for name in ("time_of_day_index", "day_of_week_index")
    )
    with torch.inference_mode():
        return model(x_BTN, time_of_day, day_of_week).numpy()[..., None]


def _differing(
    name: str,
    theirs: NDArray[Any],
    ours: NDArray[Any],
    tolerance: float = 0.0,
    nan_equal: bool = True,
) -> Iterator[str]:
    """Says how many entries differ, and the first of them; nothing where none does."""
    if theirs.shape != ours.shape:
        yield f"{name} is {theirs.shape} in the file, {ours.shape} here"
        return
    equal = np.isclose(ours, theirs, rtol=0, atol=tolerance, equal_nan=nan_equal)
    if not equal.all():
        first = tuple(int(i) for i in np.argwhere(~equal)[0])
        yield (
            f"{name} at {(~equal).sum()} of {equal.size}, first at {list(first)}: "
            f"{theirs[first]:.9g} in the file, {ours[first]:.9g} here"
        )


def _differing_slots(case: Case, layout: PatchLayout) -> Iterator[str]:
    """Node original_index[k] stands at slot padded_position[k], in whatever order of k."""
    order = np.argsort(case["original_index"], kind="stable")
    nodes = np.arange(len(layout.slot_of_node))
    yield from _differing("original_index (sorted)", case["original_index"][order], nodes)
    yield from _differing(
        "padded_position (by node)", case["padded_position"][order], layout.slot_of_node
    )


def _unfit_weights(
    theirs: Mapping[str, NDArray[Any]], ours: Mapping[str, torch.Tensor]
) -> Iterator[str]:
    if missing := [name for name in ours if name not in theirs]:
        yield f"weights missing: {_names(missing)}"
    if unexpected := [name for name in theirs if name not in ours]:
        yield f"weights unexpected: {_names(unexpected)}"
    common = [name for name in ours if name in theirs]
    if other := [name for name in common if theirs[name].shape != ours[name].shape]:
        first = f"{theirs[other[0]].shape} in the file, {tuple(ours[other[0]].shape)} here"
        yield f"weights of another shape: {_names(other)}, the first {first}"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(f"'{name}'" for name in names[:SHOWN_NAMES]) + more


# Telling


def check_file(path: Path) -> tuple[str, bool]:
    """The line about one file, and whether its case agrees in everything."""
    try:
        outcome = check(read_case(path))
    except (MalformedCase, FlowpatchError) as error:
        return f"{path}: MALFORMED: {_one_line(error)}", False
    except Exception as error:  # a hostile file must not hide the verdict on the others
        return f"{path}: FAILED: {type(error).__name__}: {_one_line(error)}", False
    return f"{path}: {outcome}", not outcome.differences


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Checks cases of the published PatchSTG.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a case, .npz")
    agree = True
    for path in parser.parse_args(arguments).files:
        line, ok = check_file(path)
        print(line, flush=True)
        agree &= ok
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
