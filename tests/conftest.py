"""What all tests share: where real data lies, and a small city with its store."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import hypothesis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from disks import fill, mounted

if TYPE_CHECKING:
    from maxcompute_city import Service
    from s3_server import Remote

# The machine may be busy; a slow example is no fault.
hypothesis.settings.register_profile("flowpatch", deadline=None)
hypothesis.settings.load_profile("flowpatch")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and reference cases beside the project."""
    if not SHARED.is_dir():
        pytest.skip(f"no folder of shared data at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def small_city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """records.parquet and nodes.csv: 12 nodes, 5 days of 30-minute steps, some cells missing.

    Values follow the time of day and the node, so that a forecaster has something to learn.
    """
    folder = tmp_path_factory.mktemp("city")
    generator = np.random.default_rng(7)
    steps, nodes = 5 * 48, 12
    instants = np.datetime64("2025-03-03T00:00", "ms") + np.arange(steps) * np.timedelta64(30, "m")
    day = 20 + 12 * np.sin(2 * np.pi * np.arange(steps) / 48)[:, None] * np.linspace(
        0.5, 1.5, nodes
    )
    values = generator.poisson(day)
    step, node = np.nonzero(generator.random((steps, nodes)) < 0.95)
    pq.write_table(
        pa.table(
            {
                "sensor_id": 100 + node,
                "passts_time": pa.array(instants[step], pa.timestamp("ms")),
                "flow_label": pa.array(values[step, node], pa.int32()),
            }
        ),
        folder / "records.parquet",
    )
    rows = [
        f"{100 + i},{56.1 + generator.random() / 10:.6f},{10.1 + generator.random() / 10:.6f}"
        for i in range(nodes)
    ]
    (folder / "nodes.csv").write_text("\n".join(["sensor_id,lat,lng", *rows]) + "\n")
    return folder


@pytest.fixture(scope="session")
def small_store(small_city: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of `small_city`. Tests that write to it work on a copy."""
    from flowpatch.preprocessing.build import preprocess
    from flowpatch.preprocessing.settings import PreprocessSettings

    store = tmp_path_factory.mktemp("store") / "city.store"
    preprocess(
        PreprocessSettings(
            records=str(small_city / "records.parquet"),
            nodes=str(small_city / "nodes.csv"),
            node_columns="sensor_id",
            step_minutes=30,
            input_len=8,
            output_len=4,
            store=store,
        )
    )
    return store


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB of its own; `fill_disk` fills it."""
    with mounted(tmp_path / "disk", "256k") as disk:
        yield disk


@pytest.fixture
def fill_disk(small_disk: Path) -> Callable[[int], None]:
    """Fills the small disk but for so many bytes."""
    return partial(fill, small_disk)


@pytest.fixture(scope="session")
def running_service() -> "Iterator[Service]":
    """An emulated MaxCompute for all tests of a worker; each makes its own tables."""
    from maxcompute_city import KEYS, PROJECT, Service
    from maxcompute_emulator.emulator import Emulator

    key_id, key_secret = KEYS.values()
    with Emulator(
        projects=(PROJECT,), access_key_id=key_id, access_key_secret=key_secret
    ) as emulator:
        yield Service(emulator.endpoint, emulator.control)


@pytest.fixture
def service(
    running_service: "Service", monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> "Iterator[Service]":
    """The service without faults, its keys in the environment, and a cache of the test's own."""
    from maxcompute_city import KEYS

    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    for name in ("ALIBABA_CLOUD_SECURITY_TOKEN", "ODPS_ENDPOINT", "ODPS_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLOWPATCH_CACHE", str(tmp_path / "cache"))
    # A test or two are about the time in which a table settles; the others need not wait.
    monkeypatch.setattr("flowpatch.tables.fetch.SETTLING_S", 0.0)
    monkeypatch.setattr("flowpatch.sources.maxcompute_partitions.SETTLING_S", -1e9)
    running_service.no_faults()
    running_service.forget_requests()
    yield running_service
    running_service.no_faults()


@pytest.fixture(scope="session")
def running_s3() -> Iterator[str]:
    """The endpoint of an S3 server with one bucket, for all tests of a worker."""
    from s3_server import BUCKET, point_at, s3_server

    with s3_server() as endpoint, pytest.MonkeyPatch.context() as patched:
        import boto3

        point_at(endpoint, patched)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield endpoint


@pytest.fixture
def remote(running_s3: str, monkeypatch: pytest.MonkeyPatch) -> "Remote":
    """A prefix of the test's own on the S3 server, whose keys are in the environment."""
    import boto3

    from s3_server import Remote, point_at

    point_at(running_s3, monkeypatch)
    return Remote(running_s3, f"test-{uuid4().hex}", boto3.client("s3"))
