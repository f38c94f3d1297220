"""Sessions by their ids: what a client opened and may come back to within a day."""

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from aiohttp import web

from maxcompute_emulator import errors
from maxcompute_emulator.errors import ServiceError
from maxcompute_emulator.faults import FAULT

LIFETIME_S = 24 * 3600


def _new_id() -> str:
    return time.strftime("%Y%m%d%H%M%S", time.gmtime()) + uuid.uuid4().hex[:24]


@dataclass(kw_only=True)
class Session:
    """What all sessions share."""

    owner: str
    quota_name: str | None = None
    id: str = field(default_factory=_new_id)
    started: float = field(default_factory=time.time)

    def discard(self) -> None:
        """Let go of what the session holds."""


_SessionT = TypeVar("_SessionT", bound=Session)


class Sessions:
    """All open sessions. Safe to use from any thread."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    def add(self, session: Session) -> None:
        """Keep a session, and let go of those that are older than a day."""
        with self._lock:
            oldest = self._clock() - LIFETIME_S
            expired = [s for s in self._sessions.values() if s.started < oldest]
            for old in expired:
                del self._sessions[old.id]
            self._sessions[session.id] = session
        for old in expired:
            old.discard()

    def get(
        self,
        request: web.Request,
        parameter: str,
        kind: type[_SessionT],
        missing: Callable[[str], ServiceError],
    ) -> _SessionT:
        """The session that a request names.

        Raises:
            ServiceError: There is none of this kind, or it belongs to another table or instance, or
                a fault makes it expire just now.
        """
        session_id = request.query[parameter]
        with self._lock:
            session = self._sessions.get(session_id)
        if not isinstance(session, kind) or session.owner != owner_of(request):
            raise missing(session_id)
        fault = request.get(FAULT)
        if fault is not None and fault.kind == "expired_session":
            self.forget(session)
            raise errors.status_conflict(f"Session '{session_id}' has expired.")
        return session

    def forget(self, session: Session) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(session.id, None)
        session.discard()


def owner_of(request: web.Request) -> str:
    """The table or instance of a request's path, the same with and without the default schema."""
    match = request.match_info
    if "instance" in match:
        return f"{match['project']}/{match['instance']}".lower()
    return f"{match['project']}.{match.get('schema', 'default')}.{match['table']}".lower()
