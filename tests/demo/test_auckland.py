"""The demo's settings and its raw records."""

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from flowpatch.model.settings import ModelSettings
from flowpatch.preprocessing.settings import PreprocessSettings
from flowpatch.training.settings import TrainSettings

DEMO = Path(__file__).resolve().parents[2] / "demo"


@pytest.fixture(scope="module")
def auckland() -> ModuleType:
    """The demo's script as a module."""
    spec = importlib.util.spec_from_file_location("auckland", DEMO / "auckland.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_settings_file_is_valid() -> None:
    content = tomllib.loads((DEMO / "auckland.toml").read_text())
    assert PreprocessSettings(**content["preprocess"]).step_minutes == 60
    train = content["train"]
    model = {key: train[key] for key in train if key in ModelSettings.model_fields}
    training = {key: train[key] for key in train if key not in ModelSettings.model_fields}
    input_len = content["preprocess"]["input_len"]
    patch_size, patches = ModelSettings(**model).temporal_patches(input_len)
    assert patch_size * patches == input_len
    assert TrainSettings(**training).max_epoch >= 1


def test_a_missing_count_has_no_record(auckland: ModuleType) -> None:
    wide = [
        {"date": "2023-05-01", "hour": "6:00-6:59", "year": "2023", "A": "4.0", "B": ""},
        {"date": "1999-05-01", "hour": "6:00-6:59", "year": "1999", "A": "4.0", "B": "1"},
        {"date": "2023-05-01", "hour": "17:00-17:59", "year": "2023", "A": "", "B": "0.0"},
    ]
    assert list(auckland.counts(iter(wide))) == [
        ("A", "2023-05-01 06:00:00", "4.0"),
        ("B", "2023-05-01 17:00:00", "0.0"),
    ]


def test_the_packages_table_becomes_records_of_21_places(
    auckland: ModuleType, tmp_path: Path
) -> None:
    auckland.write_records(tmp_path / "records.csv", tmp_path / "nodes.csv")
    nodes = (tmp_path / "nodes.csv").read_text().splitlines()
    assert len(nodes) == 22
    with (tmp_path / "records.csv").open() as records:
        assert next(records) == "place,time,people\n"
        assert sum(1 for _ in records) > 200_000
