"""The keys of an account: read from the environment when needed, never kept, never shown."""

import os
from dataclasses import dataclass, field

from flowpatch.errors import CredentialsError

KEY_ID = "ALIBABA_CLOUD_ACCESS_KEY_ID"
KEY_SECRET = "ALIBABA_CLOUD_ACCESS_KEY_SECRET"  # noqa: S105
SECURITY_TOKEN = "ALIBABA_CLOUD_SECURITY_TOKEN"  # noqa: S105
VARIABLES = (KEY_ID, KEY_SECRET, SECURITY_TOKEN)


@dataclass(frozen=True)
class Credentials:
    """An access key, with the token of a temporary (STS) one."""

    key_id: str = field(repr=False)
    key_secret: str = field(repr=False)
    security_token: str | None = field(repr=False)


def credentials() -> Credentials:
    """The keys that the environment holds.

    Raises:
        CredentialsError: one is not set.
    """
    missing = [name for name in (KEY_ID, KEY_SECRET) if not os.environ.get(name)]
    if missing:
        raise CredentialsError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set. Export the "
            f"access key of your account, such as: export {KEY_ID}=... {KEY_SECRET}=..."
        )
    return Credentials(
        os.environ[KEY_ID], os.environ[KEY_SECRET], os.environ.get(SECURITY_TOKEN) or None
    )


def redact(message: str) -> str:
    """The message without any of the keys that the environment holds."""
    for name in VARIABLES:
        value = os.environ.get(name, "")
        # A shorter value is no real key, and taking it out would tear words apart.
        if len(value) >= 8:
            message = message.replace(value, f"<{name}>")
    return message
