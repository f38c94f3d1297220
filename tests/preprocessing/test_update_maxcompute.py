"""Updates of a store whose records are in MaxCompute: partitions that are new, and no others."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from flowpatch.maxcompute.settings import MaxComputeSettings
from flowpatch.preprocessing.build import preprocess
from flowpatch.preprocessing.settings import UpdateSettings
from flowpatch.preprocessing.update import update
from maxcompute_city import PROJECT, City, settings

if TYPE_CHECKING:
    from maxcompute_city import Service


@pytest.mark.parametrize("way", ["sql", "tunnel"])
def test_only_new_partitions_are_read(service: "Service", tmp_path: Path, way: str) -> None:
    city, raw, meta = City(), service.name("raw"), service.name("meta")
    ds = np.array(city.ds)
    there = pa.array(ds < "20250921")
    service.load(raw, city.records.filter(there), city.columns, list(ds[ds < "20250921"]))
    columns = "nds_id string, next_nds_id string, inter_id string, lat double, lng double"
    service.load(meta, city.nodes, columns)
    maxcompute = MaxComputeSettings(odps_endpoint=service.endpoint, odps_project=PROJECT)
    how = {"pushdown": way, "time_zone": "Asia/Shanghai"}
    first = preprocess(settings(raw.address, meta.address, tmp_path / "s", **how), maxcompute)
    assert first.axis.days == 2

    table = service.client.get_table(raw.table)
    with table.open_writer("ds=20250921", create_partition=True, arrow=True) as writer:
        writer.write(city.records.filter(pc.invert(there)))
    service.forget_requests()
    second = update(tmp_path / "s", maxcompute=maxcompute)
    asked = service.requests("downloads") if way == "tunnel" else service.requests("instances")
    assert asked, "something was read"
    assert not [entry for entry in service.requests("partition=") if "20250919" in entry["query"]]
    assert second.axis.days == 3
    built = preprocess(settings(raw.address, meta.address, tmp_path / "t", **how), maxcompute)
    assert second.manifest.content_hash == built.manifest.content_hash
    assert second.manifest.counts == built.manifest.counts

    third = update(tmp_path / "s", UpdateSettings(), maxcompute)
    assert third.version == second.version
    # Nothing of ours is left in the project.
    assert not [name for name in service.tables() if name.startswith("flowpatch")]
