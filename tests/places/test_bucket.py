"""A store in a bucket: written, read and refused as in a folder, and no key is shown."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import icechunk
import numpy as np
import pytest

from flowpatch.errors import (
    MissingExtraError,
    PeriodError,
    SettingsError,
    StoreDamagedError,
    StoreError,
    StoreLockedError,
    StoreNotFoundError,
    StorePermissionError,
    StoreUnreachableError,
    StoreWriteError,
)
from flowpatch.places.address import check_address
from flowpatch.places.bucket import Bucket
from flowpatch.places.place import place_of
from flowpatch.preprocessing.build import preprocess
from flowpatch.preprocessing.settings import PreprocessSettings
from flowpatch.redaction import redact
from flowpatch.store.repository import has_version, is_unfinished, reading, writing
from flowpatch.store.sample_store import SampleStore, open_store
from flowpatch.store.writer import check_free
from s3_server import BUCKET, KEYS, Remote, point_at, refusing_server


def settings_of(city: Path, store: str, **changes: Any) -> PreprocessSettings:
    given = {
        "records": str(city / "records.parquet"), "nodes": str(city / "nodes.csv"),
        "node_columns": "sensor_id", "step_minutes": 30, "store": store,
    }  # fmt: skip
    return PreprocessSettings(**{**given, **changes})


@pytest.fixture
def built(small_city: Path, remote: Remote) -> SampleStore:
    return preprocess(settings_of(small_city, remote.address("city.store")))


# --- built, read, written over --------------------------------------------------------------------


def test_a_build_is_that_of_a_folder(small_city: Path, built: SampleStore, tmp_path: Path) -> None:
    local = preprocess(settings_of(small_city, str(tmp_path / "s")))
    assert built.manifest.content_hash == local.manifest.content_hash
    assert np.array_equal(built.read(), local.read(), equal_nan=True)
    assert built.path == str(built.place)
    assert built.bytes_on_disk() > 0
    with pytest.raises(StoreError, match="--overwrite"):
        check_free(built.place, overwrite=False)


def test_every_version_stays_and_opens_by_its_id(small_city: Path, built: SampleStore) -> None:
    before = built.read()
    second = preprocess(settings_of(small_city, str(built.path), null_value=0, overwrite=True))
    assert [info.version for info in second.versions()] == [second.version, built.version]
    assert second.manifest.parent == built.version
    assert np.array_equal(open_store(built.path, built.version).read(), before, equal_nan=True)


def test_nothing_else_is_left_beside_it(remote: Remote, built: SampleStore) -> None:
    root = f"{remote.prefix}/city.store/"
    assert all(key.startswith(root) for key in remote.contents())


def test_a_failed_first_build_leaves_nothing(remote: Remote, small_city: Path) -> None:
    with pytest.raises(PeriodError):
        preprocess(settings_of(small_city, remote.address("s"), input_len=100_000))
    assert remote.contents() == {}


def test_what_is_no_store_is_never_touched(remote: Remote, small_city: Path) -> None:
    remote.client.put_object(Bucket=BUCKET, Key=f"{remote.prefix}/s/notes.txt", Body=b"mine")
    settings = settings_of(small_city, remote.address("s"), overwrite=True)
    with pytest.raises(StoreError, match="no sample store"):
        preprocess(settings)
    assert remote.contents() == {f"{remote.prefix}/s/notes.txt": b"mine"}


def test_a_lost_chunk_is_damage(remote: Remote, built: SampleStore) -> None:
    for key in remote.contents():
        if "/chunks/" in key:
            remote.client.delete_object(Bucket=BUCKET, Key=key)
    with pytest.raises(StoreDamagedError, match=r"city\.store"):
        open_store(built.path).read()


def test_readers_see_whole_versions_while_others_are_written(
    small_city: Path, built: SampleStore
) -> None:
    seen, torn, stop = set[str](), list[str](), threading.Event()

    def read() -> None:
        while not stop.is_set():
            store = open_store(built.path)
            seen.add(store.version)
            hashed = store.manifest.content_hash
            if (store.read() == 0).any() != (hashed == built.manifest.content_hash):
                torn.append(store.version)

    has_zeros = (built.read() == 0).any()
    assert has_zeros, "else the loop below would tell nothing"
    reader = threading.Thread(target=read)
    reader.start()
    written = [
        preprocess(
            settings_of(small_city, str(built.path), overwrite=True, null_value=null)
        ).version
        for null in (0, None, 0)
    ]
    stop.set()
    reader.join()
    assert torn == []
    assert seen <= {built.version, *written}
    assert len(seen) > 1


# --- one writer -----------------------------------------------------------------------------------


def test_a_writer_that_lost_its_lock_publishes_nothing(
    small_city: Path, remote: Remote, built: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = f"{remote.prefix}/.city.store.writer.lock"
    taken = json.dumps({"process": 1, "host": "elsewhere", "since": "2025-03-03"}).encode()

    def take(*_: Any, **__: Any) -> None:
        remote.client.put_object(Bucket=BUCKET, Key=lock, Body=taken)

    monkeypatch.setattr("flowpatch.series.splits.Splits.check_windows", take)
    with pytest.raises(StoreLockedError, match="taken over by process 1 on elsewhere"):
        preprocess(settings_of(small_city, str(built.path), null_value=0, overwrite=True))
    assert open_store(built.path).version == built.version
    assert len(open_store(built.path).versions()) == 1
    assert remote.contents()[lock] == taken


def test_a_first_build_that_lost_its_lock_removes_nothing_of_the_others(
    small_city: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = f"{remote.prefix}/.s.writer.lock"

    def take(*_: Any, **__: Any) -> None:
        remote.client.put_object(Bucket=BUCKET, Key=lock, Body=b"{}")

    monkeypatch.setattr("flowpatch.series.splits.Splits.check_windows", take)
    with pytest.raises(StoreLockedError, match="taken over"):
        preprocess(settings_of(small_city, remote.address("s")))
    assert len(remote.contents()) > 1
    assert not has_version(place_of(remote.address("s")))
    assert is_unfinished(place_of(remote.address("s")))


# --- what fails, by name --------------------------------------------------------------------------


def failure(address: str) -> StoreError:
    """What opening a store raises; a writer is told the same, by another class."""
    with pytest.raises(StoreError) as caught:
        open_store(address)
    with pytest.raises(StoreError):
        check_free(address, overwrite=True)
    assert not any(value in str(caught.value) for value in KEYS.values())
    return caught.value


def test_nobody_answers(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at("http://127.0.0.1:1", monkeypatch)
    found = failure(remote.address("s"))
    assert type(found) is StoreUnreachableError
    assert "http://127.0.0.1:1" in str(found)
    assert "AWS_ENDPOINT_URL" in str(found)


def test_a_password_in_the_endpoint_is_not_shown(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at("http://me:marker-password@127.0.0.1:1", monkeypatch)
    assert "marker" not in str(failure(remote.address("s")))


def test_there_is_no_such_bucket(remote: Remote) -> None:
    found = failure("s3://no-such-bucket/s")
    assert type(found) is StoreNotFoundError
    assert "no bucket 'no-such-bucket'" in str(found)
    with pytest.raises(StoreWriteError, match="no bucket"):
        check_free("s3://no-such-bucket/s", overwrite=True)


def test_there_are_no_keys(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    found = failure(remote.address("s"))
    assert type(found) is StorePermissionError
    assert "AWS_ACCESS_KEY_ID" in str(found)
    assert "~/.aws/credentials" in str(found)


@pytest.mark.parametrize("bad", ["AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_REGION"])
def test_a_variable_that_means_nothing_is_quoted(
    remote: Remote, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    monkeypatch.setenv(bad, "no such thing")
    assert "no such thing" in str(failure(remote.address("s")))


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "SignatureDoesNotMatch", StorePermissionError),
        (403, "AccessDenied", StorePermissionError),
        (400, "ExpiredToken", StorePermissionError),
        (404, "NoSuchBucket", StoreNotFoundError),
        (301, "PermanentRedirect", StoreUnreachableError),
        (503, "SlowDown", StoreUnreachableError),
    ],
)
def test_a_refusal_is_named(
    status: int, code: str, kind: type[StoreError], monkeypatch: pytest.MonkeyPatch
) -> None:
    with refusing_server(status, code) as endpoint:
        point_at(endpoint, monkeypatch)
        found = failure("s3://some-bucket/s")
    assert type(found) is kind
    assert endpoint in str(found)


@pytest.mark.parametrize("block", [reading, writing])
def test_what_the_engine_cannot_name_is_named(
    block: Any, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server refuses what it gave a moment ago: Icechunk says no more than "Error"."""
    place = place_of(remote.address("s"))
    place.check_reachable()
    assert isinstance(place, Bucket)
    with refusing_server(403, "AccessDenied") as endpoint:
        told = replace(place.objects, client=boto3.client("s3", endpoint_url=endpoint))
        place.__dict__["objects"] = told
        with pytest.raises(StorePermissionError, match="AccessDenied"), block(place):
            raise icechunk.IcechunkError("Error")


def test_the_client_that_is_not_installed_is_named(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    with pytest.raises(MissingExtraError, match=r"flowpatch\[s3\]"):
        open_store(remote.address("s"))


# --- addresses ------------------------------------------------------------------------------------

HOSTILE = [
    "s3://b/../x", "s3://bkt/../x", "s3://bkt/a/../../x", "s3://bkt/.", "s3://bkt/a//b", "s3:///a",
    "s3://bkt/a'b", 's3://bkt/a"b', "s3://bkt/a;b", "s3://bkt/a\nb", "s3://bkt/a\x00b",
    "s3://bkt/a b", "s3://bkt/a\\b", "s3://bkt/%2e%2e/x", "s3://bkt/a?versionId=1", "s3://bkt/a#b", "s3://bkt/*",
    "s3://bkt", "s3://bkt/", "s3://", "s3:/bkt/a", "S3://bkt/a", "s3://me:secret@bkt/a",
    "s3://BKT/a", "gs://bkt/a", "http://bkt/a", "file:///tmp/a", "az://bkt/a", "", "  ",
]  # fmt: skip


@pytest.mark.parametrize("address", HOSTILE)
def test_what_is_no_address_is_refused_before_any_request(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reached(*_: Any) -> None:
        raise AssertionError("a request")

    monkeypatch.setattr("flowpatch.places.object_store.ObjectStore.reach", reached)
    with pytest.raises(SettingsError, match=r"s3://BUCKET/PATH"):
        place_of(address)


@pytest.mark.parametrize(
    "address", ["s3://bkt/a", "s3://a.b-c/ds=1/杭州.store", "s3://bkt/a.b@c+d"]
)
def test_an_address_is_kept(address: str) -> None:
    assert check_address(address) == check_address(address + "/") == address
    assert place_of(address).address == address


# --- keys -----------------------------------------------------------------------------------------


def test_keys_of_a_file_serve_and_are_kept_out_of_messages(
    remote: Remote, small_city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("AWS_PROFILE", "city")
    (tmp_path / "keys").write_text(
        "[city]\naws_access_key_id = AKIA-OF-A-FILE\naws_secret_access_key = secret/of+a/file\n"
    )
    store = preprocess(settings_of(small_city, remote.address("s")))
    assert open_store(store.path).version == store.version
    said = redact("AKIA-OF-A-FILE, secret/of+a/file, secret%2Fof%2Ba%2Ffile")
    assert said == "<AWS_ACCESS_KEY_ID>, <AWS_SECRET_ACCESS_KEY>, <AWS_SECRET_ACCESS_KEY>"
