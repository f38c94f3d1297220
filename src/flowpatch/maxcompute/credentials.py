"""The keys of an account: read from the environment when needed, never kept, never shown."""

import os
from dataclasses import dataclass, field

from flowpatch.errors import CredentialsError
from flowpatch.redaction import ALIBABA_VARIABLES as VARIABLES

KEY_ID, KEY_SECRET, SECURITY_TOKEN = VARIABLES


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
