"""What passes through the server: the log of requests and the cap on each data stream.

Kept apart from the handlers that write it and from the control address that shows it.
"""

import asyncio
import itertools
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import web

LOG_LENGTH = 100_000


@dataclass
class Entry:
    """One request as the log shows it; `status` stays None until it was answered."""

    n: int
    method: str
    path: str
    query: str
    status: int | None = None
    fault: str | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    rows: int = 0


class Traffic:
    """The requests of this server's life and how fast a stream may run."""

    def __init__(self, bytes_per_second: float | None = None) -> None:
        self.bytes_per_second = bytes_per_second
        self._entries: deque[Entry] = deque(maxlen=LOG_LENGTH)
        self._numbers = itertools.count(1)

    def enter(self, method: str, path: str, query: str) -> Entry:
        """Note a request that just arrived."""
        entry = Entry(next(self._numbers), method, path, query)
        self._entries.append(entry)
        return entry

    def entries(self) -> list[dict[str, Any]]:
        """The log, oldest first."""
        return [asdict(entry) for entry in self._entries]

    def clear(self) -> None:
        """Forget the log; numbers go on."""
        self._entries.clear()

    def pace(self) -> "Pace":
        """The pace for one new stream."""
        return Pace(self.bytes_per_second)


class Pace:
    """Holds one stream to a number of bytes a second."""

    def __init__(self, bytes_per_second: float | None) -> None:
        self._bytes_per_second = bytes_per_second
        self._started = time.monotonic()
        self._passed = 0

    async def passed(self, n_bytes: int) -> None:
        """Wait until `n_bytes` more may have passed."""
        if self._bytes_per_second is None:
            return
        self._passed += n_bytes
        due = self._started + self._passed / self._bytes_per_second
        await asyncio.sleep(max(0.0, due - time.monotonic()))


TRAFFIC = web.AppKey("TRAFFIC", Traffic)
ENTRY = web.RequestKey("ENTRY", Entry)
