"""The tunnel's sessions, without the client's own waiting and with a faster checksum.

The client answers a 429 by waiting for ever. Its sessions take the rule for trying again from one
attribute, `retry_handler`, which is replaced here by one that never does: `patience.py` is the
only place that tries again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import google_crc32c
from odps.tunnel.io.reader import ArrowStreamReader, TunnelArrowReader
from odps.tunnel.io.stream import CompressOption
from odps.tunnel.retry import NoRetryPolicy, RetryPolicy, TunnelRetryHandler
from odps.tunnel.tabletunnel import TableDownloadSession, TableTunnel, TableUploadSession

from flowpatch.maxcompute.connection import Connection, table_of
from flowpatch.maxcompute.names import TableName

COMPRESSION = CompressOption(CompressOption.CompressAlgorithm.ODPS_ZSTD)
"""Of what goes over the wire: records shrink to a fifth, and cost little to unpack."""

_EXPIRED = ("NoSuchDownload", "NoSuchUpload", "StatusConflict")


class _Once(TunnelRetryHandler):  # type: ignore[misc]
    """Makes each request once."""

    def get_retry_policy(self, status_code: int | None) -> RetryPolicy:  # noqa: ARG002
        return NoRetryPolicy()


class _Crc32c:
    """The checksum of the Arrow stream from google-crc32c: ten times as fast as the client's."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = int(google_crc32c.extend(self._value, data))

    def getvalue(self) -> int:
        return self._value

    def reset(self) -> None:
        self._value = 0


class _ArrowReader(TunnelArrowReader):  # type: ignore[misc]
    def _reopen_reader(self) -> None:
        super()._reopen_reader()
        if isinstance(self._reader, ArrowStreamReader):
            self._reader._crc, self._reader._crccrc = _Crc32c(), _Crc32c()


class DownloadSession(TableDownloadSession):  # type: ignore[misc]
    """A snapshot of a table or partition, shared among readers by its id."""

    @property
    def retry_handler(self) -> TunnelRetryHandler:
        """Every request is made once."""
        return _Once()

    def read(self, start: int, count: int, columns: list[str]) -> Any:
        """Rows start .. start + count as one Arrow table; the caller counts them."""
        reader = self._open_reader(
            start,
            count,
            compress=True,
            columns=columns,
            arrow=True,
            partition_spec=self._partition_spec,
            reader_cls=_ArrowReader,
        )
        try:
            return reader.read()
        finally:
            reader.close()


class UploadSession(TableUploadSession):  # type: ignore[misc]
    """Blocks that nobody sees before their commit."""

    def write(self, block_id: int, rows: Any) -> None:
        """Writes an Arrow table as one block; written again, it takes the place of the first."""
        writer = self.open_arrow_writer(block_id)
        writer._crc, writer._crccrc = _Crc32c(), _Crc32c()
        with writer:
            writer.write(rows)

    @property
    def retry_handler(self) -> TunnelRetryHandler:
        """Every request is made once."""
        return _Once()


class SessionExpiredError(Exception):
    """The service has forgotten a session."""


@contextmanager
def noticing_expiry(session_id: str) -> Iterator[None]:
    """Errors that say that the session is gone become SessionExpiredError."""
    try:
        yield
    except Exception as error:
        if str(getattr(error, "code", "")) in _EXPIRED:
            raise SessionExpiredError(f"the session {session_id} has expired") from None
        raise


def download_session(
    connection: Connection, table: TableName, partition: str | None, session_id: str | None = None
) -> DownloadSession:
    """A new download session, or the one with an id."""
    return DownloadSession(
        *_place(connection, table),
        partition,
        download_id=session_id,
        compress_option=COMPRESSION,
    )


def upload_session(
    connection: Connection,
    table: TableName,
    session_id: str | None = None,
    *,
    overwrite: bool = False,
) -> UploadSession:
    """A new upload session on a table without partitions, or the one with an id."""
    return UploadSession(
        *_place(connection, table),
        None,
        upload_id=session_id,
        overwrite=overwrite,
    )


def _place(connection: Connection, table: TableName) -> tuple[Any, Any]:
    """The tunnel's own client, and the table as it sees it."""
    client = connection.client()
    tunnel = TableTunnel(client, endpoint=connection.tunnel_endpoint)
    return tunnel.tunnel_rest, tunnel._get_tunnel_table(table_of(client, table))
