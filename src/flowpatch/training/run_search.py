"""Runs in a folder, and the store version that each names: what an expiry must keep.

Checkpoints are found wherever they lie below the folder; links are followed. Only their headers are
read, so no engine is loaded.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flowpatch.errors import CheckpointDamagedError, RunNotFoundError

_LENGTH_BYTES = 8
_LARGEST_HEADER = 100 * 2**20
"""As safetensors itself allows."""


def versions_in_use(folder: Path) -> dict[str, list[str]]:
    """The runs below a folder by the id of the store version that they were trained on.

    Raises:
        RunNotFoundError: there is no such folder.
        CheckpointDamagedError: a file may be a checkpoint, but does not say of which version.
    """
    if not folder.is_dir():
        raise RunNotFoundError(f"No folder of runs at '{folder}'. Check --runs.")
    found: dict[str, list[str]] = {}
    for file in _checkpoints(folder):
        version = _version_of(file)
        run = str(_run_of(file))
        if version is not None and run not in found.setdefault(version, []):
            found[version].append(run)
    return found


def _checkpoints(folder: Path) -> Iterator[Path]:
    seen = set()

    def refuse(error: OSError) -> None:
        raise CheckpointDamagedError(
            f"Cannot look for runs in '{error.filename}': {error.strerror}. Check its permissions, "
            "or name another folder with --runs."
        ) from error

    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            # A link to a folder above.
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (Path(place) / file for file in sorted(files) if file.endswith(".safetensors"))


def _version_of(file: Path) -> str | None:
    """The version that a checkpoint names; None for a file of tensors of another program."""
    try:
        metadata = _header(file).get("__metadata__", {})
        if "description" not in metadata:
            return None
        return str(json.loads(metadata["description"])["store"]["version"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if (version := _recorded_version(_run_of(file))) is not None:
            return version
        raise CheckpointDamagedError(
            f"The checkpoint '{file}' is damaged, so nobody knows which version its run needs. "
            "Remove it, or name a folder without it with --runs."
        ) from error


def _header(file: Path) -> dict[str, Any]:
    with file.open("rb") as content:
        length = int.from_bytes(content.read(_LENGTH_BYTES), "little")
        if not 0 < length <= min(_LARGEST_HEADER, file.stat().st_size):
            raise ValueError("no header")
        found: dict[str, Any] = json.loads(content.read(length))
    return found


def _recorded_version(run: Path) -> str | None:
    """What the settings beside a damaged checkpoint say."""
    try:
        content = json.loads((run / "settings.json").read_text(encoding="utf-8"))
        return str(content["store"]["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _run_of(file: Path) -> Path:
    return file.parent.parent if file.parent.name == "checkpoints" else file.parent
