"""Keys of accounts, kept out of every message: those of the environment, and those read from files.

Where keys come from is left to whoever uses them: `maxcompute/credentials.py`, `store/bucket.py`.
"""

import os
import re
from urllib.parse import quote

ALIBABA_VARIABLES = (
    "ALIBABA_CLOUD_ACCESS_KEY_ID",
    "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
    "ALIBABA_CLOUD_SECURITY_TOKEN",
)
AWS_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
SHORTEST_KEY = 8
"""A shorter value is no real key, and taking it out would tear words apart."""
_IN_ADDRESS = re.compile(r"(?<=://)[^/\s@]+(?=@)")
"""A name and password in front of a host."""
_from_files: dict[str, str] = {}


def hide(name: str, value: str | None) -> None:
    """Keeps a key that is in no variable out of messages; `name` is shown in its place."""
    if value:
        _from_files[value] = name


def redact(message: str) -> str:
    """The message without any key that is known, as it is or as a part of an address."""
    known = {os.environ.get(name, ""): name for name in (*ALIBABA_VARIABLES, *AWS_VARIABLES)}
    for value, name in (_from_files | known).items():
        if len(value) >= SHORTEST_KEY:
            message = message.replace(value, f"<{name}>")
            message = message.replace(quote(value, safe=""), f"<{name}>")
    return _IN_ADDRESS.sub("<hidden>", message)
