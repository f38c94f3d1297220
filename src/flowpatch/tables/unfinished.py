"""What a publication that was stopped left behind, remembered beside its metadata file."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from flowpatch.maxcompute.names import TableName


def unfinished_file(metadata_file: Path) -> Path:
    """Where it is remembered."""
    return metadata_file.with_name(f".{metadata_file.name}.unfinished")


def was_begun(metadata_file: Path, table: TableName) -> bool:
    """Whether a publication of this table was stopped."""
    with suppress(OSError, ValueError):
        found = json.loads(unfinished_file(metadata_file).read_text())
        return isinstance(found, dict) and found.get("table") == table.address
    return False


class Unfinished:
    """The upload session and the temporary table of an earlier try with the same plan, if any."""

    def __init__(self, metadata_file: Path, table: TableName, plan: str) -> None:
        self._path, self._plan = unfinished_file(metadata_file), plan
        self._table = table
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

    @property
    def is_placed(self) -> bool:
        """Whether the rows are where they belong, and only the metadata is missing."""
        return bool(self._found.get("placed"))

    def remember(self, session_id: str, staging: TableName, rows_before: int) -> None:
        """Writes down what the next try needs."""
        self._found = {
            "plan": self._plan,
            "table": self._table.address,
            "session": session_id,
            "staging": staging.address,
            "rows_before": rows_before,
        }
        self._write()

    def place(self) -> None:
        """The rows are where they belong."""
        self._found["placed"] = True
        self._write()

    def _write(self) -> None:
        temporary = self._path.with_name(f"{self._path.name}.new")
        temporary.write_text(json.dumps(self._found))
        temporary.replace(self._path)

    def forget(self) -> None:
        """Nothing is unfinished any more."""
        self._path.unlink(missing_ok=True)
