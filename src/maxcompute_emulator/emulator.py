"""The emulator as an object: a server in a thread of its own, and the state behind it."""

import asyncio
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from aiohttp import web

from maxcompute_emulator import control, rest, tunnel
from maxcompute_emulator.faults import Faults
from maxcompute_emulator.instances import Instances
from maxcompute_emulator.server import CONTROL_PREFIX, REST_PREFIX, application
from maxcompute_emulator.signature import Credentials
from maxcompute_emulator.traffic import Traffic
from maxcompute_emulator.warehouse import Warehouse

HOST = "127.0.0.1"
DEFAULT_PROJECT = "demo"
DEFAULT_TIME_ZONE = "Asia/Shanghai"
_THREADS = 64
_READ_BUFFER_BYTES = 1 << 20
_STOP_TIMEOUT_S = 10.0


class Emulator:
    """A MaxCompute service on the loopback address, for as long as the `with` block runs.

    Args:
        port: 0 takes a free one.
        database: A DuckDB file that keeps the state, or None for memory.
        projects: Projects that are there from the start.
        access_key_id: The one account's id.
        access_key_secret: Its secret.
        security_token: Where set, requests must carry it as their STS token.
        bandwidth: Bytes a second for each data stream, or None for no cap.
        time_zone: The zone in which queries read instants on the clock.
    """

    def __init__(
        self,
        port: int = 0,
        database: Path | None = None,
        projects: Iterable[str] = (DEFAULT_PROJECT,),
        access_key_id: str = "emulator",
        access_key_secret: str = "emulator",  # noqa: S107
        security_token: str | None = None,
        bandwidth: float | None = None,
        time_zone: str = DEFAULT_TIME_ZONE,
    ) -> None:
        self.port = port
        self.projects = tuple(projects)
        self.traffic = Traffic(bandwidth)
        self.faults = Faults()
        self.warehouse = Warehouse(database, projects=self.projects, time_zone=time_zone)
        self._credentials = Credentials(access_key_id, access_key_secret, security_token)
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="maxcompute-emulator", daemon=True)

    @property
    def endpoint(self) -> str:
        """What the client takes as its endpoint."""
        return f"http://{HOST}:{self.port}{REST_PREFIX}"

    @property
    def control(self) -> str:
        """Where faults, log and bandwidth are set."""
        return f"http://{HOST}:{self.port}{CONTROL_PREFIX}"

    def __enter__(self) -> "Emulator":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Serve; returns once requests are answered.

        Raises:
            OSError: The port is taken.
        """
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self._thread.join()
            self.warehouse.close()
            raise self._error

    def stop(self) -> None:
        """Stop serving and close the state."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
        self.warehouse.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_default_executor(ThreadPoolExecutor(_THREADS, "maxcompute-worker"))
        instances = Instances(self.warehouse)
        routes = [
            *control.routes(self.warehouse.add_project),
            *rest.routes(self.warehouse, instances),
            *tunnel.routes(self.warehouse, instances),
        ]
        runner = web.AppRunner(
            application(routes, self._credentials, self.faults, self.traffic),
            access_log=None,
            auto_decompress=False,
            read_bufsize=_READ_BUFFER_BYTES,
            shutdown_timeout=1.0,
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, HOST, self.port, reuse_address=True)
            await site.start()
            self.port = runner.addresses[0][1]
            self._ready.set()
            await self._stop.wait()
        finally:
            await runner.cleanup()
