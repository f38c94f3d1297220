"""A storm of every fault that the emulator knows: the same result, nothing twice, nothing lost."""

from pathlib import Path
from typing import Any

import pytest

from flowpatch.errors import OutOfPatienceError
from flowpatch.maxcompute.settings import MaxComputeSettings
from flowpatch.preprocessing.build import preprocess
from flowpatch.sources import maxcompute_tunnel
from flowpatch.store.sample_store import SampleStore
from flowpatch.tables import publication, row_index
from flowpatch.tables.fetch import fetch
from flowpatch.tables.publish import publish as publish_samples
from flowpatch.tables.schema import read_metadata
from flowpatch.tables.settings import FetchSettings, PublishSettings
from maxcompute_city import KINDS, City, Service, settings


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """More requests, so that every kind of fault strikes."""
    monkeypatch.setattr(maxcompute_tunnel, "RANGE_ROWS", 150)
    monkeypatch.setattr(publication, "BLOCK_BYTES", 20_000)
    monkeypatch.setattr(row_index, "NARROW_ROWS", 40)


class Job:
    """Raw table -> store -> sample table -> store."""

    def __init__(self, service: Service, folder: Path, pushdown: str, **changes: Any) -> None:
        self.service, self.folder = service, folder
        self.raw, self.meta = City().load(service)
        self.samples = service.name("samples")
        self.pushdown, self.changes = pushdown, changes
        self.reached = MaxComputeSettings(odps_endpoint=service.endpoint, patience_minutes=5)

    def build(self) -> SampleStore:
        return preprocess(
            settings(
                self.raw.address,
                self.meta.address,
                self.folder / "built.store",
                pushdown=self.pushdown,
            ),
            self.reached,
        )

    def publish(self, built: SampleStore) -> None:
        publish_samples(
            self.service.connection(300.0),
            built,
            self.samples,
            self.folder / "metadata.json",
            PublishSettings(**self.changes),
            workers=0,
        )

    def fetch(self) -> SampleStore:
        return fetch(
            self.service.connection(300.0),
            self.samples,
            read_metadata(self.folder / "metadata.json"),
            FetchSettings(),
            workers=0,
        )


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> SampleStore:
    folder = tmp_path_factory.mktemp("clean")
    return preprocess(settings(*City().write(folder), folder / "clean.store"))


@pytest.mark.parametrize("seed", range(20))
def test_a_storm_changes_nothing(
    seed: int, service: Service, clean: SampleStore, tmp_path: Path
) -> None:
    ways = {"pushdown": ["tunnel", "sql"][seed % 2], "partitioned": seed % 4 == 1}
    job = Job(service, tmp_path, **ways)
    service.forget_requests()
    service.faults({"kinds": KINDS, "seed": seed, "rate": 0.2, "delay_s": 0.05})
    built = job.build()
    job.publish(built)
    fetched = job.fetch()
    service.no_faults()
    assert built.manifest.content_hash == clean.manifest.content_hash
    assert built.manifest.counts == clean.manifest.counts
    assert fetched.manifest.content_hash == clean.manifest.content_hash
    metadata = read_metadata(tmp_path / "metadata.json")
    identities = [row[0] for row in service.rows(job.samples, ["sample_id"])]
    assert len(identities) == len(set(identities)) == metadata.rows
    requests = service.requests()
    assert sum(entry["fault"] is not None for entry in requests) >= len(requests) / 10
    assert not {name for name in service.tables() if job.raw.table in name and "tmp_" in name}


@pytest.mark.parametrize("kind", KINDS)
def test_each_fault_alone_changes_nothing(
    kind: str, service: Service, clean: SampleStore, tmp_path: Path
) -> None:
    job = Job(service, tmp_path, "sql" if kind == "lost_submit" else "tunnel")
    # Each expiry of an upload costs all of its blocks.
    rate = 0.1 if kind == "expired_session" else 0.3
    service.faults({"kinds": [kind], "seed": 1, "rate": rate, "delay_s": 0.05})
    job.publish(job.build())
    assert job.fetch().manifest.content_hash == clean.manifest.content_hash


@pytest.mark.parametrize("kind", ["throttled", "unavailable", "reset_before", "expired_session"])
def test_a_fault_that_does_not_stop_ends_by_the_deadline(
    kind: str, service: Service, clean: SampleStore, tmp_path: Path
) -> None:
    job = Job(service, tmp_path, "tunnel")
    job.reached = MaxComputeSettings(odps_endpoint=service.endpoint, patience_minutes=0.02)
    service.faults({"kinds": [kind], "match": "rowrange|downloadid", "rate": 1.0})
    with pytest.raises(OutOfPatienceError, match="--patience-minutes"):
        job.build()
    assert not (tmp_path / "built.store").exists()
    service.no_faults()
    assert job.build().manifest.content_hash == clean.manifest.content_hash


def test_an_endpoint_that_was_never_reached_is_given_up_soon(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flowpatch.errors import UnreachableError
    from flowpatch.maxcompute import patience

    monkeypatch.setattr(patience, "FIRST_CONTACT_S", 0.5)
    job = Job(service, tmp_path, "tunnel")
    job.reached = MaxComputeSettings(odps_endpoint="http://127.0.0.1:9/api", patience_minutes=10)
    with pytest.raises(UnreachableError, match="Check the endpoint"):
        job.build()
