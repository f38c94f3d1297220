"""The objects that make a store, told apart by name.

    chunks/ manifests/ ...   what versions are made of, under names that nothing else ever has
    refs/ or repo            which of them are a version: written anew with every change
    lineage/                 which runs used which version, see `lineage.py`

Anything else in a folder is not ours: it is neither copied nor removed. The writer's lock is no
part of a store either.
"""

import re
from collections.abc import Iterable

LINEAGE = "lineage/"
_CONTENT = ("attributes/", "chunks/", "manifests/", "snapshots/", "transactions/", LINEAGE)
_REFERENCES = ("config.yaml", "refs/", "repo")
_BACKUPS = ("overwritten/",)
"""References as they were, kept by Icechunk 2 in case that one is damaged."""
WHOLE = "repo"
"""The one object that Icechunk 2 keeps all references in."""
_CURRENT = ("refs/branch.main/", WHOLE)
"""Without which nothing opens."""
_BRANCH = re.compile(r"refs/branch\.([^/]+)/ref\.json")


def is_content(name: str) -> bool:
    """Whether an object is what references lead to, or a note."""
    return name.startswith(_CONTENT) and not _is_partial(name)


def is_edited(name: str) -> bool:
    """Whether content may be written anew: an expiry takes the parents out of snapshots."""
    return name.startswith(("snapshots/", LINEAGE))


def is_reference(name: str) -> bool:
    """Whether an object says what belongs together."""
    return _stands_under(name, _REFERENCES) and not _is_partial(name)


def branch_of(name: str) -> str | None:
    """The branch that a reference is, where each is an object of its own."""
    found = _BRANCH.fullmatch(name)
    return found and found[1]


def is_ours(name: str) -> bool:
    """Whether a store may have left an object of that name."""
    return name.startswith((*_CONTENT, *_BACKUPS)) or _stands_under(name, _REFERENCES)


def holds_current(names: Iterable[str]) -> bool:
    """Whether objects of these names can be opened as a store."""
    return any(_stands_under(name, _CURRENT) and not _is_partial(name) for name in names)


def in_order(references: Iterable[str]) -> list[str]:
    """Names of references as they are written: the one without which nothing opens comes last."""
    return sorted(references, key=lambda name: (_stands_under(name, _CURRENT), name))


def _stands_under(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or (place[-1] == "/" and name.startswith(place)) for place in places)


def _is_partial(name: str) -> bool:
    """What a process left that died while it wrote: see `Folder.write`."""
    last = name.rpartition("/")[2]
    return last.startswith(".") or last.endswith(".partial")
