"""A version that is being written: which days of it are safe, and what it is made from.

The draft is kept beside the blocks, in a commit that no reader looks at. From it a writer that died
is followed by one that goes on with the first day that is not safe.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

from flowpatch.errors import StoreDamagedError
from flowpatch.series.dense import COUNTED_BY_DAY
from flowpatch.store.manifest import FORMAT, hash_json

ATTRIBUTE = "flowpatch_unfinished"
_HASH = "draft_hash"
_MOST_RECORDS = 2**62
"""Of a day: more do not fit the array that they are counted in."""


@dataclass(frozen=True)
class Origin:
    """What a version is made from; equal for two writers exactly if one can go on for the other.

    `recipe` is the settings, `source` the identity of the raw records, `axis` and `nodes` those of
    the series, the latter as a fingerprint, `base` the version that it starts from.
    """

    recipe: dict[str, Any]
    source: dict[str, Any]
    axis: dict[str, Any]
    nodes: str
    base: str | None

    def differences(self, other: "Origin") -> list[str]:
        """The names of the parts that differ, settings of the recipe one by one."""
        mine, theirs = (json.loads(json.dumps(asdict(one))) for one in (self, other))
        recipes = mine.pop("recipe"), theirs.pop("recipe")
        found = [name for name in mine if mine[name] != theirs[name]]
        settings = {**recipes[0], **recipes[1]}
        return found + [
            f"--{name.replace('_', '-')}"
            for name in settings
            if recipes[0].get(name) != recipes[1].get(name)
        ]


@dataclass(frozen=True)
class Draft:
    """An origin, and the days that are safe: the hash of each one's values, and its records."""

    origin: Origin
    day_hashes: dict[int, str]
    day_counts: dict[int, list[int]]

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads; every value is plain JSON."""
        content = {"format": FORMAT, **asdict(self)}
        # As attributes are kept: with text for keys.
        content = json.loads(json.dumps(content))
        return {**content, _HASH: hash_json(content, _HASH)}

    @classmethod
    def from_json(cls, content: Any, place: str) -> "Draft":
        """The draft that `to_json` described; `place` is named in errors.

        Raises:
            StoreDamagedError: it is no draft, or one of another flowpatch.
        """
        try:
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}")
            if content[_HASH] != hash_json(content, _HASH):
                raise ValueError("it is not what was written")
            draft = cls(
                Origin(**content["origin"]),
                {int(day): str(known) for day, known in content["day_hashes"].items()},
                {int(day): list(counts) for day, counts in content["day_counts"].items()},
            )
            draft._check()
            return draft
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreDamagedError(
                f"What a stopped build left in '{place}' cannot be gone on with: {error!r}. Run "
                "the command without --resume."
            ) from error

    def _check(self) -> None:
        """Raises ValueError for what no writer leaves."""
        origin = self.origin
        if not all(isinstance(one, dict) for one in (origin.recipe, origin.source, origin.axis)):
            raise ValueError("an origin of another kind")
        if self.day_hashes.keys() != self.day_counts.keys():
            raise ValueError("days without counts")
        for counts in self.day_counts.values():
            numbers = all(isinstance(n, int) and 0 <= n <= _MOST_RECORDS for n in counts)
            if len(counts) != len(COUNTED_BY_DAY) or not numbers:
                raise ValueError(f"counts {counts!r}")
