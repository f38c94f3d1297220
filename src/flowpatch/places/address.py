"""Addresses of stores, checked. Free of engines, so that `--help` need not load them."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from flowpatch.errors import SettingsError

SCHEME = "s3://"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PART = re.compile(r"[\w.=+@-]+")
"""Letters and digits of any script, and signs that no shell, URL or query gives a meaning."""


def is_bucket_address(address: str) -> bool:
    """Whether it names an object store and not a folder."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", address) is not None


def check_address(address: str) -> str:
    """The address, if a store can be there.

    Raises:
        SettingsError: it is empty, of an unknown kind, or no plain path of a bucket.
    """
    if not address.strip():
        raise SettingsError("The store's address is empty. Give a folder, or s3://BUCKET/PATH.")
    if not is_bucket_address(address):
        return address
    # A shell that completes addresses leaves a slash behind them.
    found = address.removesuffix("/")
    bucket, _, prefix = found.removeprefix(SCHEME).partition("/")
    parts = prefix.split("/")
    plain = all(_PART.fullmatch(part) and part.strip(".") for part in parts)
    if not address.startswith(SCHEME) or not _BUCKET.fullmatch(bucket) or not plain:
        raise SettingsError(
            f"'{address}' is no store's address. Give a folder, or s3://BUCKET/PATH with letters, "
            "digits and any of . _ - = + @ between the slashes of PATH."
        )
    return found


def _as_address(value: Any) -> Any:
    if isinstance(value, Path):
        value = str(value)
    return check_address(value) if isinstance(value, str) else value


StoreAddress = Annotated[str, BeforeValidator(_as_address)]
"""A folder, or `s3://BUCKET/PATH`."""
