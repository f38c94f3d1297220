"""`flowpatch update` and `flowpatch samples ...` on a store in a bucket, as on one in a folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import flowpatch
from flowpatch.preprocessing.settings import PreprocessSettings
from s3_server import Remote


@pytest.fixture
def growing(small_city: Path, tmp_path: Path) -> Path:
    """The small city, a file a day."""
    table = pq.read_table(small_city / "records.parquet")
    (tmp_path / "records").mkdir()
    for day in range(3, 8):
        of_day = table.filter(pc.equal(pc.day(table["passts_time"]), day))
        pq.write_table(of_day, tmp_path / "records" / f"{day}.parquet")
    shutil.copy(small_city / "nodes.csv", tmp_path / "nodes.csv")
    return tmp_path


def settings(folder: Path, store: str | Path, **changes: Any) -> PreprocessSettings:
    return PreprocessSettings(
        records=str(folder / "records"), nodes=str(folder / "nodes.csv"),
        node_columns="sensor_id", step_minutes=30, store=store, **changes,
    )  # fmt: skip


def printed(command: Any, *words: Any) -> Any:
    outcome = command("samples", *words, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def test_the_life_of_a_store_in_a_bucket(
    growing: Path, remote: Remote, command: Any, tmp_path: Path
) -> None:
    address = remote.address("city.store")
    last = growing / "records" / "7.parquet"
    last.rename(growing / "7.parquet")
    first = flowpatch.preprocess(settings(growing, address))
    (growing / "7.parquet").rename(last)
    updated = command("update", address)
    assert (updated.code, updated.out) == (0, f"{address}\n")
    assert "1 days came" in updated.err
    assert "nothing is new" in command("update", address).err
    second = flowpatch.open_store(address)
    built = flowpatch.preprocess(settings(growing, tmp_path / "built"))
    assert second.manifest.content_hash == built.manifest.content_hash

    assert [entry["version"] for entry in printed(command, "log", address)["versions"]] == [
        second.version,
        first.version,
    ]
    (listed,) = printed(command, "list", address)["stores"]
    assert (listed["version"], listed["versions"]) == (second.version, 2)
    (in_prefix,) = printed(command, "list", address.rpartition("/")[0])["stores"]
    assert in_prefix["path"] == address
    assert printed(command, "tag", address, "prod", "--version", first.version)["version"] == (
        first.version
    )
    assert flowpatch.open_store(address, "prod").version == first.version
    compared = printed(command, "compare", address, "prod", second.version)
    assert compared["days"]["added"] == ["2025-03-07"]
    printed(command, "rollback", address, "prod")
    assert flowpatch.open_store(address).version == first.version
    printed(command, "rollback", address, second.version[:6])
    verified = printed(command, "verify", address, "--all")
    assert {one["version"] for one in verified["versions"]} == {first.version, second.version}

    # There and back: under the same ids, with the same tags.
    folder, back = tmp_path / "copy", remote.address("back.store")
    printed(command, "copy", address, folder)
    printed(command, "copy", folder, back)
    for place in (folder, back):
        copied = flowpatch.open_store(place, "prod")
        assert copied.version == first.version
        np.testing.assert_array_equal(copied.read(), first.read())
        assert flowpatch.open_store(place).version == second.version

    printed(command, "untag", address, "prod")
    gone = printed(command, "expire", address, "--keep", "1")
    assert gone["expired"] == [first.version]
    np.testing.assert_array_equal(flowpatch.open_store(address).read(), second.read())
    refused = command("samples", "remove", address)
    assert refused.code != 0
    assert flowpatch.open_store(address).version == second.version
    printed(command, "remove", address, "--yes")
    assert command("inspect", address).code == 1
