"""One day more: an update of a store of many days, beside a build of that day alone.

Both are whole commands, each in a fresh process, and take turns.
"""

import shutil
from pathlib import Path

from benchmarks.measuring import alternate, flowpatch, run
from benchmarks.rows import Found, FoundRow
from benchmarks.workshop import STEP_MINUTES, City, Workshop, millions

DAYS = 60
NODES = 1_000


def measure(workshop: Workshop) -> FoundRow:
    """Seconds of an update by one day, beside a build of that day."""
    city = workshop.city("parquet", DAYS + 1, NODES)
    *before, last = city.files
    source = _folder(workshop, "update.city", city, before)
    store = workshop.new("before.store")
    run(_preprocess(source, store))
    _link(source, city, last)
    alone = _folder(workshop, "update-alone.city", city, [last])
    updated, built = alternate(
        workshop.rounds(5), lambda: _update(workshop, store), lambda: _build(workshop, alone)
    )
    day = City(alone, "parquet", 1, city.nodes)
    return {
        "seconds": Found(
            updated, built, f"{millions(day.count())} records to {millions(city.count())}"
        )
    }


def _folder(workshop: Workshop, name: str, city: City, files: list[Path]) -> Path:
    """A city of some of the files."""
    folder = workshop.new(name)
    for path in files:
        _link(folder, city, path)
    (folder / "nodes.csv").hardlink_to(city.node_table)
    return folder


def _link(folder: Path, city: City, path: Path) -> None:
    place = folder / path.relative_to(city.folder)
    place.parent.mkdir(parents=True)
    place.hardlink_to(path)


def _preprocess(folder: Path, store: Path) -> list[str]:
    return City(folder, "parquet", 0, 0).preprocess(store)


def _update(workshop: Workshop, store: Path) -> float:
    copy = workshop.new("updated.store")
    shutil.copytree(store, copy)
    return run(flowpatch("update", copy)).seconds


def _build(workshop: Workshop, folder: Path) -> float:
    return run(_preprocess(folder, workshop.new("alone.store"))).seconds
