"""The manifest: what made a version, kept inside that version as plain JSON."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from flowpatch.errors import StoreDamagedError, StoreFormatError
from flowpatch.series.dense import RecordCounts
from flowpatch.series.nodes import NodeTable
from flowpatch.series.quality import Quality
from flowpatch.series.splits import Splits
from flowpatch.series.statistics import Statistics
from flowpatch.time_axis import TimeAxis

FORMAT = 2
"""Format number of a store; docs/store-format.md says what each number means."""
_HASH = "manifest_hash"


@dataclass(frozen=True)
class Manifest:
    """What a version holds and where it came from.

    `parent` is the version before it, None for a first one. `recipe` is the settings of the build,
    `source` the identity of the raw records, `day_hashes` one hash for each day of the series,
    `content_hash` one for all content: equal exactly when two versions hold the same series, nodes,
    splits and statistics, whatever built them.
    """

    code_version: str
    parent: str | None
    recipe: dict[str, Any]
    source: dict[str, Any]
    axis: TimeAxis
    key_columns: tuple[str, ...]
    nodes: int
    input_len: int
    output_len: int
    counts: RecordCounts
    nodes_without_coordinates: int
    quality: Quality
    splits: Splits
    statistics: Statistics
    day_hashes: tuple[str, ...]
    content_hash: str
    format: int = field(default_factory=lambda: FORMAT)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads; every value is plain JSON."""
        content = {
            "format": self.format,
            "code_version": self.code_version,
            "parent": self.parent,
            "recipe": self.recipe,
            "source": self.source,
            "axis": self.axis.to_json(),
            "key_columns": list(self.key_columns),
            "nodes": self.nodes,
            "input_len": self.input_len,
            "output_len": self.output_len,
            "counts": asdict(self.counts),
            "nodes_without_coordinates": self.nodes_without_coordinates,
            "quality": self.quality.to_json(),
            "splits": self.splits.to_json(),
            "statistics": self.statistics.to_json(),
            "day_hashes": list(self.day_hashes),
            "content_hash": self.content_hash,
        }
        return {**content, _HASH: hash_json(content, _HASH)}

    @classmethod
    def from_json(cls, content: dict[str, Any], place: str) -> "Manifest":
        """The manifest that `to_json` described; `place` is named in errors.

        Raises:
            StoreFormatError: a newer flowpatch wrote it.
            StoreDamagedError: a part is missing or of the wrong type.
        """
        found = content.get("format")
        if isinstance(found, int) and found > FORMAT:
            raise StoreFormatError(
                f"'{place}' has store format {found}, written by flowpatch "
                f"{content.get('code_version', 'of a later version')}; this flowpatch reads "
                f"formats up to {FORMAT}. Upgrade: pip install --upgrade flowpatch."
            )
        try:
            manifest = cls(
                code_version=content["code_version"],
                # Format 1 does not tell.
                parent=content.get("parent"),
                recipe=content["recipe"],
                source=content["source"],
                axis=TimeAxis.from_json(content["axis"]),
                key_columns=tuple(content["key_columns"]),
                nodes=content["nodes"],
                input_len=content["input_len"],
                output_len=content["output_len"],
                counts=RecordCounts(**content["counts"]),
                nodes_without_coordinates=content["nodes_without_coordinates"],
                quality=Quality(**content["quality"]),
                splits=Splits.from_json(content["splits"]),
                statistics=Statistics(**content["statistics"]),
                day_hashes=tuple(content["day_hashes"]),
                content_hash=content["content_hash"],
                format=content["format"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StoreDamagedError(f"The manifest of '{place}' is damaged: {error!r}.") from error
        if not isinstance(manifest.recipe, dict) or not isinstance(manifest.source, dict):
            raise StoreDamagedError(f"The manifest of '{place}' is damaged: it tells no recipe.")
        # Icechunk keeps attributes without a checksum; format 1 had none of its own either.
        is_told = manifest.format > 1 or _HASH in content
        if is_told and content.get(_HASH) != hash_json(content, _HASH):
            raise StoreDamagedError(
                f"The manifest of '{place}' is damaged: it is not what was written. Take an older "
                "version or a copy, or build it again in another folder."
            )
        return manifest


def hash_json(content: dict[str, Any], but: str) -> str:
    """SHA-256 over all of a JSON object but the hash itself, which is kept in it as `but`."""
    others = {key: value for key, value in content.items() if key != but}
    return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()


def hash_content(
    axis: TimeAxis,
    nodes: NodeTable,
    splits: Splits,
    statistics: Statistics,
    day_hashes: Sequence[str],
) -> str:
    """One SHA-256 over everything that training reads from a version."""
    parts = [
        axis.to_json(),
        nodes.fingerprint(),
        splits.to_json(),
        statistics.to_json(),
        list(day_hashes),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
