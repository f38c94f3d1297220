"""Trying again while anything moves, and giving up when nothing does.

The client waits for ever where the service says 429, and not at all in other places. Here is one
rule for all requests: what passes is tried again, with growing waits, until nothing has succeeded
for the time that was given; anything else is an error at once.
"""

import time
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa
import requests
import tenacity
import urllib3
from odps import errors as client_errors
from odps.tunnel.pb.errors import DecodeError

from flowpatch.errors import FlowpatchError, OutOfPatienceError
from flowpatch.interruption import raise_if_stop_asked
from flowpatch.maxcompute.connection import named
from flowpatch.progress import say

FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 30.0
FIRST_CONTACT_S = 15.0
"""An endpoint that was never reached is given up soon: it is more likely misspelt than busy."""
SILENT_S = 20.0
"""Waits are announced when they add up to this much."""

_PASSING_CODES = {"FlowExceeded"}

_CUT_SHORT = (
    client_errors.ChecksumError,
    client_errors.StreamTruncatedException,
    client_errors.ConnectTimeout,
    # The tunnel's own timeouts are both.
    requests.Timeout,
    requests.ConnectionError,
)

R = TypeVar("R")


class IncompleteReadError(Exception):
    """Fewer rows came than were asked for, without any error from the service."""


class Patience:
    """How long to go on without any success, for one process."""

    def __init__(self, seconds: float, *, reached: bool = False) -> None:
        """`reached` says that the endpoint has answered before, to another process or object."""
        self._seconds = seconds
        self._moved_at = time.monotonic()
        self._reached = reached
        self._wait = tenacity.wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S)
        self._announced = False

    def try_again(self, action: Callable[[], R], what: str) -> R:
        """Calls `action` until it succeeds; `what` says what it does, for errors.

        Raises:
            OutOfPatienceError: nothing succeeded for too long.
            MaxComputeError: the service refused it for good.
        """
        begun = time.monotonic()
        if not self._reached:
            self._moved_at = begun
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_passing),
            wait=self._next_wait_s,
            sleep=pause,
            stop=self._is_over,
            before_sleep=lambda state: self._announce(state, what),
            reraise=True,
        )
        try:
            result = retrying(action)
        except FlowpatchError:
            raise
        except Exception as error:
            raise self._final(error, what) from None
        self.moved()
        return result

    def check(self, what: str, error: Exception) -> None:
        """Goes on waiting for what failed with `error`, or gives up.

        Raises:
            OutOfPatienceError: nothing moved for too long.
        """
        if self._still_s >= self._seconds:
            raise self._given_up(what, str(error))
        left_s = max(self._seconds - self._still_s, 0.0)
        pause(min(FIRST_WAIT_S + self._still_s / 4, LONGEST_WAIT_S, left_s))

    def moved(self) -> None:
        """Something succeeded: the time without progress starts anew."""
        self._moved_at = time.monotonic()
        self._reached, self._announced = True, False

    @property
    def _still_s(self) -> float:
        return time.monotonic() - self._moved_at

    def _next_wait_s(self, state: tenacity.RetryCallState) -> float:
        """No longer than patience lasts."""
        return min(self._wait(state), max(self._seconds - self._still_s, 0.05))

    def _is_over(self, state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        never_reached = not self._reached and _is_unreachable(error)
        limit = min(self._seconds, FIRST_CONTACT_S) if never_reached else self._seconds
        return self._still_s >= limit

    def _announce(self, state: tenacity.RetryCallState, what: str) -> None:
        if self._announced or self._still_s < SILENT_S or state.outcome is None:
            return
        self._announced = True
        error = state.outcome.exception()
        reason = named(error, what) if isinstance(error, Exception) else what
        left = max(0.0, self._seconds - self._still_s) / 60
        say(
            f"MaxCompute: no progress for {self._still_s:.0f} s, trying for {left:.0f} more "
            f"minutes. {reason}"
        )

    def _final(self, error: Exception, what: str) -> Exception:
        if not is_passing(error):
            return named(error, what) if _is_of_client(error) else error
        if not self._reached and _is_unreachable(error):
            return named(error, what)
        return self._given_up(what, str(named(error, what)))

    def _given_up(self, what: str, reason: str) -> OutOfPatienceError:
        said = reason if reason.startswith(what) else f"{what}: {reason}"
        return OutOfPatienceError(
            f"No progress for {self._still_s / 60:.1f} minutes (--patience-minutes). {said} "
            "Run the command again later."
        )


def pause(seconds: float) -> None:
    """Waits, but not after Ctrl-C.

    Raises:
        StopAskedError: someone asked the work to stop.
    """
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        raise_if_stop_asked()
        time.sleep(min(left, 0.2))
    raise_if_stop_asked()


def is_passing(error: BaseException) -> bool:
    """Whether trying again may help: busy, unreachable, cut short."""
    if isinstance(error, requests.exceptions.SSLError):
        return False
    if isinstance(error, client_errors.BaseODPSError):
        status = error.status_code
        return (
            isinstance(error, _CUT_SHORT)
            or str(error.code) in _PASSING_CODES
            or (status is not None and (status in (308, 408, 429) or status >= 500))
        )
    return isinstance(
        error,
        IncompleteReadError
        | requests.ConnectionError
        | requests.Timeout
        | requests.exceptions.ChunkedEncodingError
        | requests.exceptions.ContentDecodingError
        | urllib3.exceptions.HTTPError
        | ConnectionError
        | TimeoutError
        # A stream cut short does not decode.
        | pa.ArrowInvalid
        | DecodeError
        | EOFError,
    )


def _is_of_client(error: Exception) -> bool:
    return isinstance(
        error, client_errors.BaseODPSError | requests.RequestException | OSError | pa.ArrowException
    )


def _is_unreachable(error: BaseException | None) -> bool:
    """No connection was made at all: refused, or no such host."""
    if isinstance(error, client_errors.ConnectTimeout):
        return True
    told = repr(error)
    return isinstance(error, requests.ConnectionError) and (
        "NewConnectionError" in told or "NameResolutionError" in told
    )
