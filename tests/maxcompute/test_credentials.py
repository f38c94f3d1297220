"""Keys come from the environment and are shown to nobody."""

import pickle

import pytest

from flowpatch.errors import CredentialsError, SettingsError
from flowpatch.maxcompute.connection import Connection
from flowpatch.maxcompute.credentials import VARIABLES, credentials
from flowpatch.maxcompute.settings import MaxComputeSettings
from flowpatch.redaction import redact

KEYS = dict(
    zip(VARIABLES, ["id-of-a-test-key", "secret-of-a-test-key", "token-of-a-test"], strict=True)
)


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("keys")
def test_keys_are_read_and_not_shown() -> None:
    found = credentials()
    assert (found.key_id, found.key_secret, found.security_token) == tuple(KEYS.values())
    assert not any(value in repr(found) for value in KEYS.values())


@pytest.mark.usefixtures("keys")
def test_a_message_loses_every_key() -> None:
    message = redact(f"bad: {' '.join(KEYS.values())} in /home")
    assert not any(value in message for value in KEYS.values())
    assert message.endswith("in /home")


@pytest.mark.usefixtures("keys")
def test_what_is_sent_to_workers_holds_no_key() -> None:
    connection = Connection("http://127.0.0.1:1/api", "p")
    sent = pickle.dumps(connection) + repr(connection).encode()
    assert not any(value.encode() in sent for value in KEYS.values())


@pytest.mark.parametrize("missing", VARIABLES[:2])
def test_a_missing_key_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(missing)
    with pytest.raises(CredentialsError, match=missing):
        credentials()


@pytest.mark.parametrize(
    "endpoint",
    ["http://key:secret@host/api", "ftp://host/api", "host:80", "http://", "http://host/api?x=1"],
)
def test_a_bad_endpoint_is_refused_without_repeating_keys(endpoint: str) -> None:
    with pytest.raises(SettingsError) as raised:
        MaxComputeSettings(odps_endpoint=endpoint)
    assert "secret" not in str(raised.value)
