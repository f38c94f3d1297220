"""What went wrong, in one line, whatever library says it."""


def first_line(error: Exception) -> str:
    """The reason without the frames and drawings that Icechunk adds."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = [line.strip(" |│╰╭-▶→×") for line in str(error).splitlines() if line.strip()]
    return lines[0].removeprefix("x ").rstrip(".") if lines else type(error).__name__
