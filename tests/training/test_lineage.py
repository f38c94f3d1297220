"""Lineage: a store knows its runs, a run its tag, and a tag that moved is told of."""

import json
import shutil
import socket
from pathlib import Path

import pytest

from flowpatch.catalogue import changing
from flowpatch.catalogue.lineage import LINEAGE, read_notes
from flowpatch.errors import CheckpointDamagedError, RunNotFoundError
from flowpatch.forecasting import forecast
from flowpatch.model.settings import ModelSettings
from flowpatch.places.place import place_of
from flowpatch.store.sample_store import open_store
from flowpatch.training.checkpoint import Checkpoint
from flowpatch.training.evaluation import evaluate
from flowpatch.training.run_folder import RunFolder
from flowpatch.training.run_search import versions_in_use
from flowpatch.training.runs import resume, train
from flowpatch.training.settings import TrainSettings

FORMATS = Path(__file__).resolve().parents[1] / "formats"
TINY = ModelSettings(layers=1, input_dims=4, node_dims=4, tod_dims=4, dow_dims=4)
SHORT = TrainSettings(max_epoch=1, device="cpu")


@pytest.fixture
def store(small_store: Path, small_city: Path, tmp_path: Path) -> Path:
    """Two versions; the tag `good` is on the first."""
    from flowpatch.preprocessing.build import preprocess
    from flowpatch.preprocessing.settings import PreprocessSettings

    path = shutil.copytree(small_store, tmp_path / "city.store")
    shutil.rmtree(path / "lineage", ignore_errors=True)
    changing.tag(path, "good")
    preprocess(
        PreprocessSettings(
            records=str(small_city / "records.parquet"), nodes=str(small_city / "nodes.csv"),
            node_columns="sensor_id", step_minutes=30, input_len=8, output_len=4, null_value=0,
            store=path, overwrite=True,
        )
    )  # fmt: skip
    return path


def test_a_store_knows_its_runs_and_a_run_its_tag(store: Path, tmp_path: Path) -> None:
    tagged = open_store(store, "good")
    train(tagged, tmp_path / "a", TINY, SHORT)
    resume(tmp_path / "a", max_epoch=2)
    resume(tmp_path / "a", max_epoch=3)
    first, second = read_notes(place_of(store))
    assert (first.event, second.event) == ("trained", "resumed")
    for note in (first, second):
        assert (note.run, note.host) == (str(tmp_path / "a"), socket.gethostname())
        assert (note.version, note.tag) == (tagged.version, "good")
        assert note.content_hash == tagged.manifest.content_hash
    reference = RunFolder(tmp_path / "a").load("best").store
    assert (reference.version, reference.tag) == (tagged.version, "good")
    assert json.loads((tmp_path / "a/settings.json").read_text())["store"]["tag"] == "good"
    assert versions_in_use(tmp_path) == {tagged.version: [str(tmp_path / "a")]}


def test_a_tag_that_moved_is_told_of(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, now = open_store(store, "good").version, open_store(store).version
    train(open_store(store, "good"), tmp_path / "a", TINY, SHORT)
    assert "The tag" not in capsys.readouterr().err
    changing.tag(store, "good", now)
    train(open_store(store, "good"), tmp_path / "b", TINY, SHORT)
    moved = f"The tag 'good' has moved since run '{tmp_path / 'a'}': from {before} to {now}."
    assert moved in capsys.readouterr().err
    train(open_store(store, "good"), tmp_path / "c", TINY, SHORT)
    evaluate(tmp_path / "c")
    assert "has moved" not in capsys.readouterr().err
    stays = f"The tag 'good' has moved to {now} since the run was trained: it stays on its own "
    for use in (evaluate, forecast, lambda run: resume(run, max_epoch=2)):
        use(tmp_path / "a")
        assert f"{stays}version, {before}." in capsys.readouterr().err
    changing.untag(store, "good")
    evaluate(tmp_path / "a")
    assert "The tag 'good' is gone" in capsys.readouterr().err


def test_a_store_that_takes_no_note_trains_all_the_same(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (store / "lineage").write_text("no folder")
    train(open_store(store), tmp_path / "a", TINY, SHORT)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "no note" in line]
    assert str(store) in line
    assert RunFolder(tmp_path / "a").load("best").progress.epoch == 1


def test_notes_of_strangers_harm_nobody(store: Path) -> None:
    (store / LINEAGE).mkdir()
    for number, content in enumerate(("", "[]", "null", "{}", '{"run": 1}', "\\xff", '"x"')):
        (store / LINEAGE / f"{number}.json").write_text(content)
    (store / LINEAGE / "b.json").write_bytes(b"\xff\xfe")
    assert read_notes(place_of(store)) == []


def test_checkpoints_from_before_tags_load() -> None:
    found = Checkpoint.load(FORMATS / "run-1/checkpoints/best.safetensors")
    assert found.store.tag is None
    assert found.store.version in versions_in_use(FORMATS)


def test_runs_are_found_wherever_they_lie(store: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    train(open_store(store), tmp_path / "elsewhere/a", TINY, SHORT)
    (runs / "deep").mkdir(parents=True)
    (runs / "deep/link").symlink_to(tmp_path / "elsewhere")
    (runs / "deep/loop").symlink_to(runs)
    (runs / "other.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    assert versions_in_use(runs) == {
        open_store(store).version: [str(runs / "deep/link/a")],
    }  # fmt: skip


def test_a_damaged_checkpoint_is_known_by_its_settings_or_refused(
    store: Path, tmp_path: Path
) -> None:
    train(open_store(store), tmp_path / "runs/a", TINY, SHORT)
    for file in (tmp_path / "runs/a/checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:20])
    assert list(versions_in_use(tmp_path / "runs")) == [open_store(store).version]
    (tmp_path / "runs/a/settings.json").unlink()
    with pytest.raises(CheckpointDamagedError, match="is damaged"):
        versions_in_use(tmp_path / "runs")
    with pytest.raises(RunNotFoundError, match="--runs"):
        versions_in_use(tmp_path / "nowhere")
