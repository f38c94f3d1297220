"""The client of an object store: where it is reached, what it can do, and its errors by name.

Keys come from the environment or the usual files of AWS, which its own client reads; none is kept
here. What lies in a bucket is left to `bucket.py`.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from flowpatch.errors import (
    StoreError,
    StoreNotFoundError,
    StorePermissionError,
    StoreUnreachableError,
    needing_extra,
)
from flowpatch.redaction import AWS_VARIABLES, hide, redact

DEFAULT_REGION = "us-east-1"
"""Of a server that has none of its own, as most that are not AWS."""
_QUICK = {"connect_timeout": 2, "read_timeout": 5, "retries": {"total_max_attempts": 2}}
"""For the first request: whoever mistyped an endpoint is told within seconds."""
_PATIENT = {"connect_timeout": 3, "read_timeout": 20, "retries": {"total_max_attempts": 3}}
_EXPIRED = ("ExpiredToken", "InvalidToken", "TokenRefreshRequired")
_NOT_AS_WANTED = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey")
_BATCH = 1000
"""Most objects that one request removes."""


class ConditionError(Exception):
    """An object is not as a condition asked: another process was there first."""


@dataclass(frozen=True)
class Found:
    """An object: its content, its state, and its age by the server's clock."""

    content: bytes
    etag: str
    age_s: float


@dataclass(frozen=True)
class ObjectStore:
    """A bucket that has answered. `endpoint` is None where it is AWS's own."""

    bucket: str
    region: str
    endpoint: str | None
    path_style: bool
    client: Any

    @classmethod
    def reach(cls, bucket: str, prefix: str) -> "ObjectStore":
        """The bucket, once it has listed what lies under a prefix.

        Raises:
            StoreUnreachableError: nothing answers, or nothing sensible.
            StorePermissionError: there are no keys, or they are refused.
            StoreNotFoundError: there is no such bucket.
            MissingExtraError: the client is not installed.
        """
        with needing_extra("s3"):
            import boto3
            import botocore.session
        core = botocore.session.get_session()
        with explained(bucket, prefix):
            region = (
                os.environ.get("AWS_REGION")
                or os.environ.get("AWS_DEFAULT_REGION")
                or core.get_config_variable("region")
                or DEFAULT_REGION
            )
            _hide_keys(core)
            style = (core.get_scoped_config().get("s3") or {}).get("addressing_style")
            session = boto3.Session(botocore_session=core, region_name=region)
            address = str(session.client("s3").meta.endpoint_url)
            endpoint = None if _is_of_aws(address) else address
            # A server of one's own seldom has a name for each bucket.
            style = style or ("auto" if endpoint is None else "path")
            first = session.client("s3", config=_config(style, _QUICK))
        with explained(bucket, prefix, endpoint):
            _try(first, bucket, prefix)
        patient = session.client("s3", config=_config(style, _PATIENT))
        return cls(bucket, region, endpoint, style == "path", patient)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Key and size of every object whose key begins so, in order."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix
        )
        with explained(self.bucket, prefix, self.endpoint):
            for page in pages:
                yield from ((found["Key"], found["Size"]) for found in page.get("Contents", ()))

    def list_below(self, prefix: str) -> Iterator[str]:
        """What comes behind a prefix up to the next slash, in order, where one comes."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix, Delimiter="/"
        )
        with explained(self.bucket, prefix, self.endpoint):
            for page in pages:
                for found in page.get("CommonPrefixes", ()):
                    yield found["Prefix"].removeprefix(prefix).removesuffix("/")

    def get(self, key: str) -> Found | None:
        """An object, whole; None where there is none."""
        from botocore.exceptions import ClientError

        with explained(self.bucket, key, self.endpoint):
            try:
                found = self.client.get_object(Bucket=self.bucket, Key=key)
            except ClientError as error:
                if _code(error) == "NoSuchKey":
                    return None
                raise
            now = found["ResponseMetadata"]["HTTPHeaders"].get("date")
            now = parsedate_to_datetime(now) if now else datetime.now(UTC)
            age_s = (now - found["LastModified"]).total_seconds()
            return Found(found["Body"].read(), found["ETag"], age_s)

    def put(self, key: str, content: bytes, **condition: str) -> str:
        """Writes an object; returns its new state.

        Raises:
            ConditionError: it is not as `IfMatch` or `IfNoneMatch` wants it.
        """
        with explained(self.bucket, key, self.endpoint), _conditions():
            done = self.client.put_object(Bucket=self.bucket, Key=key, Body=content, **condition)
            return str(done["ETag"])

    def delete(self, key: str, etag: str) -> None:
        """Removes an object in this state.

        Raises:
            ConditionError: it is in another.
        """
        with explained(self.bucket, key, self.endpoint), _conditions():
            self.client.delete_object(Bucket=self.bucket, Key=key, IfMatch=etag)

    def delete_all(self, prefix: str) -> None:
        """Removes every object whose key begins so."""
        keys = [key for key, _ in self.list(prefix)]
        for first in range(0, len(keys), _BATCH):
            batch = [{"Key": key} for key in keys[first : first + _BATCH]]
            with explained(self.bucket, prefix, self.endpoint):
                done = self.client.delete_objects(
                    Bucket=self.bucket, Delete={"Objects": batch, "Quiet": True}
                )
            for error in done.get("Errors", ()):
                raise StorePermissionError(
                    f"Cannot remove 's3://{self.bucket}/{error['Key']}': {error['Code']}. Check "
                    "the right of its keys to delete."
                )

    def check(self, prefix: str) -> None:
        """Makes sure that what lies under a prefix can be listed, and the first of it read.

        Raises:
            StoreError: why not.
        """
        with explained(self.bucket, prefix, self.endpoint):
            for found in _try(self.client, self.bucket, prefix):
                self.client.head_object(Bucket=self.bucket, Key=found["Key"])


def _try(client: Any, bucket: str, prefix: str) -> Any:
    return client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1).get("Contents", ())


def _config(addressing_style: str, patience: dict[str, Any]) -> Any:
    from botocore.config import Config

    return Config(
        **patience,
        s3={"addressing_style": addressing_style},
        # Servers that are not AWS know other checksums, or none.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )


def _is_of_aws(address: str) -> bool:
    return (urlsplit(address).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _hide_keys(core: Any) -> None:
    """Keys that come from files are kept out of messages like those of the environment."""
    found = core.get_credentials()
    if found is not None:
        frozen = found.get_frozen_credentials()
        keys = (frozen.access_key, frozen.secret_key, frozen.token)
        for name, value in zip(AWS_VARIABLES, keys, strict=True):
            hide(name, value)


@contextmanager
def _conditions() -> Iterator[None]:
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        if _code(error) in _NOT_AS_WANTED:
            raise ConditionError from error
        raise


@contextmanager
def explained(bucket: str, prefix: str, endpoint: str | None = None) -> Iterator[None]:
    """Whatever the client says inside this block, by name.

    Raises:
        StoreError: of the class that fits.
    """
    from botocore import exceptions

    address, server = f"s3://{bucket}/{prefix}".rstrip("/"), _shown(endpoint)
    try:
        yield
    except exceptions.ClientError as error:
        raise _refusal(error, bucket, address, server) from error
    except (exceptions.HTTPClientError, exceptions.ConnectionError) as error:
        raise StoreUnreachableError(
            f"{server} does not answer for '{address}': {_without_url(error)}. Check "
            "AWS_ENDPOINT_URL, the network and the proxy; then run the command again."
        ) from error
    except (exceptions.BotoCoreError, ValueError) as error:
        said = redact(str(error)).rstrip(".")
        kind = type(error).__name__
        if isinstance(error, exceptions.BotoCoreError) and any(
            word in kind for word in ("Credential", "Token", "Profile", "SSO", "Login")
        ):
            raise StorePermissionError(
                f"No keys for '{address}': {said}. Give them in the environment "
                f"({', '.join(AWS_VARIABLES[:2])}, or AWS_PROFILE) or in ~/.aws/credentials; "
                "no flag takes them."
            ) from error
        raise StoreUnreachableError(
            f"Cannot reach '{address}': {said}. Check AWS_ENDPOINT_URL and AWS_REGION."
        ) from error


def _refusal(error: Any, bucket: str, address: str, server: str) -> StoreError:
    code, status = _code(error), error.response["ResponseMetadata"]["HTTPStatusCode"]
    if code == "NoSuchBucket":
        return StoreNotFoundError(
            f"There is no bucket '{bucket}' at {server}. Create it, or check '{address}'."
        )
    if status in (401, 403) or code in _EXPIRED:
        return StorePermissionError(
            f"{server} refuses '{address}' ({code}). Check the keys in {', '.join(AWS_VARIABLES)}, "
            "AWS_PROFILE or ~/.aws, their rights to list, read, write and delete there, and this "
            "machine's clock."
        )
    said = redact(str(error.response["Error"].get("Message", "")))
    return StoreUnreachableError(
        f"{server} cannot serve '{address}': {status} {code} {said}".rstrip(" .")
        + ". Check AWS_ENDPOINT_URL and AWS_REGION, or run the command again later."
    )


def _without_url(error: Exception) -> str:
    """What the client says, without the request, which tells nothing more."""
    return redact(re.sub(r':? "\w+://[^"]*"', "", str(error))).rstrip(".")


def _code(error: Any) -> str:
    return str(error.response["Error"].get("Code", ""))


def _shown(endpoint: str | None) -> str:
    """The server for a message, without what may stand in front of its name."""
    if endpoint is None:
        return "S3"
    parts = urlsplit(endpoint)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}"
