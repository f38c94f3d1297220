"""Patience: what passes is tried again, what does not is an error at once, and time is kept."""

import time

import pytest
import requests
from odps import errors as client_errors

from flowpatch.errors import MaxComputeError, OutOfPatienceError, UnreachableError
from flowpatch.interruption import Interruption, StopAskedError, noting_interruption
from flowpatch.maxcompute import patience as module
from flowpatch.maxcompute.patience import IncompleteReadError, Patience


def throttled() -> Exception:
    return client_errors.ODPSError("busy", code="FlowExceeded", status_code=429)


class Failing:
    """Raises the errors given, then gives 7."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def __call__(self) -> int:
        if self.errors:
            raise self.errors.pop(0)
        return 7


@pytest.mark.parametrize(
    "error",
    [
        throttled(),
        client_errors.ODPSError("down", status_code=503),
        client_errors.ChecksumError("cut"),
        requests.ConnectionError("reset"),
        requests.exceptions.ChunkedEncodingError("cut"),
        ConnectionResetError(),
        IncompleteReadError("3 rows came of 7 asked for"),
    ],
)
def test_what_passes_is_tried_again(error: Exception) -> None:
    assert Patience(20).try_again(Failing(error, error), "Reading t") == 7


@pytest.mark.parametrize(
    "error",
    [
        client_errors.NoPermission("no", status_code=403),
        client_errors.ParseError("bad"),
        requests.exceptions.SSLError("wrong version number"),
    ],
)
def test_what_does_not_pass_is_an_error_at_once(error: Exception) -> None:
    begun = time.monotonic()
    with pytest.raises(MaxComputeError, match="Reading t"):
        Patience(20).try_again(Failing(error), "Reading t")
    assert time.monotonic() - begun < 1


def test_it_ends_when_it_should() -> None:
    begun = time.monotonic()
    with pytest.raises(OutOfPatienceError, match="--patience-minutes"):
        Patience(2.0).try_again(Failing(*[throttled() for _ in range(999)]), "Reading t")
    assert 1.9 <= time.monotonic() - begun < 4


@pytest.mark.parametrize("told", ["NewConnectionError", "NameResolutionError"])
def test_a_place_that_never_answered_is_given_up_sooner(
    told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_CONTACT_S", 0.5)
    absent = [requests.ConnectionError(told) for _ in range(99)]
    with pytest.raises(UnreachableError, match="Check the endpoint"):
        Patience(60).try_again(Failing(*absent), "Reading t")
    with pytest.raises(OutOfPatienceError):
        Patience(1.0, reached=True).try_again(Failing(*absent), "Reading t")


def test_a_stop_is_heeded_while_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing(*[throttled() for _ in range(99)])

    def asked(_: Interruption) -> None:
        raise StopAskedError

    monkeypatch.setattr(Interruption, "raise_if_asked", asked)
    with noting_interruption(), pytest.raises(StopAskedError):
        Patience(60).try_again(failing, "Reading t")
