"""Who asks: the request signatures of MaxCompute, versions 2 and 4, with or without an STS token.

Covers the check of a request's `Authorization` header against one account. There is only one, and
it may do everything.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlparse

from maxcompute_emulator.errors import ServiceError

_SIGNED_WITHOUT_NAME = ("content-md5", "content-type", "date")
_V4_PREFIX = "aliyun_v4"


@dataclass(frozen=True)
class Credentials:
    """The one account that the service knows; its secrets stay out of `repr`."""

    access_key_id: str
    access_key_secret: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)


def verify(
    credentials: Credentials, method: str, target: str, prefix: str, headers: Mapping[str, str]
) -> None:
    """Raise a `ServiceError` unless the account signed this request.

    Args:
        credentials: The account.
        method: The HTTP method.
        target: Path and query exactly as they stood in the request line.
        prefix: The path of the endpoint, which is not signed (`/api`, or nothing for the tunnel).
        headers: The request's headers; lookups ignore case.
    """
    authorization = headers.get("Authorization", "")
    scheme, _, rest = authorization.partition(" ")
    who, _, signature = rest.rpartition(":")
    key_id, *scope = who.split("/")
    if scheme != "ODPS" or not key_id or not signature:
        raise ServiceError(
            "Unauthorized", "The request authorization header is invalid or missing.", 401
        )
    if key_id != credentials.access_key_id:
        raise ServiceError("Unauthorized", f"The access key id is not known: {key_id}", 401)
    key = _v4_key(credentials, scope) if scope else credentials.access_key_secret.encode()
    text = canonical_text(method, target.removeprefix(prefix), headers)
    digest = hmac.new(key, text.encode("utf-8", "surrogateescape"), hashlib.sha1).digest()
    if not hmac.compare_digest(base64.b64encode(digest), signature.encode()):
        raise ServiceError(
            "SignatureNotMatch",
            "The request signature we calculated does not match the signature you provided. "
            "Check your access key secret and your clock.",
            403,
        )
    _check_token(credentials, headers)


def canonical_text(method: str, target: str, headers: Mapping[str, str]) -> str:
    """What is signed: method, header values and resource, a line each.

    The client decodes the whole target once before it takes it apart and decodes the query again:
    a `+` or `%26` inside a value is signed as the client understands it, not as it was meant.
    """
    parts = urlparse(unquote(target), allow_fragments=False)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    signed = {name: headers.get(name, "") for name in _SIGNED_WITHOUT_NAME}
    signed |= {k.lower(): v for k, v in headers.items() if k.lower().startswith("x-odps-")}
    signed |= {name: value for name, value in query.items() if name.startswith("x-odps-")}
    lines = [
        f"{name}:{value}" if name.startswith("x-odps-") else value
        for name, value in sorted(signed.items())
    ]
    return "\n".join([method.upper(), *lines, _resource(parts.path, query)])


def _resource(path: str, query: Mapping[str, str]) -> str:
    if not query:
        return path
    pairs = (f"{name}={value}" if value else name for name, value in sorted(query.items()))
    return f"{path}?{'&'.join(pairs)}"


def _v4_key(credentials: Credentials, scope: list[str]) -> bytes:
    """The key of version 4, derived from the secret, the day, the region and the service."""
    if len(scope) != 4 or scope[2] != "odps" or scope[3] != f"{_V4_PREFIX}_request":
        raise ServiceError("Unauthorized", "The credential scope of the signature is invalid.", 401)
    key = (_V4_PREFIX + credentials.access_key_secret).encode()
    for step in scope:
        key = hmac.new(key, step.encode(), hashlib.sha256).digest()
    return key


def _check_token(credentials: Credentials, headers: Mapping[str, str]) -> None:
    expected = credentials.security_token
    given = headers.get("authorization-sts-token")
    if expected is not None and not hmac.compare_digest(
        expected.encode(), (given or "").encode("utf-8", "surrogateescape")
    ):
        raise ServiceError(
            "Unauthorized", "The security token is missing, invalid or has expired.", 401
        )
