"""Records that go away, or change, while they are read: an error by name, and a way to go on."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.csv
import pytest

from flowpatch.errors import (
    FlowpatchError,
    MaxComputeError,
    SourceError,
    StoreDraftError,
    StoreNotFoundError,
)
from flowpatch.maxcompute.settings import MaxComputeSettings
from flowpatch.preprocessing import stretches
from flowpatch.preprocessing.build import preprocess
from flowpatch.preprocessing.settings import UpdateSettings
from flowpatch.preprocessing.update import update
from flowpatch.store.sample_store import SampleStore, open_store
from growing_city import DAYS, DAYS_BEFORE, GrowingCity, hashes_of
from maxcompute_city import City, Service, settings

LOST_DAY = 8
"""Of the file that is lost once the day before it was gathered."""

Build = Callable[..., SampleStore]


@pytest.fixture(autouse=True)
def a_stretch_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowpatch.store.arrays.BLOCK_BYTES", 1)
    monkeypatch.setattr(stretches, "GATHER_BYTES", 1)


def before_day(monkeypatch: pytest.MonkeyPatch, day: int, happens: Callable[[], object]) -> None:
    """Something happens once, just before the records of a day are gathered."""
    gather, waiting = stretches.gather_stretch, [happens]

    def watched(gathering: Any, axis: Any, scatter: Any, first: int, *rest: Any) -> Any:
        if first >= day * axis.steps_a_day and waiting:
            waiting.pop()()
        return gather(gathering, axis, scatter, first, *rest)

    monkeypatch.setattr(stretches, "gather_stretch", watched)


class CsvCity(GrowingCity):
    """The same in CSV."""

    def file_of(self, day: int) -> Path:
        return self.records / f"{day:03}.csv"

    def write_days(self, days: Any, seed: int = 0) -> None:
        for day in days:
            pyarrow.csv.write_csv(self.table(day, seed), self.file_of(day))


@pytest.fixture(params=["parquet", "row groups", "csv"])
def city(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> GrowingCity:
    if request.param == "row groups":
        for module in ("flowpatch.sources.files", "flowpatch.preprocessing.stretches"):
            monkeypatch.setattr(f"{module}.MANY_RECORDS", 0)
    return (CsvCity if request.param == "csv" else GrowingCity)(tmp_path / "city")


def builder(name: str, city: GrowingCity, store: Path) -> Build:
    """The build of all days, or the update of a store of the first ones."""
    if name == "update":
        city.write_days(range(DAYS_BEFORE))
        preprocess(city.settings(store))
    city.write_days(range(DAYS_BEFORE if name == "update" else 0, DAYS))
    if name == "update":
        return lambda **how: update(store, UpdateSettings(**how))
    return lambda **how: preprocess(city.settings(store, **how))


def as_it_was(path: Path, content: bytes, at: os.stat_result) -> None:
    path.write_bytes(content)
    os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))


def versions(store: Path) -> list[str]:
    try:
        return list(hashes_of(store).values())
    except StoreNotFoundError:
        return []


@pytest.mark.parametrize("loss", ["removed", "emptied"])
@pytest.mark.parametrize("name", ["build", "update"])
def test_a_file_that_is_lost_while_it_is_read(
    name: str, loss: str, city: GrowingCity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, lost = tmp_path / "s", city.file_of(LOST_DAY)
    run = builder(name, city, store)
    expected = preprocess(city.settings(tmp_path / "whole")).manifest.content_hash
    before = versions(store)
    content, state = lost.read_bytes(), lost.stat()

    def lose() -> None:
        if loss == "removed":
            lost.unlink()
        else:
            # At the end of no line: of text this is the cut that is hardest to see.
            os.truncate(lost, 0)

    before_day(monkeypatch, LOST_DAY, lose)
    with pytest.raises(SourceError, match=lost.name):
        run()
    assert versions(store) == before
    if loss == "removed":
        # The same command without it would be another store: it is not gone on with.
        with pytest.raises(StoreDraftError, match=r"is of another origin: .*source"):
            run(resume=True)
    as_it_was(lost, content, state)
    gathered: list[int] = []
    gather = stretches.gather_stretch
    monkeypatch.setattr(
        stretches, "gather_stretch", lambda *given: gathered.append(given[3]) or gather(*given)
    )
    assert run(resume=True).manifest.content_hash == expected
    assert versions(store) == [expected, *before]
    assert min(gathered) >= (LOST_DAY - 1) * 24, "what was safe is not read again"


@pytest.mark.parametrize("name", ["build", "update"])
def test_a_source_that_changed_meanwhile_is_another_origin(
    name: str, city: GrowingCity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, lost = tmp_path / "s", city.file_of(LOST_DAY)
    run = builder(name, city, store)
    before = versions(store)
    with monkeypatch.context() as once:
        before_day(once, LOST_DAY, lost.unlink)
        with pytest.raises(SourceError):
            run()
    city.write_days([LOST_DAY, 2], seed=9)
    with pytest.raises(StoreDraftError, match=r"source differ.*without --resume to begin anew"):
        run(resume=True)
    assert versions(store) == before
    expected = preprocess(city.settings(tmp_path / "whole")).manifest.content_hash
    assert run().manifest.content_hash == expected
    assert versions(store) == [expected, *before]


@pytest.mark.parametrize("pushdown", ["tunnel", "sql"])
def test_maxcompute_that_stops_answering_in_mid_build(
    pushdown: str, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, meta = City().load(service)
    given = settings(raw.address, meta.address, tmp_path / "s", pushdown=pushdown)
    impatient = MaxComputeSettings(odps_endpoint=service.endpoint, patience_minutes=0.03)
    patient = MaxComputeSettings(odps_endpoint=service.endpoint, patience_minutes=5)
    expected = preprocess(given.replace(store=tmp_path / "whole"), patient).manifest.content_hash
    with monkeypatch.context() as once:
        before_day(
            once, 1, lambda: service.faults({"kinds": ["unavailable"], "seed": 1, "rate": 1.0})
        )
        with pytest.raises(MaxComputeError, match="--patience-minutes"):
            preprocess(given, impatient)
    with pytest.raises(StoreNotFoundError, match="no finished version"):
        open_store(tmp_path / "s")
    with pytest.raises(FlowpatchError):
        # Still away: nothing is lost by trying.
        preprocess(given.replace(resume=True), impatient)
    service.no_faults()
    gathered: list[int] = []
    gather = stretches.gather_stretch
    monkeypatch.setattr(
        stretches, "gather_stretch", lambda *given: gathered.append(given[3]) or gather(*given)
    )
    assert preprocess(given.replace(resume=True), patient).manifest.content_hash == expected
    assert versions(tmp_path / "s") == [expected]
    assert min(gathered) > 0, "the first day was safe"
