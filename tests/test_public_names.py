"""The public names: listed, sorted, all there, and free until the first is used."""

import subprocess
import sys

import pytest

import flowpatch


def test_the_names_are_those_that_the_readme_may_use() -> None:
    """Golden: a name that goes away breaks somebody's script, so let this fail first."""
    assert flowpatch.__all__ == [
        "FlowpatchError", "Forecast", "MaxComputeSettings", "ModelSettings", "PreprocessSettings",
        "SampleStore", "SimulateSettings", "TrainSettings", "UpdateSettings", "Windows", "compare",
        "evaluate", "forecast", "list_stores", "open_store", "open_windows", "origins_of",
        "preprocess", "resume", "simulate", "train", "update", "verify",
    ]  # fmt: skip


def test_the_names_are_sorted_and_listed_by_dir() -> None:
    assert sorted(set(flowpatch.__all__)) == flowpatch.__all__
    assert set(flowpatch.__all__) <= set(dir(flowpatch))


@pytest.mark.parametrize("name", flowpatch.__all__)
def test_every_name_loads_and_is_what_it_says(name: str) -> None:
    found = getattr(flowpatch, name)
    assert found.__name__ == name
    assert found.__module__.startswith("flowpatch.")
    assert found.__doc__


def test_a_star_import_gives_all_of_them() -> None:
    names: dict[str, object] = {}
    exec("from flowpatch import *", names)  # noqa: S102
    assert set(flowpatch.__all__) <= set(names)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = flowpatch.trian
    assert not hasattr(flowpatch, "nope")


def test_the_version_is_a_version() -> None:
    assert flowpatch.__version__.count(".") == 2


def test_importing_it_loads_nothing_heavy() -> None:
    check = (
        "import sys, flowpatch; heavy = {'numpy', 'torch', 'duckdb', 'icechunk', 'pydantic'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "[]\n"
