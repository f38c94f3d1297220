"""What went wrong, in one line, whatever library says it."""

import re


def first_line(error: Exception) -> str:
    """The reason without the frames that Icechunk draws and the addresses that Zarr gives."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = [line.strip(" |│╰╭-▶→×") for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return re.sub(r" in store <[^>]*>", "", lines[0].removeprefix("x ").rstrip("."))
