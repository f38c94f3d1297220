"""The manifest: plain JSON that comes back as it was, and is refused where it cannot be right."""

import copy
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowpatch.errors import StoreDamagedError, StoreFormatError
from flowpatch.series.dense import RecordCounts
from flowpatch.series.nodes import NodeTable
from flowpatch.series.quality import Quality
from flowpatch.series.splits import Splits
from flowpatch.series.statistics import Statistics
from flowpatch.store.manifest import FORMAT, Manifest, hash_content
from flowpatch.time_axis import TimeAxis

AXIS = TimeAxis.of_days(np.datetime64("2025-03-03"), 2, 60, "Asia/Shanghai")
NODES = NodeTable(
    ("编号",), (np.array(["甲", '"'], dtype=object),), np.array([1.5, 2]), np.array([3.0, 4])
)
SPLITS = Splits(0, 20, 30, 48)
STATISTICS = Statistics(1.25, 0.1, 40)
HASHES = ("a" * 64, "b" * 64)

EXAMPLE = Manifest(
    code_version="0.1.0",
    parent="BTRM9HXFRC3D0T2P4WPG",
    recipe={"records": "数据/*.parquet", "null_value": None, "node_columns": ["编号"]},
    source={"kind": "files", "records": [{"file": "a'\"b", "bytes": 2**40}]},
    axis=AXIS,
    key_columns=("编号",),
    nodes=2,
    input_len=12,
    output_len=6,
    counts=RecordCounts(read=9, used=8, unknown_node=1),
    nodes_without_coordinates=1,
    quality=Quality(0, 48, 40, 0.5, -1.0, 9.5, 3, 1, 0, 0, 0, 2, 5, "2025-03-03", 0.1),
    splits=SPLITS,
    statistics=STATISTICS,
    day_hashes=HASHES,
    content_hash="c" * 64,
)


def test_it_comes_back_through_json_as_it_was() -> None:
    content = json.loads(json.dumps(EXAMPLE.to_json()))
    assert Manifest.from_json(content, "s") == EXAMPLE
    assert content["format"] == FORMAT


def test_a_newer_format_names_the_version_that_is_needed() -> None:
    newer = {"format": FORMAT + 1, "code_version": "9.8.7", "axis": "of another shape"}
    with pytest.raises(StoreFormatError) as caught:
        Manifest.from_json(newer, "/a/s")
    words = ("'/a/s'", f"format {FORMAT + 1}", "flowpatch 9.8.7", f"up to {FORMAT}", "pip install")
    assert all(word in str(caught.value) for word in words), caught.value


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in the JSON that `from_json` relies on."""
    if not isinstance(content, dict) or path in (("recipe",), ("source",)):
        return [path]
    return [place for key in content for place in places(content[key], (*path, key))]


REQUIRED = [
    place
    for place in places(EXAMPLE.to_json())
    # `stop` follows from start and length; format 1 has no `parent` and no hash of its own.
    if place not in (("format",), ("axis", "stop"), ("parent",), ("manifest_hash",))
    and (place[0] != "counts")  # Every count has a default, for causes that come later.
]


@pytest.mark.parametrize("place", REQUIRED, ids=".".join)
def test_a_part_that_is_missing_is_damage(place: tuple[str, ...]) -> None:
    content = copy.deepcopy(EXAMPLE.to_json())
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    del inner[place[-1]]
    with pytest.raises(StoreDamagedError, match=r"manifest of '/a/s' is damaged.*" + place[-1]):
        Manifest.from_json(content, "/a/s")


@pytest.mark.parametrize("place", places(EXAMPLE.to_json()), ids=".".join)
def test_a_part_that_is_another_is_damage(place: tuple[str, ...]) -> None:
    """Such as a mean that would be believed."""
    content = json.loads(json.dumps(EXAMPLE.to_json()))
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = 1 if inner[place[-1]] == 0 else 0
    with pytest.raises(StoreDamagedError, match="manifest of '/a/s' is damaged"):
        Manifest.from_json(content, "/a/s")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("axis", 5),
        ("axis", {"start": "soon", "step_minutes": 5, "length": 288, "time_zone": "UTC"}),
        ("axis", {"start": "2025-01-01", "step_minutes": 7, "length": 288, "time_zone": "UTC"}),
        ("axis", {"start": "2025-01-01", "step_minutes": 5, "length": 288, "time_zone": "Mars"}),
        ("splits", {"first": 5, "val_start": 4, "test_start": 6, "stop": 7}),
        ("splits", None),
        ("quality", {"unheard": 1}),
        ("counts", []),
        ("day_hashes", 3),
    ],
)
def test_a_part_of_the_wrong_kind_is_damage(key: str, value: Any) -> None:
    with pytest.raises(StoreDamagedError, match="manifest of 's' is damaged"):
        Manifest.from_json({**EXAMPLE.to_json(), key: value}, "s")


def content_hash(**changes: Any) -> str:
    parts: dict[str, Any] = {
        "axis": AXIS, "nodes": NODES, "splits": SPLITS, "statistics": STATISTICS,
        "day_hashes": HASHES,
    }  # fmt: skip
    return hash_content(**{**parts, **changes})


def test_the_content_hash_sees_every_part() -> None:
    nodes = NodeTable(("编号",), NODES.keys, NODES.latitude, NODES.longitude + 1e-9)
    changes: list[dict[str, Any]] = [
        {},
        {"axis": TimeAxis.of_days(np.datetime64("2025-03-04"), 2, 60, "Asia/Shanghai")},
        {"axis": TimeAxis.of_days(np.datetime64("2025-03-03"), 2, 60, "UTC")},
        {"nodes": nodes},
        {"splits": Splits(0, 20, 31, 48)},
        {"statistics": Statistics(1.25, 0.1, 41)},
        {"day_hashes": HASHES[::-1]},
    ]
    assert len({content_hash(**change) for change in changes}) == len(changes)


@given(mean=st.floats(allow_nan=False), deviation=st.floats(min_value=1e-9))
def test_the_content_hash_is_the_same_for_what_json_gave_back(
    mean: float, deviation: float
) -> None:
    """A store that was read hashes as the store that was written."""
    statistics = Statistics(mean, deviation, 3)
    back = Statistics(**json.loads(json.dumps(statistics.to_json())))
    assert content_hash(statistics=back) == content_hash(statistics=statistics)


def test_the_content_hash_is_one_for_all_machines() -> None:
    """Golden: another machine, Python or numpy must give this, or runs lose their store."""
    assert content_hash() == "d1c467f4ebfc76d9d487d2b26c9784821a7bd401f557c2dffd5274ee758edbab"
