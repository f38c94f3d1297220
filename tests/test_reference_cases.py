"""The published cases agree with our pipeline, and a case that does not is told.

Cases of other sizes are made here by a second, plain version of the published model, which is
itself held against the shared cases.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

import reference_cases

Arrays = dict[str, NDArray[Any]]

SCRIPT = Path(reference_cases.__file__)
SHARED_NAMES = ("sd60_single_temporal_patch.npz", "gba150_two_temporal_patches.npz")


# The published model, plainly


@dataclass(frozen=True)
class Hyper:
    depth: int
    leaf_size: int
    factors: int
    temporal_patch_size: int
    temporal_patch_count: int
    layers: int
    input_dims: int
    node_dims: int
    tod_dims: int
    dow_dims: int
    time_of_day_size: int
    day_of_week_size: int
    nodes: int

    @property
    def dims(self) -> int:
        return self.input_dims + self.node_dims + self.tod_dims + self.dow_dims


def plain_leaves(points: NDArray[np.float64], depth: int) -> list[list[int]]:
    def cut(nodes: list[int], level: int) -> list[list[int]]:
        if level == depth:
            return [sorted(nodes)]
        order = sorted(nodes, key=lambda node: (points[node][level % 2], node))
        half = len(order) // 2
        return cut(order[:half], level + 1) + cut(order[half:], level + 1)

    return cut(list(range(len(points))), 0)


def plain_similarity(series: NDArray[np.float32], steps_a_day: int) -> NDArray[np.float64]:
    days = series[: len(series) // steps_a_day * steps_a_day]
    profile = np.nanmean(days.reshape(-1, steps_a_day, series.shape[1]), axis=0, dtype=np.float64).T
    length = np.sqrt((profile**2).sum(axis=1))
    cosine = profile @ profile.T / np.outer(length, length)
    return np.exp((cosine - cosine.mean()) / cosine.std())


def plain_padding(leaf: list[int], leaf_size: int, similarity: NDArray[np.float64]) -> list[int]:
    rows = similarity[leaf].copy()
    rows[:, leaf] = 0
    found: list[int] = []
    for position in np.argsort(-rows, axis=None, kind="stable"):
        column = int(position % rows.shape[1])
        if len(leaf) + len(found) < leaf_size and column not in found:
            found.append(column)
    return leaf + found


def plain_forecast(arrays: Arrays, hyper: Hyper) -> NDArray[np.float32]:
    """From x, the time indices, the slots and the weights: the published forward pass."""
    weight = {
        name.removeprefix("state_dict/"): torch.from_numpy(array)
        for name, array in arrays.items()
        if name.startswith("state_dict/")
    }
    x_BTN = torch.from_numpy(arrays["x"])[..., 0]
    tod_BT = torch.from_numpy(arrays["time_of_day_index"])
    dow_BT = torch.from_numpy(arrays["day_of_week_index"])
    windows, _, nodes = x_BTN.shape
    count, size = hyper.temporal_patch_count, hyper.temporal_patch_size
    channels_B3NT = torch.stack(
        [
            x_BTN,
            (tod_BT / hyper.time_of_day_size)[:, :, None].expand_as(x_BTN),
            (dow_BT / hyper.day_of_week_size)[:, :, None].expand_as(x_BTN),
        ],
        dim=1,
    ).transpose(2, 3)
    input_BENK = F.conv2d(
        channels_B3NT, weight["input_st_fc.weight"], weight["input_st_fc.bias"], stride=(1, size)
    )
    tod_BKD = weight["time_in_day_emb"][tod_BT[:, -count:]]
    dow_BKD = weight["day_in_week_emb"][dow_BT[:, -count:]]
    h = torch.cat(
        [
            input_BENK.permute(0, 3, 2, 1),
            tod_BKD[:, :, None].expand(-1, -1, nodes, -1),
            dow_BKD[:, :, None].expand(-1, -1, nodes, -1),
            weight["node_emb"].expand(windows, count, -1, -1),
        ],
        dim=-1,
    )
    patches = 2**hyper.depth // hyper.factors
    h = h[:, :, arrays["padded_index"]].reshape(windows, count, patches, -1, hyper.dims)
    for layer in range(hyper.layers):
        h = plain_half_block(h, weight, f"spa_encoder.{layer}.s")
        h = plain_half_block(h.transpose(2, 3), weight, f"spa_encoder.{layer}.n").transpose(2, 3)
    h = h.reshape(windows, count, -1, hyper.dims)
    h_BKND = torch.empty(windows, count, nodes, hyper.dims)
    h_BKND[:, :, arrays["original_index"]] = h[:, :, arrays["padded_position"]]
    laid_end_to_end = h_BKND.permute(0, 1, 3, 2).reshape(windows, -1, nodes, 1)
    out = F.conv2d(
        laid_end_to_end, weight["regression_conv.weight"], weight["regression_conv.bias"]
    )
    return out.numpy()


def plain_half_block(h: Tensor, weight: dict[str, Tensor], name: str) -> Tensor:
    def linear(part: str, x: Tensor) -> Tensor:
        return x @ weight[f"{name}{part}.weight"].T + weight[f"{name}{part}.bias"]

    def norm(part: str, x: Tensor) -> Tensor:
        centred = x - x.mean(dim=-1, keepdim=True)
        deviation = (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
        return centred / deviation * weight[f"{name}{part}.weight"] + weight[f"{name}{part}.bias"]

    dims = h.shape[-1]
    qkv = linear("attn.qkv", norm("norm1", h))
    q, k, v = qkv[..., :dims], qkv[..., dims : 2 * dims], qkv[..., 2 * dims :]
    h = h + linear("attn.proj", (q @ k.transpose(-2, -1) / dims**0.5).softmax(dim=-1) @ v)
    hidden = linear("mlp.fc1", norm("norm2", h))
    return h + linear("mlp.fc2", hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5)))


def made_case(hyper: Hyper, output_len: int, *, missing: float = 0, seed: int = 0) -> Arrays:
    """A case like the shared ones; a share of the series may be missing, never on the first day."""
    generator = np.random.default_rng(seed)

    def normal(*shape: int) -> NDArray[np.float32]:
        return generator.standard_normal(shape).astype(np.float32)

    days, windows = 4, 2
    input_len = hyper.temporal_patch_size * hyper.temporal_patch_count
    # The last day is cut short: only whole days count.
    series = normal(days * hyper.time_of_day_size + 1, hyper.nodes)
    series[hyper.time_of_day_size :][
        generator.random((len(series) - hyper.time_of_day_size, hyper.nodes)) < missing
    ] = np.nan
    points = generator.random((hyper.nodes, 2))
    similarity = plain_similarity(series, hyper.time_of_day_size)
    leaves = plain_leaves(points, hyper.depth)
    padded = [plain_padding(leaf, hyper.leaf_size, similarity) for leaf in leaves]
    positions = [
        row * hyper.leaf_size + place
        for row, leaf in enumerate(leaves)
        for place in range(len(leaf))
    ]
    arrays: Arrays = {
        "lat": points[:, 0],
        "lng": points[:, 1],
        "normalised_series": series,
        "similarity": similarity,
        "leaves_flat": np.concatenate(leaves),
        "leaf_sizes": np.array([len(leaf) for leaf in leaves]),
        "original_index": np.concatenate(leaves),
        "padded_position": np.array(positions),
        "padded_index": np.concatenate(padded),
        "x": normal(windows, input_len, hyper.nodes, 1),
        "time_of_day_index": generator.integers(hyper.time_of_day_size, size=(windows, input_len)),
        "day_of_week_index": generator.integers(hyper.day_of_week_size, size=(windows, input_len)),
        "hyper": np.array(json.dumps(asdict(hyper))),
    }
    for name, shape in published_shapes(hyper, output_len).items():
        # Norm weights near 1, the rest small enough to keep the softmax soft.
        weight = 0.3 * normal(*shape) + (name.endswith("weight") and "norm" in name)
        arrays[f"state_dict/{name}"] = weight.astype(np.float32)
    arrays["prediction"] = plain_forecast(arrays, hyper)
    return arrays


def published_shapes(hyper: Hyper, output_len: int) -> dict[str, tuple[int, ...]]:
    d = hyper.dims
    shapes: dict[str, tuple[int, ...]] = {
        "node_emb": (hyper.nodes, hyper.node_dims),
        "time_in_day_emb": (hyper.time_of_day_size, hyper.tod_dims),
        "day_in_week_emb": (hyper.day_of_week_size, hyper.dow_dims),
        "input_st_fc.weight": (hyper.input_dims, 3, 1, hyper.temporal_patch_size),
        "input_st_fc.bias": (hyper.input_dims,),
        "regression_conv.weight": (output_len, d * hyper.temporal_patch_count, 1, 1),
        "regression_conv.bias": (output_len,),
    }
    widths = {"attn.qkv": 3 * d, "attn.proj": d, "mlp.fc1": d, "mlp.fc2": d}
    for layer in range(hyper.layers):
        for side in "sn":
            start = f"spa_encoder.{layer}.{side}"
            shapes |= {
                f"{start}norm{i}.{kind}": (d,) for i in (1, 2) for kind in ("weight", "bias")
            }
            shapes |= {f"{start}{part}.weight": (width, d) for part, width in widths.items()}
            shapes |= {f"{start}{part}.bias": (width,) for part, width in widths.items()}
    return shapes


SMALL = Hyper(2, 4, 2, 3, 2, 1, 5, 3, 2, 4, 24, 7, 13)

OTHERS = {
    "other widths, output length and day": (SMALL, 5),
    "one leaf": (Hyper(0, 9, 1, 4, 1, 2, 4, 4, 4, 4, 12, 7, 9), 4),
    "every node a leaf, all padded": (Hyper(3, 3, 8, 2, 3, 1, 3, 2, 1, 2, 48, 7, 8), 6),
    "one leaf a patch": (Hyper(4, 3, 1, 6, 1, 1, 8, 3, 2, 2, 96, 7, 37), 12),
    "shallow days and weeks": (Hyper(5, 4, 4, 1, 4, 1, 4, 2, 2, 2, 6, 5, 100), 1),
}


def save(path: Path, arrays: Arrays) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def run_script(*paths: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *paths], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def shared_cases(shared: Path) -> list[Path]:
    paths = [shared / "reference" / "patchstg" / name for name in SHARED_NAMES]
    absent = [str(path) for path in paths if not path.is_file()]
    if absent:
        pytest.skip(f"no reference case at {', '.join(absent)}")
    return paths


@pytest.fixture(scope="module")
def sd60(shared_cases: list[Path]) -> Arrays:
    with np.load(shared_cases[0]) as file:
        return {name: file[name] for name in file.files}


# What agrees


def test_the_shared_cases_agree(shared_cases: list[Path]) -> None:
    ran = run_script(*shared_cases)
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert len(lines) == len(shared_cases)
    for path, line in zip(shared_cases, lines, strict=True):
        assert line.startswith(f"{path}: ")
        assert line.endswith("; ok")
        assert "largest prediction difference" in line


def test_the_plain_version_is_the_published_model(shared_cases: list[Path]) -> None:
    for path in shared_cases:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        hyper = Hyper(**json.loads(arrays["hyper"].item()))
        np.testing.assert_allclose(
            plain_forecast(arrays, hyper), arrays["prediction"], rtol=0, atol=1e-5
        )
        similarity = plain_similarity(arrays["normalised_series"], hyper.time_of_day_size)
        np.testing.assert_allclose(similarity, arrays["similarity"], rtol=0, atol=1e-5)
        leaves = plain_leaves(np.stack([arrays["lat"], arrays["lng"]], axis=1), hyper.depth)
        padded = [plain_padding(leaf, hyper.leaf_size, similarity) for leaf in leaves]
        np.testing.assert_array_equal(np.concatenate(padded), arrays["padded_index"])


@pytest.mark.parametrize("missing", [0, 0.2], ids=["complete", "missing values"])
@pytest.mark.parametrize(("hyper", "output_len"), OTHERS.values(), ids=OTHERS)
def test_cases_of_other_sizes_agree(
    hyper: Hyper,
    output_len: int,
    missing: float,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = save(tmp_path / "case.npz", made_case(hyper, output_len, missing=missing))
    assert reference_cases.main([str(path)]) == 0
    assert capsys.readouterr().out.endswith("; ok\n")


def test_nodes_may_be_listed_in_any_order_of_slots(tmp_path: Path) -> None:
    arrays = made_case(SMALL, 5)
    order = np.random.default_rng(1).permutation(SMALL.nodes)
    for name in ("original_index", "padded_position"):
        arrays[name] = arrays[name][order]
    assert reference_cases.main([str(save(tmp_path / "case.npz", arrays))]) == 0


# What differs


def change_weight(arrays: Arrays) -> None:
    arrays["state_dict/spa_encoder.0.nmlp.fc2.weight"][1, 2] += 0.5


def change_padded_index(arrays: Arrays) -> None:
    padding = np.setdiff1d(np.arange(len(arrays["padded_index"])), arrays["padded_position"])
    slot = padding[0]
    arrays["padded_index"][slot] = (arrays["padded_index"][slot] + 1) % len(arrays["lat"])


def swap_leaf_members(arrays: Arrays) -> None:
    arrays["leaves_flat"][[0, 1]] = arrays["leaves_flat"][[1, 0]]


def move_node_between_leaves(arrays: Arrays) -> None:
    arrays["leaf_sizes"][[0, 1]] += [1, -1]


def swap_positions(arrays: Arrays) -> None:
    arrays["padded_position"][[0, 1]] = arrays["padded_position"][[1, 0]]


def change_similarity(arrays: Arrays) -> None:
    arrays["similarity"][2, 1] += 2e-5


def blank_similarity(arrays: Arrays) -> None:
    arrays["similarity"][2, 1] = np.nan


def change_prediction(arrays: Arrays) -> None:
    arrays["prediction"][0, 1, 2, 0] += 2e-4


def blank_prediction(arrays: Arrays) -> None:
    arrays["prediction"][0, 1, 2, 0] = np.nan


def drop_weight(arrays: Arrays) -> None:
    del arrays["state_dict/spa_encoder.0.snorm1.bias"]


def add_weight(arrays: Arrays) -> None:
    arrays["state_dict/spa_encoder.0.gate"] = np.zeros(1, dtype=np.float32)


def reshape_weight(arrays: Arrays) -> None:
    arrays["state_dict/regression_conv.bias"] = arrays["state_dict/regression_conv.bias"][:-1]


DIFFERENCES: dict[Callable[[Arrays], None], str] = {
    change_weight: "DIFFERS: prediction at ",
    change_padded_index: "DIFFERS: padded_index at 1 of 64, first at [",
    swap_leaf_members: "DIFFERS: leaves_flat at 2 of 60, first at [0]: ",
    move_node_between_leaves: "DIFFERS: leaf_sizes at 2 of 16, first at [0]: 4 in the file, 3 here",
    swap_positions: "DIFFERS: padded_position (by node) at 2 of 60",
    change_similarity: "DIFFERS: similarity at 1 of 3600, first at [2, 1]: ",
    blank_similarity: "DIFFERS: similarity at 1 of 3600, first at [2, 1]: nan in the file",
    change_prediction: "DIFFERS: prediction at 1 of 2160, first at [0, 1, 2, 0]: ",
    blank_prediction: "DIFFERS: prediction at 1 of 2160, first at [0, 1, 2, 0]: nan in the file",
    drop_weight: "DIFFERS: weights missing: 'spa_encoder.0.snorm1.bias'",
    add_weight: "DIFFERS: weights unexpected: 'spa_encoder.0.gate'",
    reshape_weight: "DIFFERS: weights of another shape: 'regression_conv.bias', the first (11,)",
}


def copied(arrays: Arrays) -> Arrays:
    return {name: array.copy() for name, array in arrays.items()}


@pytest.mark.parametrize(
    ("tamper", "said"), DIFFERENCES.items(), ids=[one.__name__ for one in DIFFERENCES]
)
def test_a_tampered_case_is_told(
    tamper: Callable[[Arrays], None],
    said: str,
    sd60: Arrays,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arrays = copied(sd60)
    tamper(arrays)
    path = save(tmp_path / "tampered.npz", arrays)
    assert reference_cases.main([str(path)]) == 1
    line = capsys.readouterr().out
    assert line.startswith(f"{path}: ")
    assert said in line
    assert line.count("\n") == 1
    assert "; ok" not in line


def test_one_bad_case_among_good_ones_fails_the_run(
    shared_cases: list[Path], sd60: Arrays, tmp_path: Path
) -> None:
    arrays = copied(sd60)
    change_weight(arrays)
    tampered = save(tmp_path / "tampered.npz", arrays)
    truncated = tmp_path / "truncated.npz"
    truncated.write_bytes(shared_cases[0].read_bytes()[:-1000])
    ran = run_script(tampered, truncated, shared_cases[0])
    assert (ran.returncode, ran.stderr) == (1, "")
    first, second, third = ran.stdout.splitlines()
    assert first.startswith(f"{tampered}: ")
    assert "DIFFERS: prediction" in first
    assert second.startswith(f"{truncated}: MALFORMED: is no ")
    assert third.endswith("; ok")


# What cannot be used


def rename_hyper(arrays: Arrays, **changes: Any) -> None:
    arrays["hyper"] = np.array(json.dumps({**json.loads(arrays["hyper"].item()), **changes}))


MALFORMED: dict[str, tuple[Callable[[Arrays], Any], str]] = {
    "no latitude": (lambda arrays: arrays.pop("lat"), "holds no 'lat'"),
    "no hyper": (lambda arrays: arrays.pop("hyper"), "holds no 'hyper'"),
    "nothing at all": (
        lambda arrays: arrays.clear(),
        "holds no 'lat', 'lng', 'normalised_series' and",
    ),
    "hyper is no JSON": (
        lambda arrays: arrays.update(hyper=np.array("{depth: 4}")),
        "'hyper' is no JSON: ",
    ),
    "hyper is a list": (lambda arrays: arrays.update(hyper=np.array("[1]")), "no JSON object"),
    "hyper is a number": (lambda arrays: arrays.update(hyper=np.array(3.0)), "'hyper' is no JSON"),
    "hyper lacks a key": (
        lambda arrays: arrays.update(hyper=np.array('{"depth": 4}')),
        "'hyper' holds no 'leaf_size', 'factors', 'temporal_patch_size' and 9 more",
    ),
    "no layer": (lambda arrays: rename_hyper(arrays, layers=0), "'hyper' holds layers = 0"),
    "text for a number": (
        lambda arrays: rename_hyper(arrays, depth="4"),
        "'hyper' holds depth = '4'",
    ),
    "too deep a tree": (lambda arrays: rename_hyper(arrays, depth=70_000), "--depth to 0..3"),
    "factors that do not divide": (
        lambda arrays: rename_hyper(arrays, factors=3),
        "--factors 3 does not divide the 4 leaves",
    ),
    "too small a leaf": (
        lambda arrays: rename_hyper(arrays, leaf_size=2),
        "--leaf-size to 4..13, or --depth to 3..3",
    ),
    "too large a leaf": (lambda arrays: rename_hyper(arrays, leaf_size=14), "4..13; 4 pads least"),
    "other number of nodes": (
        lambda arrays: rename_hyper(arrays, nodes=12),
        "'lat' is (13,), not (12)",
    ),
    "other number of temporal patches": (
        lambda arrays: rename_hyper(arrays, temporal_patch_count=3),
        "temporal_patch_count = 3, but 6 input steps are 2 temporal patches",
    ),
    "temporal patches that do not divide": (
        lambda arrays: rename_hyper(arrays, temporal_patch_size=4),
        "does not divide",
    ),
    "flat input": (
        lambda arrays: arrays.update(x=arrays["x"][..., 0]),
        "'x' is (2, 6, 13), not (B, T, 13, 1)",
    ),
    "labels of other windows": (
        lambda arrays: arrays.update(prediction=arrays["prediction"][:1]),
        "'prediction' is (1, 5, 13, 1), not (2, H, 13, 1)",
    ),
    "no window": (
        lambda arrays: arrays.update(
            {
                name: arrays[name][:0]
                for name in ("x", "prediction", "time_of_day_index", "day_of_week_index")
            }
        ),
        "'x' holds no window",
    ),
    "a series shorter than a day": (
        lambda arrays: arrays.update(normalised_series=arrays["normalised_series"][:23]),
        "23 steps holds no whole day of 24",
    ),
    "a time of day out of range": (
        lambda arrays: arrays["time_of_day_index"].fill(24),
        "'time_of_day_index' is not within 0..23",
    ),
    "a negative weekday": (
        lambda arrays: arrays["day_of_week_index"].fill(-1),
        "'day_of_week_index' is not within 0..6",
    ),
    "indices that are no integers": (
        lambda arrays: arrays.update(padded_index=arrays["padded_index"].astype(float)),
        "'padded_index' holds float64",
    ),
    "weights that are text": (
        lambda arrays: arrays.update({"state_dict/node_emb": np.array(["a"])}),
        "'node_emb' holds <U1",
    ),
    "pickled objects": (
        lambda arrays: arrays.update(lat=np.array([{}], dtype=object)),
        "is no .npz file of plain arrays",
    ),
}


@pytest.mark.parametrize(("spoil", "said"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_case_is_told_in_one_line(
    spoil: Callable[[Arrays], Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = made_case(SMALL, 5)
    spoil(arrays)
    path = save(tmp_path / "case.npz", arrays)
    assert reference_cases.main([str(path)]) == 1
    line = capsys.readouterr().out
    assert line.startswith(f"{path}: MALFORMED: ")
    assert said in line
    assert line.count("\n") == 1


@pytest.mark.parametrize("kept", [0, 1, 30, 1000, -300, -22])
def test_a_truncated_file_is_told(
    kept: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "case.npz", made_case(SMALL, 5))
    path.write_bytes(path.read_bytes()[:kept])
    assert reference_cases.main([str(path)]) == 1
    assert capsys.readouterr().out.startswith(f"{path}: MALFORMED: is no ")


@pytest.mark.parametrize("at", [0.2, 0.5, 0.8])
def test_a_damaged_byte_is_told(
    at: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "case.npz", made_case(SMALL, 5))
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 0xFF
    path.write_bytes(content)
    assert reference_cases.main([str(path)]) == 1
    assert f"{path}: " in capsys.readouterr().out


def test_what_is_no_archive_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, one_array, absent = tmp_path / "a.csv", tmp_path / "b.npy", tmp_path / "absent.npz"
    text.write_text("lat,lng\n1,2\n")
    np.save(one_array, np.zeros(3))
    assert reference_cases.main([str(path) for path in (text, one_array, absent, tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{text}: MALFORMED: is no .npz file of plain arrays",
        f"{one_array}: MALFORMED: is one array, not an .npz file of many",
        f"{absent}: MALFORMED: cannot be read: No such file or directory",
        f"{tmp_path}: MALFORMED: cannot be read: Is a directory",
    ]


def test_no_file_is_a_usage_error() -> None:
    ran = run_script()
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert "FILE" in ran.stderr
    assert "Traceback" not in ran.stderr
