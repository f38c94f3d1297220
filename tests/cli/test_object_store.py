"""Commands on a store in a bucket, as on one in a folder; no key is shown or kept anywhere."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import flowpatch
from maxcompute_city import Service
from s3_server import BUCKET, KEYS, Remote, refusing_server

KILLED_HALF_WAY = """
import os, signal, sys
from flowpatch.cli import main
from flowpatch.store.writer import StoreWriter
keep = StoreWriter.keep
def keep_and_die(writer):
    keep(writer)
    if writer.safe_days >= 2:
        os.kill(os.getpid(), signal.SIGKILL)
StoreWriter.keep = keep_and_die
import flowpatch.preprocessing.stretches as stretches
import flowpatch.store.arrays as arrays
stretches.GATHER_BYTES = arrays.BLOCK_BYTES = 1
main(sys.argv[1:])
"""


def holds_no_key(*places: Path | Remote | str) -> None:
    """Looks for every key in objects, in files, and in what was printed."""
    for place in places:
        if isinstance(place, Remote):
            found = place.contents()
        elif isinstance(place, Path):
            found = {str(file): file.read_bytes() for file in place.rglob("*") if file.is_file()}
        else:
            found = {"printed": place.encode()}
        assert found
        for name, content in found.items():
            for value in KEYS.values():
                assert value.encode() not in content, name


@pytest.fixture
def address(remote: Remote, source_flags: Any, command: Any) -> str:
    """A store of the small city, built by the command."""
    store = remote.address("city.store")
    built = command("preprocess", *source_flags, "--store", store)
    assert (built.code, built.out) == (0, f"{store}\n"), built.err
    return store


def test_from_records_to_scores_and_forecasts(
    address: str, remote: Remote, command: Any, tiny: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    first = command("train", address, *tiny, "--max-epoch", 1)
    assert first.code == 0, first.err
    run = first.out.strip()
    assert run.startswith("runs/city-")
    said = [
        first,
        command("train", "--resume", run, "--max-epoch", 2),
        command("train", address, "--resume", run, "--max-epoch", 3),
        command("evaluate", run, "--json"),
        command("evaluate", run, "--store", address, "--json"),
        command("inspect", address, "--json"),
    ]
    assert [outcome.code for outcome in said] == [0] * len(said), said
    evaluated = json.loads(said[3].out)
    assert evaluated["scores"] == json.loads(said[4].out)["scores"]
    assert evaluated["store"]["path"] == address
    assert json.loads(said[5].out)["path"] == address
    forecast = flowpatch.forecast(run)
    assert forecast.values.shape == (12, 12)
    holds_no_key(remote, tmp_path, *(outcome.out + outcome.err for outcome in said))


def test_a_run_goes_on_from_a_copy_elsewhere(
    address: str, built: Path, trained: Path, command: Any
) -> None:
    """The content is the same, but a version's id belongs to one store."""
    outcome = command("evaluate", trained, "--store", address)
    assert outcome.code == 1
    assert "no version" in outcome.error


def test_versions_are_told_apart(address: str, source_flags: Any, command: Any) -> None:
    refused = command("preprocess", *source_flags, "--store", address)
    assert refused.code == 1
    assert "--overwrite" in refused.error
    flags = ("--store", address, "--null-value", 0, "--overwrite")
    assert command("preprocess", *source_flags, *flags).code == 0
    versions = json.loads(command("inspect", address, "--json").out)["versions"]
    assert len(versions) == 2
    old = json.loads(command("inspect", address, "--version", versions[1]["version"], "--json").out)
    assert old["version"] == versions[1]["version"]


def test_a_killed_build_is_gone_on_with(
    remote: Remote, source_flags: Any, command: Any, address: str
) -> None:
    store = remote.address("killed.store")
    words = ["preprocess", *source_flags, "--store", store]
    killed = subprocess.run([sys.executable, "-c", KILLED_HALF_WAY, *words], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert f"{remote.prefix}/.killed.store.writer.lock" in remote.contents()
    assert command("inspect", store).code == 1
    resumed = command(*words, "--resume")
    assert resumed.code == 0, resumed.err
    assert "2 of 5 days are safe already" in resumed.err
    hashes = [
        json.loads(command("inspect", each, "--json").out)["content_hash"]
        for each in (store, address)
    ]
    assert hashes[0] == hashes[1]
    assert f"{remote.prefix}/.killed.store.writer.lock" not in remote.contents()


def test_a_table_of_samples_is_made_from_it_and_becomes_one(
    address: str, remote: Remote, service: Service, command: Any, tmp_path: Path
) -> None:
    table, metadata = service.name("samples").address, tmp_path / "metadata.json"
    reached = ("--odps-endpoint", service.endpoint, "--metadata-file", metadata)
    published = command("samples", "publish", address, table, *reached)
    assert published.code == 0, published.err
    fetched = command("samples", "fetch", table, *reached, "--store", remote.address("fetched"))
    assert (fetched.code, fetched.out) == (0, remote.address("fetched") + "\n"), fetched.err
    assert "value for value" in fetched.err
    again = command("samples", "fetch", table, *reached, "--store", remote.address("fetched"))
    assert "none are read anew" in again.err
    holds_no_key(remote, metadata.read_text(), published.err + fetched.err)


@pytest.mark.parametrize(
    "words",
    [
        ["inspect", "STORE"],
        ["train", "STORE"],
        ["preprocess", "--records", "r", "--nodes", "n", "--store", "STORE"],
        ["samples", "publish", "STORE", "odps://p/t", "--odps-endpoint", "http://127.0.0.1:1"],
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("store", ["s3://b/../x", "s3://bkt/a//b", "s3://bkt/a;b", "gs://bkt/a"])
def test_what_is_no_address_is_misuse(words: list[str], store: str, command: Any) -> None:
    outcome = command(*(store if word == "STORE" else word for word in words))
    assert outcome.code == 2
    assert f"'{store}' is no store's address" in outcome.error


@pytest.mark.parametrize("where", ["refused port", "wrong bucket", "refused keys", "proxy"])
def test_a_failing_command_shows_no_key(
    where: str, remote: Remote, source_flags: Any, process: Any, tmp_path: Path
) -> None:
    """Not even where it is asked for the traceback."""
    store, changed = remote.address("s"), dict[str, str]()
    with refusing_server(403, "SignatureDoesNotMatch") as refusing:
        if where == "refused port":
            changed = {"AWS_ENDPOINT_URL": f"http://me:{KEYS['AWS_SESSION_TOKEN']}@127.0.0.1:1"}
        elif where == "wrong bucket":
            store = "s3://no-such-bucket/s"
        elif where == "refused keys":
            changed = {"AWS_ENDPOINT_URL": refusing}
        else:
            changed = {"HTTP_PROXY": f"http://me:{KEYS['AWS_SESSION_TOKEN']}@127.0.0.1:1"}
        for words in (("inspect", store), ("preprocess", *source_flags, "--store", store)):
            ended = process(*words, "--debug", **changed)
            assert ended.code == 1
            assert "Traceback" in ended.err
            assert "error: " in ended.err
            assert "fault of flowpatch" not in ended.err
            holds_no_key(ended.out + ended.err)


def test_help_does_not_wait_for_the_client() -> None:
    check = (
        "import sys\nfrom flowpatch.cli import main\n"
        "try:\n    main(['preprocess', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'boto3', 'botocore', 'icechunk'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, env=os.environ)


def test_the_lock_is_seen_by_a_second_command(
    address: str, remote: Remote, source_flags: Any, command: Any
) -> None:
    lock = {"process": 7, "host": "elsewhere", "since": "2025-03-03T00:00", "id": "x"}
    key = f"{remote.prefix}/.city.store.writer.lock"
    remote.client.put_object(Bucket=BUCKET, Key=key, Body=json.dumps(lock).encode())
    outcome = command("preprocess", *source_flags, "--store", address, "--overwrite")
    assert outcome.code == 1
    assert "process 7 on elsewhere since 2025-03-03" in outcome.error
    assert command("inspect", address).code == 0
