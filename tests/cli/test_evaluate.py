"""`flowpatch evaluate`: the scores of a run beside the naive forecasts, as tables and as JSON."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flowpatch


@pytest.fixture
def scores(command: Any, trained: Path) -> dict[str, Any]:
    outcome = command("evaluate", trained, "--json", "--device", "cpu")
    assert outcome.code == 0
    assert outcome.err.startswith("The series (")
    assert outcome.err.count("\n") == 1
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def test_json_names_the_run_and_scores_every_forecaster(
    scores: dict[str, Any], trained: Path, built: Path
) -> None:
    assert scores["run"] == str(trained)
    assert scores["store"] == {
        "path": str(built), "version": flowpatch.open_store(built).version,
    }  # fmt: skip
    assert (scores["split"], scores["checkpoint"], scores["epoch"]) == ("test", "best", 1)
    assert (scores["input_len"], scores["output_len"], scores["step_minutes"]) == (12, 12, 30)
    names = list(scores["scores"])
    assert names[0] == "PatchSTG"
    assert len(names) == 5
    labels = {table["pooled"]["labels"] for table in scores["scores"].values()}
    assert len(labels) == 1, "all on the same labels"


def test_the_score_of_the_last_value_is_that_of_a_plain_loop(
    scores: dict[str, Any], built: Path
) -> None:
    store = flowpatch.open_store(built)
    values, errors = store.read().astype(np.float64), []
    first, stop = store.splits.bounds("test")
    for origin in range(first, stop - 11):
        for node in range(values.shape[1]):
            before = values[origin - 12 : origin, node]
            last = before[~np.isnan(before)][-1]
            labels = values[origin : origin + 12, node]
            errors += [abs(last - label) for label in labels if not np.isnan(label)]
    assert scores["windows"] == stop - 11 - first
    (table,) = (table for name, table in scores["scores"].items() if "last value" in name.lower())
    assert table["pooled"]["labels"] == len(errors)
    assert table["pooled"]["mae"] == pytest.approx(np.mean(errors), rel=1e-5)


def test_the_table_holds_the_figures_of_the_json(
    command: Any, trained: Path, scores: dict[str, Any]
) -> None:
    outcome = command("evaluate", trained, "--device", "cpu")
    assert outcome.code == 0
    assert f"{scores['windows']:,} windows of 12 -> 12 steps of 30 min" in outcome.out
    assert "…" not in outcome.out, "nothing is cut off in a pipe"
    for name, table in scores["scores"].items():
        (row,) = re.findall(rf"^│ {re.escape(name)} +│.*$", outcome.out, re.MULTILINE)
        for metric in ("mae", "rmse", "wape"):
            assert f"{table['pooled'][metric]:,.2f}" in row
    for horizon in scores["scores"]["PatchSTG"]["horizons"]:
        assert f"{horizon['mae']:,.2f}" in outcome.out


def test_out_writes_the_same_json_beside_the_table(
    command: Any, trained: Path, tmp_path: Path, scores: dict[str, Any]
) -> None:
    out = tmp_path / "a b 杭州.json"
    outcome = command("evaluate", trained, "--out", out, "--device", "cpu")
    assert outcome.code == 0
    assert "All horizons" in outcome.out
    assert json.loads(out.read_text(encoding="utf-8")) == scores


def test_another_split_checkpoint_and_batch_size(command: Any, trained: Path) -> None:
    outcome = command(
        "evaluate", trained, "--json", "--split", "val", "--checkpoint", "last", "--batch_size",
        "7", "--mape-floor", "5",
    )  # fmt: skip
    found = json.loads(outcome.out)
    assert (found["split"], found["checkpoint"], found["mape_floor"]) == ("val", "last", 5.0)
    pooled = found["scores"]["PatchSTG"]["pooled"]
    assert 0 < pooled["mape_labels"] < pooled["labels"]


def test_a_store_that_was_moved_is_named(
    command: Any, trained: Path, built: Path, tmp_path: Path, scores: dict[str, Any]
) -> None:
    moved = shutil.copytree(built, tmp_path / "moved")
    outcome = command("evaluate", trained, "--json", "--store", moved, "--device", "cpu")
    assert json.loads(outcome.out)["scores"] == scores["scores"]


REFUSALS: dict[str, tuple[int, list[str], list[str]]] = {
    "no such run": (1, ["/no/run"], ["'/no/run'"]),
    "a store for a run": (1, ["BUILT"], ["is no run"]),
    "no such store": (1, ["TRAINED", "--store", "/no/store"], ["'/no/store'"]),
    "another store": (1, ["TRAINED", "--store", "OTHER"], ["version"]),
    "split": (2, ["TRAINED", "--split", "all"], ["all", "train", "val", "test"]),
    "batch size": (2, ["TRAINED", "--batch-size", "0"], ["'0'", "batch_size", "1 or more"]),
    "floor": (2, ["TRAINED", "--mape-floor", "0"], ["'0.0'", "mape_floor"]),
    "floor is no number": (2, ["TRAINED", "--mape-floor", "nan"], ["'nan'", "mape_floor"]),
    "floor without end": (2, ["TRAINED", "--mape-floor", "inf"], ["'inf'", "mape_floor"]),
    "device": (2, ["TRAINED", "--device", "tpu"], ["'tpu'", "auto, cpu, cuda"]),
    "out in no folder": (1, ["TRAINED", "--out", "/no/such/x.json"], ["'/no/such/x.json'"]),
    "out is a folder": (1, ["TRAINED", "--out", "BUILT"], ["--out"]),
}  # fmt: skip


@pytest.fixture(scope="session")
def other_store(small_city: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("other") / "s"
    settings = flowpatch.PreprocessSettings(
        records=str(small_city / "records.parquet"), nodes=str(small_city / "nodes.csv"),
        node_columns="sensor_id", step_minutes=60, store=store,
    )  # fmt: skip
    return flowpatch.preprocess(settings).path


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_input_is_refused(
    name: str, command: Any, built: Path, trained: Path, other_store: Path
) -> None:
    code, given, words = REFUSALS[name]
    places = {"BUILT": built, "TRAINED": trained, "OTHER": other_store}
    outcome = command("evaluate", *(places.get(part, part) for part in given))
    assert outcome.code == code, outcome.err
    assert [word for word in words if word not in outcome.error] == [], outcome.error


def test_a_run_whose_store_has_gone_says_where_it_was(
    command: Any, trained: Path, built: Path, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    moved = shutil.copytree(built, tmp_path / "moved")
    command("train", moved, "--run", tmp_path / "r", *tiny, "--max-epoch", "1")
    shutil.rmtree(moved)
    outcome = command("evaluate", tmp_path / "r")
    assert outcome.code == 1
    assert str(moved) in outcome.error


def test_a_corrupt_checkpoint_is_refused_and_the_other_named(
    command: Any, trained: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    file = run / "checkpoints" / "best.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    outcome = command("evaluate", run)
    assert outcome.code == 1
    assert all(word in outcome.error for word in ("best.safetensors", "damaged", "'last'"))
    assert command("evaluate", run, "--checkpoint", "last", "--json").code == 0
