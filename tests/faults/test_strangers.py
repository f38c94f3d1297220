"""Stores and runs from strangers, and names that would be more than names: no code runs, nothing
outside is touched, no query is another.
"""

import ast
import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import zarr
from safetensors.torch import load, save

import flowpatch
from flowpatch.errors import CheckpointDamagedError, FlowpatchError, StoreDamagedError, StoreError
from flowpatch.preprocessing.build import preprocess
from flowpatch.preprocessing.settings import UpdateSettings
from flowpatch.preprocessing.update import update
from flowpatch.store.draft import ATTRIBUTE as DRAFT
from flowpatch.store.manifest import hash_json
from flowpatch.store.sample_store import SampleStore, open_store
from flowpatch.training import checkpoint as checkpoints
from flowpatch.training.checkpoint import Checkpoint
from growing_city import GrowingCity, copy_of, hashes_of

FORMATS = Path(__file__).parents[1] / "formats"
SOURCE = Path(flowpatch.__file__).parent

# --- no code --------------------------------------------------------------------------------------

CODE_RUNNERS = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml", "code"}
CALLS = {"eval", "exec", "compile", "__import__"}
BETWEEN_PROCESSES = {"block_work.py", "spreading.py", "processes.py"}
"""They pickle what one process of a command hands to another, and never what lies in a file."""
ATTRIBUTES = {("torch", "load"), ("np", "load"), ("os", "system"), ("numpy", "load")}


def test_nothing_that_runs_what_it_loads_is_in_the_source() -> None:
    found, files = [], sorted(SOURCE.rglob("*.py"))
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Import(names=names):
                    bad = {name.name.partition(".")[0] for name in names} & CODE_RUNNERS
                    bad -= {"pickle"} if path.name in BETWEEN_PROCESSES else set()
                case ast.ImportFrom(module=str(module)):
                    bad = {module.partition(".")[0]} & CODE_RUNNERS
                case ast.Call(func=ast.Name(id=name)):
                    bad = {name} & CALLS
                case ast.Attribute(value=ast.Name(id=owner), attr=name):
                    bad = {f"{o}.{a}" for o, a in ATTRIBUTES if (o, a) == (owner, name)}
                case ast.keyword(arg="allow_pickle" | "weights_only" | "shell" as name):
                    bad = {name}
                case _:
                    bad = set()
            found += [f"{path.name}:{node.lineno} {name}" for name in bad]
    assert found == []
    assert len(files) > 80, "the source was looked at"


class Trap:
    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.sprung}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_checkpoint_that_is_a_pickle_is_refused(protocol: int, tmp_path: Path) -> None:
    path, sprung = tmp_path / "best.safetensors", tmp_path / "sprung"
    path.write_bytes(pickle.dumps({"weights": Trap(sprung)}, protocol=protocol))
    with pytest.raises(CheckpointDamagedError, match=str(path)):
        Checkpoint.load(path)
    assert not sprung.exists()


# --- checkpoints whose hash is right --------------------------------------------------------------

Change = Callable[[dict[str, Any], dict[str, torch.Tensor]], None]
"""Changes the description and the tensors in place."""


def forged(path: Path, change: Change) -> None:
    """A checkpoint with another content and the right hash, as a stranger may make it."""
    content = (FORMATS / "run-1/checkpoints/last.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    described, tensors = json.loads(metadata["description"]), load(content)
    change(described, tensors)
    description = json.dumps(described)
    metadata = {
        "format": "1",
        "description": description,
        "content_hash": checkpoints._hash(description, tensors),
    }
    path.write_bytes(save(tensors, metadata))


def put(*keys: str, value: Any) -> Change:
    def change(described: dict[str, Any], _tensors: dict[str, torch.Tensor]) -> None:
        inner = described
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    return change


def tensor(name: str, value: torch.Tensor | None) -> Change:
    def change(_described: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value

    return change


def drop_all(prefix: str) -> Change:
    def change(_described: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith(prefix)]:
            del tensors[name]

    return change


FORGERIES: dict[str, Change] = {
    "layers": put("model_settings", "layers", value=10**9),
    "no layers": put("model_settings", "layers", value=0),
    "widths": put("model_settings", "input_dims", value=10**12),
    "negative width": put("model_settings", "node_dims", value=-3),
    "unknown setting": put("model_settings", "code", value="import os"),
    "settings are a list": put("model_settings", value=[]),
    "training settings": put("train_settings", "batch_size", value=-1),
    "input": put("input_len", value=10**12),
    "negative input": put("input_len", value=-4),
    "input is text": put("input_len", value="4; import os"),
    "output": put("output_len", value=10**12),
    "no output": put("output_len", value=0),
    "steps a day": put("steps_a_day", value=10**12),
    "no steps a day": put("steps_a_day", value=0),
    "a fraction": put("steps_a_day", value=24.5),
    "statistics": put("statistics", value={"mean": "0", "deviation": [], "observed": None}),
    "no number": put("statistics", "deviation", value=float("nan")),
    "no deviation": put("statistics", "deviation", value=-1.0),
    "nodes": put("nodes", value={"keys": 5}),
    "no nodes": put("nodes", value=None),
    "store": put("store", value={"path": 5}),
    "store path": put("store", "path", value=["/etc"]),
    "progress": put("progress", value={"epoch": "soon"}),
    "negative progress": put("progress", "epoch", value=-5),
    "layout kind": put("layout_kind", value="../../x"),
    "slots": tensor("layout/slots", torch.tensor([[10**12]])),
    "slots of another type": tensor("layout/slots", torch.ones(2, 2)),
    "no slots": tensor("layout/slots", None),
    "empty slots": tensor("layout/slots", torch.zeros((0, 0), dtype=torch.int64)),
    "fewer weights": drop_all("weights/spa_encoder"),
    "another weight": tensor("weights/extra", torch.zeros(3)),
    "no optimizer name": tensor("resume/optimizer/x/y/z", torch.zeros(3)),
}


@pytest.mark.parametrize("change", FORGERIES.values(), ids=list(FORGERIES))
def test_a_forged_checkpoint_is_refused(change: Change, tmp_path: Path) -> None:
    from flowpatch.training.runs import resume

    run = copy_of(FORMATS / "run-1", tmp_path / "r")
    path = run / "checkpoints/last.safetensors"
    forged(path, change)
    with pytest.raises(FlowpatchError, match=str(run)):
        resume(run, FORMATS / "store-1", max_epoch=2)


def test_the_forger_of_these_tests_makes_good_ones_too(tmp_path: Path) -> None:
    """The tests above would mean nothing otherwise."""
    forged(tmp_path / "last.safetensors", lambda described, tensors: None)
    assert Checkpoint.load(tmp_path / "last.safetensors").progress.epoch == 1


def header(description: bytes) -> bytes:
    return struct.pack("<Q", len(description)) + description


HEADERS = {
    "endless": struct.pack("<Q", 2**63),
    "larger than the file": struct.pack("<Q", 10**6) + b"{}",
    "deep": header(b'{"a":' * 50_000),
    "negative shape": header(
        b'{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}' + b" "
    ) + bytes(4),
    "absurd shape": header(
        b'{"w":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}}'
    ) + bytes(4),
    "offsets": header(b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}') + bytes(4),
    "overlap": header(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    ) + bytes(4),
    "object": header(b'{"w":{"dtype":"OBJECT","shape":[1],"data_offsets":[0,4]}}') + bytes(4),
    "no metadata": header(b"{}"),
}  # fmt: skip


@pytest.mark.parametrize("content", HEADERS.values(), ids=list(HEADERS))
def test_an_absurd_header_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointDamagedError, match=str(path)):
        Checkpoint.load(path)


@pytest.mark.parametrize("number", ["²", "9" * 5000, "-1", "1.0", "", "one"])
def test_an_absurd_format_number_is_refused(number: str, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    path.write_bytes(save({}, {"format": number, "description": "{}", "content_hash": ""}))
    with pytest.raises(CheckpointDamagedError, match=str(path)):
        Checkpoint.load(path)


@pytest.mark.parametrize("description", ["", "[]", "5", "{", "[" * 100_000, '{"a": 1}'])
def test_a_description_that_is_none_is_refused(description: str, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    digest = checkpoints._hash(description, {})
    path.write_bytes(save({}, {"format": "1", "description": description, "content_hash": digest}))
    with pytest.raises(CheckpointDamagedError, match=str(path)):
        Checkpoint.load(path)


# --- stores ---------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Path:
    city = GrowingCity(tmp_path / "city", nodes=3)
    city.write_days(range(3))
    preprocess(city.settings(tmp_path / "s"))
    return tmp_path / "s"


def altered(path: Path, change: Callable[[zarr.Group, Any], None]) -> None:
    """Changes the store's current version, as somebody may who knows Icechunk."""
    repository = open_store(path)._repository._opened
    session = repository.writable_session("main")
    change(zarr.open_group(session.store, mode="a"), session)
    session.commit("altered", {"content_hash": "x"})


def everything(store: SampleStore) -> None:
    store.read()
    assert store.nodes
    assert store.ledger
    assert store.observed_at is not None


def with_metadata(name: str, **changes: Any) -> Callable[[zarr.Group, Any], None]:
    def change(group: zarr.Group, session: Any) -> None:
        import asyncio

        from zarr.core.buffer import default_buffer_prototype

        prototype = default_buffer_prototype()

        async def rewrite() -> None:
            found = await session.store.get(f"{name}/zarr.json", prototype)
            content = json.loads(found.to_bytes())
            content.update(changes)
            as_bytes = prototype.buffer.from_bytes(json.dumps(content).encode())
            await session.store.set(f"{name}/zarr.json", as_bytes)

        asyncio.run(rewrite())

    return change


LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}


def codecs(*names: str) -> list[dict[str, Any]]:
    return [LITTLE, *({"name": name, "configuration": {}} for name in names)]


ODD_ARRAYS: dict[str, tuple[str, dict[str, Any]]] = {
    f"{name} with {codec}": (name, {"codecs": codecs(codec)})
    for name in ("value", "node", "step_mean")
    for codec in ("numcodecs.pickle", "pickle", "numcodecs.delta", "gzip", "transpose")
}
ODD_ARRAYS |= {
    "chunks larger than the array": (
        "step_mean",
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2**40]}}},
    ),
    "a shape that no machine holds": ("step_mean", {"shape": [2**50]}),
    "a negative shape": ("step_mean", {"shape": [-5]}),
    "objects": ("node", {"data_type": "object"}),
    "text for numbers": ("latitude", {"data_type": "string", "fill_value": ""}),
}


@pytest.mark.parametrize(("name", "changes"), ODD_ARRAYS.values(), ids=list(ODD_ARRAYS))
def test_an_array_in_an_odd_form_is_refused(
    name: str, changes: dict[str, Any], store: Path
) -> None:
    try:
        altered(store, with_metadata(name, **changes))
    except Exception as error:
        # Icechunk itself takes no such array.
        assert type(error).__module__.startswith(("icechunk", "zarr")), error
        return
    with pytest.raises(StoreDamagedError, match=str(store)):
        everything(open_store(store))


GARBAGE: list[Any] = [
    None, 5, "x", [], {}, {"format": 2}, {"format": "2"}, {"format": 99},
    {"format": 2, "origin": 5, "day_hashes": {}, "day_counts": {}},
    {"format": 2, "origin": {"recipe": 1}, "day_hashes": {}, "day_counts": {}},
    {"format": 2, "origin": dict.fromkeys(("recipe", "source", "axis", "nodes", "base"), 5),
     "day_hashes": {"x": 1}, "day_counts": {}},
    {"format": 2, "origin": {key: [] for key in ("recipe", "source", "axis", "nodes", "base")},
     "day_hashes": {"0": "x"}, "day_counts": {"0": [1]}},
]  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_a_draft_of_garbage_is_refused_or_begun_anew(garbage: Any, store: Path) -> None:
    repository = open_store(store)._repository
    repository.begin_draft()
    session = repository.draft_session()
    if isinstance(garbage, dict) and "origin" in garbage:
        garbage = {**garbage, "draft_hash": hash_json(garbage, "draft_hash")}
    zarr.open_group(session.store, mode="a").attrs[DRAFT] = garbage
    session.commit("draft", {"draft": True})
    city = GrowingCity(store.parent / "city", nodes=3)
    city.write_days([3])
    before = hashes_of(store)
    try:
        updated = update(store, UpdateSettings(resume=True))
    except StoreError as error:
        assert str(store) in str(error)
        assert hashes_of(store) == before
        updated = update(store)
    assert updated.axis.days == 4
    assert len(hashes_of(store)) == 2


def own_days(store: Path, days: Any) -> None:
    """A draft of the very origin, with days that it does not hold."""
    repository = open_store(store)._repository
    snapshot = repository.draft()
    assert snapshot
    session = repository.draft_session()
    group = zarr.open_group(session.store, mode="a")
    content: Any = group.attrs[DRAFT]
    content.update(days)
    content["draft_hash"] = hash_json(content, "draft_hash")
    group.attrs[DRAFT] = content
    session.commit("draft", {"draft": True})


@pytest.mark.parametrize(
    "days",
    [
        {"day_hashes": {"3": "0" * 64}},
        {"day_hashes": {"-1": "0" * 64, "99": "x"}},
        {"day_counts": {"3": ["x"]}},
        {"day_counts": {"3": [1]}},
        {"day_counts": {"3": [2**70] * 20}},
    ],
)
def test_a_draft_that_lies_about_its_days_is_refused(
    days: Any, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowpatch.store.arrays.BLOCK_BYTES", 1)
    monkeypatch.setattr("flowpatch.preprocessing.stretches.GATHER_BYTES", 1)
    city = GrowingCity(store.parent / "city", nodes=3)
    city.write_days(range(3, 6))
    with monkeypatch.context() as once:
        once.setattr(
            "flowpatch.store.writer.StoreWriter.commit",
            lambda *_, **__: (_ for _ in ()).throw(OSError),
        )
        with pytest.raises(OSError):  # noqa: PT011
            update(store)
    own_days(store, days)
    try:
        updated = update(store, UpdateSettings(resume=True))
    except StoreError as error:
        assert str(store) in str(error)
        updated = update(store)
    whole = preprocess(city.settings(store.parent / "whole"))
    assert updated.manifest.content_hash == whole.manifest.content_hash
    assert updated.manifest.counts == whole.manifest.counts


RECIPES: list[Any] = [
    None, 5, [], {}, {"records": 5}, {"records": "x", "store": "/etc"}, {"records": "x", "code": 1},
    {"records": "x", "nodes": "y", "step_minutes": -5},
]  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES, ids=range(len(RECIPES)))
def test_a_recipe_of_garbage_is_refused_by_an_update(recipe: Any, store: Path) -> None:
    def change(group: zarr.Group, _session: Any) -> None:
        manifest: Any = {**group.attrs["flowpatch"], "recipe": recipe}
        manifest["manifest_hash"] = hash_json(manifest, "manifest_hash")
        group.attrs["flowpatch"] = manifest

    altered(store, change)
    with pytest.raises(FlowpatchError):
        update(store)


# --- names ----------------------------------------------------------------------------------------

EVIL = [
    "../../outside", "a'; DROP TABLE x; --", 'a"; SELECT 1; --', "a\nb", "a\r\nb", "a\tb",
    "\x1b[31mred", "\x00", "$(touch sprung)", "`touch sprung`", "a|b", "a>b", "*",
    "{0.__class__}", "a" * 300, "~", "", "%s%n", "-rf", "名字", "read_csv('/etc/passwd')",
    "CON", " ", ".", "..",
]  # fmt: skip


def snapshot(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def settled(call: Callable[[], object]) -> str:
    """Works, or is an error of ours."""
    try:
        call()
    except FlowpatchError as error:
        assert str(error)
        return "refused"
    return "works"


@pytest.mark.parametrize("name", EVIL[:15], ids=map(ascii, EVIL[:15]))
@pytest.mark.parametrize(
    "flag",
    ["node_columns", "time_column", "value_column", "lat_column", "adcode", "adcode_column",
     "time_format", "records", "nodes", "time_zone"],
)  # fmt: skip
def test_a_name_in_a_flag_of_the_build_changes_nothing_else(
    flag: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    city = GrowingCity(tmp_path / "city", nodes=2)
    city.write_days(range(2))
    monkeypatch.chdir(tmp_path / "city")
    before = snapshot(tmp_path)
    given = (name,) if flag == "node_columns" else name
    found = settled(lambda: preprocess(city.settings(tmp_path / "s", **{flag: given})))
    harmless = flag in ("lat_column", "adcode_column", "records", "nodes", "adcode_column")
    assert found == "refused" or harmless or flag == "time_format"
    assert {path for path in snapshot(tmp_path) - before if not path.startswith("s")} <= {
        ".s.writer.lock"
    }


@pytest.mark.parametrize("name", [name for name in EVIL if name not in ("~", "", " ", ".", "..")],
                         ids=ascii)  # fmt: skip
def test_a_store_and_a_run_of_any_name_stay_where_they_are(
    name: str, small_store: Path, tmp_path: Path
) -> None:
    from flowpatch.model.settings import ModelSettings
    from flowpatch.training.evaluation import evaluate
    from flowpatch.training.runs import train
    from flowpatch.training.settings import TrainSettings

    inside = tmp_path / "a/b/c"
    inside.mkdir(parents=True)
    city = GrowingCity(tmp_path / "city", nodes=2)
    city.write_days(range(3))
    widths = ModelSettings(layers=1, input_dims=2, node_dims=2, tod_dims=2, dow_dims=2)
    training = TrainSettings(max_epoch=1, device="cpu")

    def all_of_it() -> None:
        store = preprocess(city.settings(inside / (name + ".store")))
        train(store, inside / (name + ".run"), widths, training)
        evaluate(inside / (name + ".run"))

    found = settled(all_of_it)
    top = {path.name for path in tmp_path.iterdir()} | {
        path.name for path in (tmp_path / "a").iterdir()
    }
    assert top <= {"a", "b", "city", "outside.store", "outside.run", ".outside.store.writer.lock"}
    assert found == "works" or "\x00" in name or len(name) > 200
