"""Keys of all kinds on a service that checks them, and what refusals are called."""

from pathlib import Path

import pytest

from flowpatch.errors import CredentialsError, MissingExtraError, TableNotFoundError
from flowpatch.maxcompute.credentials import KEY_ID, KEY_SECRET, SECURITY_TOKEN
from flowpatch.maxcompute.metadata import describe_table
from flowpatch.maxcompute.patience import Patience
from flowpatch.maxcompute.settings import MaxComputeSettings
from flowpatch.preprocessing.build import preprocess
from maxcompute_city import City, Service, settings
from maxcompute_emulator.emulator import Emulator


def test_a_temporary_key_needs_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ID, "a-temporary-key")
    monkeypatch.setenv(KEY_SECRET, "a-temporary-secret")
    monkeypatch.setenv(SECURITY_TOKEN, "a-token-of-sts")
    with Emulator(
        access_key_id="a-temporary-key",
        access_key_secret="a-temporary-secret",
        security_token="a-token-of-sts",
    ) as emulator:
        service = Service(emulator.endpoint, emulator.control)
        absent = service.name("absent")
        with pytest.raises(TableNotFoundError):
            describe_table(service.connection(), Patience(5), absent)
        monkeypatch.delenv(SECURITY_TOKEN)
        with pytest.raises(CredentialsError) as refused:
            describe_table(service.connection(), Patience(5), absent)
        assert "a-temporary-secret" not in str(refused.value)


@pytest.mark.parametrize("name", [KEY_ID, KEY_SECRET])
def test_a_wrong_key_is_refused_and_not_repeated(
    service: Service, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "some-wrong-value")
    with pytest.raises(CredentialsError, match="Check ALIBABA_CLOUD") as refused:
        describe_table(service.connection(), Patience(5), service.name("any"))
    assert "some-wrong-value" not in str(refused.value)


def test_without_the_client_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith("flowpatch.sources.maxcompute")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "flowpatch.maxcompute.connection", raising=False)
    monkeypatch.setitem(sys.modules, "odps", None)
    with pytest.raises(MissingExtraError, match=r"flowpatch\[maxcompute\]"):
        preprocess(
            settings("odps://p/raw", "odps://p/meta", tmp_path / "s.store"),
            MaxComputeSettings(odps_endpoint="http://127.0.0.1:9/api"),
        )


def test_the_city_of_the_tests_is_dirty() -> None:
    """Else the tests that compare engines on it would show little."""
    city = City()
    for name in ("passts_time", "flow_label"):
        assert city.records[name].null_count
    assert len(set(city.ds)) == 3
