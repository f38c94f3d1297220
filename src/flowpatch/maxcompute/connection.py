"""Where a project is reached, its client, and the client's errors under our own names."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests
from odps import ODPS
from odps import errors as client_errors
from odps.accounts import StsAccount

from flowpatch.errors import (
    CredentialsError,
    FlowpatchError,
    MaxComputeError,
    NoPermissionError,
    QueryError,
    TableChangedError,
    TableNotFoundError,
    UnreachableError,
)
from flowpatch.maxcompute.credentials import credentials
from flowpatch.maxcompute.names import TableName
from flowpatch.maxcompute.settings import MaxComputeSettings
from flowpatch.redaction import redact


@dataclass(frozen=True)
class Connection:
    """Where a project is reached. It holds no key, so it may be logged and sent to workers."""

    endpoint: str
    project: str
    tunnel_endpoint: str | None = None
    patience_s: float = 600.0

    @classmethod
    def of_settings(cls, settings: MaxComputeSettings, project: str | None = None) -> "Connection":
        """The connection that flags and environment name.

        Args:
            settings: the flags.
            project: runs the queries where the flags name none.
        """
        return cls(
            endpoint=settings.endpoint(),
            project=settings.odps_project or project or settings.project(),
            tunnel_endpoint=settings.odps_tunnel_endpoint,
            patience_s=settings.patience_minutes * 60,
        )

    def client(self) -> ODPS:
        """A client with the keys of the environment; makes no request.

        Raises:
            CredentialsError: no keys are set.
        """
        keys = credentials()
        place: dict[str, Any] = {
            "project": self.project,
            "endpoint": self.endpoint,
            "tunnel_endpoint": self.tunnel_endpoint,
            # The caller may have a client of its own, which must stay the default one.
            "overwrite_global": False,
        }
        if keys.security_token:
            # The token's life is the caller's concern: without this, the client would look for
            # another one after an hour.
            account = StsAccount(
                keys.key_id, keys.key_secret, keys.security_token, expired_hours=None
            )
            client = ODPS(account=account, **place)
        else:
            client = ODPS(keys.key_id, keys.key_secret, **place)
        # One place tries again (`patience.py`); two, one inside the other, would multiply waits.
        client.rest._retry_enabled = False
        return client


def table_of(client: ODPS, name: TableName) -> Any:
    """The client's own object of a table; makes no request."""
    return client.get_table(name.table, project=name.project, schema=name.schema)


@contextmanager
def naming_errors(what: str) -> Iterator[None]:
    """Errors of the client inside this block become ours; `what` says what was being done.

    No key is left in a message.
    """
    try:
        yield
    except FlowpatchError:
        raise
    except (client_errors.BaseODPSError, requests.RequestException, OSError) as error:
        raise named(error, what) from None


def named(error: Exception, what: str) -> MaxComputeError:
    """The client's error as one of ours, with the likely cause and the next step."""
    said = redact(" ".join(str(error).split()))[:600]
    code = getattr(error, "code", None) or type(error).__name__
    message = f"{what}: {said if str(code) in said else f'{code}: {said}'}"
    for kinds, ours, advice in _CAUSES:
        if isinstance(error, kinds) or _has_code(error, kinds):
            return ours(f"{message}{'' if message.endswith('.') else '.'} {advice}")
    return MaxComputeError(message)


def _has_code(error: Exception, kinds: tuple[type[Exception], ...]) -> bool:
    names = {kind.__name__ for kind in kinds}
    return str(getattr(error, "code", "")) in names


def _kinds(*names: str) -> tuple[type[Exception], ...]:
    return tuple(getattr(client_errors, name) for name in names if hasattr(client_errors, name))


_CAUSES: tuple[tuple[tuple[type[Exception], ...], type[MaxComputeError], str], ...] = (
    (
        _kinds(
            "AuthorizationRequired",
            "Unauthorized",
            "SignatureNotMatch",
            "InvalidAccessKeyId",
            "AuthenticationRequestExpired",
            "InvalidStsToken",
        ),
        CredentialsError,
        "Check ALIBABA_CLOUD_ACCESS_KEY_ID, ALIBABA_CLOUD_ACCESS_KEY_SECRET, for a temporary key "
        "ALIBABA_CLOUD_SECURITY_TOKEN, and this machine's clock.",
    ),
    (
        _kinds("NoPermission", "AccessDeniedException", "Forbidden"),
        NoPermissionError,
        "Ask the project's owner for the right; docs/maxcompute.md lists those needed.",
    ),
    (
        _kinds("TableModified", "SchemaModified"),
        TableChangedError,
        "Somebody wrote the table meanwhile: run the command again.",
    ),
    (
        _kinds("NoSuchTable", "NoSuchPartition", "NoSuchProject", "NoSuchObject"),
        TableNotFoundError,
        "Check the names of project, table and partition: flowpatch doctor lists them.",
    ),
    (
        _kinds("ParseError"),
        QueryError,
        "This is a fault of flowpatch: report it with the message.",
    ),
    (
        (requests.ConnectionError, requests.Timeout, *_kinds("ConnectTimeout")),
        UnreachableError,
        "Check the endpoint, the network and proxies: flowpatch doctor tells them apart.",
    ),
)
