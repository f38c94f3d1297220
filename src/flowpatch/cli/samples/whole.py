"""`flowpatch samples verify | copy | remove`: a store as a whole."""

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flowpatch.cli.groups import AsJson
from flowpatch.cli.printing import print_json, show, size_of, visible
from flowpatch.errors import SettingsError, StoppedByUser

if TYPE_CHECKING:
    from flowpatch.catalogue.removal import Removable
    from flowpatch.catalogue.verification import Verification


def verify(
    store: str,
    *,
    version: str | None = None,
    all_versions: Annotated[bool, Parameter(name="--all", negative="")] = False,
    as_json: AsJson = False,
) -> None:
    """Read everything of a version and check it: values, nodes, splits, statistics, hashes.

    Parameters
    ----------
    store
        The sample store.
    version
        Version to verify, or a tag; by default the current one.
    all_versions
        Verify all versions.
    as_json
        Print JSON instead of lines.
    """
    if all_versions and version is not None:
        raise SettingsError("Give --version or --all, not both.")
    # Imported here: --help must not wait for the engines.
    from flowpatch.catalogue.verification import verify

    done = verify(store, version, all_versions=all_versions)
    if as_json:
        print_json({"path": store, "versions": [one.to_json() for one in done]})
    else:
        show(*(visible(_whole(one)) for one in done))


def copy(
    store: str,
    destination: str,
    *,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
) -> None:
    """Copy a store, with all versions, tags and notes of runs, and verify the copy.

    An interrupted copy is no store; the same command goes on with it.

    Parameters
    ----------
    store
        The sample store.
    destination
        Folder or s3://BUCKET/PATH of the copy.
    overwrite
        Bring a store that is there to the same state, as a backup that is made again. Versions
        that only it has are lost.
    as_json
        Print JSON instead of lines.
    """
    from flowpatch.catalogue.copying import copy_store

    done = copy_store(store, destination, overwrite=overwrite)
    if as_json:
        print_json(done.to_json())
    else:
        tags = f", tags {', '.join(done.tags)}" if done.tags else ""
        show(
            visible(f"{done.destination}: {done.versions:,} versions{tags}"),
            f"{done.objects_written:,} objects written, {size_of(done.bytes_written)}",
            _whole(done.verified),
        )


def remove(
    store: str,
    *,
    yes: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove a store, with all versions. It asks first.

    Parameters
    ----------
    store
        The sample store.
    yes
        Do not ask.
    as_json
        Print JSON instead of lines.
    """
    from flowpatch.catalogue.removal import removable, remove

    found = removable(store)
    if not yes:
        _ask(found)
    remove(found)
    if as_json:
        print_json(found.to_json())
    else:
        show(visible(f"Removed {found.place}: {_lost(found)}."))


def _whole(done: "Verification") -> str:
    return f"{done.version} is whole: checked {', '.join(done.checked)}"


def _ask(found: "Removable") -> None:
    if not sys.stdin.isatty():
        raise SettingsError(
            f"Nobody can be asked here whether to remove '{found.place}', which has "
            f"{_lost(found)}. Say so with --yes."
        )
    runs = [f"  used by {note.run} on {note.host}, {note.at}" for note in found.runs]
    # Not on standard output, which may be piped on.
    print(visible("\n".join([f"{found.place} has {_lost(found)}", *runs])), file=sys.stderr)
    print("Remove it? Type yes: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() != "yes":
        raise StoppedByUser("Nothing was removed.")


def _lost(found: "Removable") -> str:
    if found.damage is not None:
        return f"{size_of(found.bytes)}, damaged"
    versions = "1 version" if found.versions == 1 else f"{found.versions:,} versions"
    tags = f", tags {', '.join(found.tags)}" if found.tags else ""
    used = len({(note.run, note.host) for note in found.runs})
    runs = "run" if used == 1 else "runs"
    return f"{versions}{tags}, {size_of(found.bytes)}; used by {used:,} known {runs}"
