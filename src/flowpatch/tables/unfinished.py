"""What a publication that was stopped left behind, remembered beside its metadata file."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from flowpatch.maxcompute.names import TableName


def unfinished_file(metadata_file: Path) -> Path:
    """Where it is remembered."""
    return metadata_file.with_name(f".{metadata_file.name}.unfinished")


class Unfinished:
    """The upload session and the temporary table of an earlier try with the same plan, if any."""

    def __init__(self, metadata_file: Path, plan: str) -> None:
        self._path, self._plan = unfinished_file(metadata_file), plan
        self._found: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            found = json.loads(self._path.read_text())
            if isinstance(found, dict) and found.get("plan") == plan:
                self._found = found

    @property
    def session_id(self) -> str | None:
        """The upload session."""
        return self._found.get("session")

    @property
    def staging(self) -> TableName | None:
        """The table that its blocks go to."""
        found = self._found.get("staging")
        return TableName.of_address(found) if found else None

    @property
    def rows_before(self) -> int:
        """Rows that the sample table had before anything was written."""
        return int(self._found.get("rows_before", 0))

    def remember(self, session_id: str, staging: TableName, rows_before: int) -> None:
        """Writes down what the next try needs."""
        self._found = {
            "plan": self._plan,
            "session": session_id,
            "staging": staging.address,
            "rows_before": rows_before,
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._found))

    def forget(self) -> None:
        """Nothing is unfinished any more."""
        self._path.unlink(missing_ok=True)
