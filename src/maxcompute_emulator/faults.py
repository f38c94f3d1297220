"""Which request fails, and how.

A rule gives a share of the requests that its pattern matches to its kinds of fault. The choice
depends on the rule's seed, on the request's text (session and instance ids left out, since they
differ from run to run) and on how often that text was seen, never on the clock: the same storm can
be had again.
"""

import asyncio
import hashlib
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from maxcompute_emulator.errors import ServiceError

_SESSION_PARAMETERS = ("downloadid", "uploadid", "upsertid")


@dataclass(frozen=True)
class _Request:
    """What a rule looks at."""

    method: str
    path: str
    query: Mapping[str, str]

    @property
    def is_data(self) -> bool:
        return self.method == "GET" and "data" in self.query and "downloadid" in self.query

    @property
    def has_session(self) -> bool:
        return any(name in self.query for name in _SESSION_PARAMETERS[:2])

    @property
    def is_commit(self) -> bool:
        return self.method == "POST" and "uploadid" in self.query

    @property
    def is_submission(self) -> bool:
        return self.method == "POST" and self.path.endswith("/instances")


def _any(_request: _Request) -> bool:
    return True


KINDS: dict[str, Callable[[_Request], bool]] = {
    "throttled": _any,
    "unavailable": _any,
    "reset_before": _any,
    "reset_inside": lambda request: request.is_data,
    "empty_body": lambda request: request.is_data,
    "expired_session": lambda request: request.has_session,
    "lost_commit": lambda request: request.is_commit,
    "lost_submit": lambda request: request.is_submission,
    "slow": _any,
}


@dataclass(frozen=True)
class Rule:
    """One rule, as `PUT /emulator/faults` names it."""

    kinds: tuple[str, ...]
    seed: int = 0
    rate: float = 1.0
    match: str = ""
    at_most: int | None = None
    delay_s: float = 0.2
    pattern: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.kinds) - set(KINDS))
        if unknown or not self.kinds:
            raise ValueError(f"Unknown fault kinds {unknown}. Allowed: {', '.join(KINDS)}.")
        if not 0 <= self.rate <= 1:
            raise ValueError(f"rate is {self.rate}. Allowed: 0 to 1.")
        if self.delay_s < 0:
            raise ValueError(f"delay_s is {self.delay_s}. Allowed: 0 or more.")
        try:
            object.__setattr__(self, "pattern", re.compile(self.match))
        except re.error as error:
            raise ValueError(f"match is no regular expression: {error}.") from error

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Rule":
        """Read a rule; an unknown field is an error."""
        allowed = ("kinds", "seed", "rate", "match", "at_most", "delay_s")
        unknown = sorted(set(fields) - set(allowed))
        if unknown:
            raise ValueError(f"Unknown fields {unknown}. Allowed: {', '.join(allowed)}.")
        return cls(**{**fields, "kinds": tuple(fields.get("kinds", ()))})


@dataclass(frozen=True)
class Fault:
    """What befalls one request."""

    kind: str
    delay_s: float
    draw: float

    def cut(self, n_bytes: int) -> int:
        """After how many of `n_bytes` a body breaks off: at least one byte is missing."""
        return min(n_bytes - 1, int(self.draw * n_bytes)) if n_bytes else 0


class Faults:
    """The rules in force. Safe to change from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: tuple[Rule, ...] = ()
        self._seen: Counter[tuple[int, str]] = Counter()
        self._used: Counter[int] = Counter()

    def set(self, rules: tuple[Rule, ...]) -> None:
        """Put `rules` in the place of those before; their counts start anew."""
        with self._lock:
            self._rules = rules
            self._seen.clear()
            self._used.clear()

    def choose(self, request: web.Request) -> Fault | None:
        """The fault of this request: that of the first rule that gives it one."""
        seen = _Request(request.method, request.path, request.query)
        text = f"{request.method} {request.path}?{request.query_string}"
        with self._lock:
            for number, rule in enumerate(self._rules):
                if fault := self._apply(number, rule, seen, text):
                    return fault
        return None

    def _apply(self, number: int, rule: Rule, request: _Request, text: str) -> Fault | None:
        kinds = [kind for kind in rule.kinds if KINDS[kind](request)]
        if not kinds or not rule.pattern.search(text):
            return None
        if rule.at_most is not None and self._used[number] >= rule.at_most:
            return None
        key = (number, _without_ids(text))
        self._seen[key] += 1
        chance, choice, draw = _draws(f"{rule.seed}|{key[1]}|{self._seen[key]}")
        if chance >= rule.rate:
            return None
        self._used[number] += 1
        return Fault(kinds[int(choice * len(kinds))], rule.delay_s, draw)


FAULTS = web.AppKey("FAULTS", Faults)
FAULT: web.RequestKey[Fault | None] = web.RequestKey("FAULT", Fault)


def _without_ids(text: str) -> str:
    text = re.sub(rf"\b({'|'.join(_SESSION_PARAMETERS)})=[^&]*", r"\1=*", text)
    return re.sub(r"/instances/[^/?]+", "/instances/*", text)


def _draws(text: str) -> tuple[float, float, float]:
    """Three numbers in [0, 1) that depend on nothing but the text."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    first, second, third = struct.unpack_from("<3Q", digest)
    return first / 2**64, second / 2**64, third / 2**64


async def before_handler(request: web.Request, fault: Fault) -> None:
    """Break the request, where the fault comes before the service does anything."""
    if fault.kind == "throttled":
        raise ServiceError("FlowExceeded", "Your flow quota is exceeded.", 429)
    if fault.kind == "unavailable":
        raise ServiceError("ServiceUnavailable", "Service is temporarily unavailable.", 503)
    if fault.kind == "reset_before":
        reset(request)
    if fault.kind == "slow":
        await asyncio.sleep(fault.delay_s)


def after_handler(request: web.Request, fault: Fault) -> None:
    """Break the request, where the service has done its part and only the answer is lost."""
    if fault.kind in ("lost_commit", "lost_submit"):
        reset(request)


def reset(request: web.Request) -> None:
    """Break the connection off with a TCP reset and leave the handler.

    Raises:
        ConnectionResetError: Always; nothing more can be sent.
    """
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    raise ConnectionResetError("The connection was reset on purpose.")
