"""`flowpatch samples tag | untag | rollback | expire`: which versions count, and for how long."""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from flowpatch.cli.groups import AsJson
from flowpatch.cli.printing import print_json, show, size_of, visible

if TYPE_CHECKING:
    from flowpatch.catalogue.expiry import Expiry


def tag(store: str, name: str, *, version: str | None = None, as_json: AsJson = False) -> None:
    """Give a version a name. It keeps the version from expiring, and may be moved to another.

    Parameters
    ----------
    store
        The sample store.
    name
        The tag: letters, digits, '.', '_' and '-'.
    version
        Version to name; by default the current one.
    as_json
        Print JSON instead of a line.
    """
    # Imported here: --help must not wait for the engines.
    from flowpatch.catalogue.changing import tag

    done = tag(store, name, version)
    if as_json:
        print_json(done.to_json())
    elif done.before is None:
        show(f"Tag '{name}' names {done.now}.")
    elif done.before == done.now:
        show(f"Tag '{name}' names {done.now} already.")
    else:
        show(f"Tag '{name}' moved from {done.before} to {done.now}.")


def untag(store: str, name: str, *, as_json: AsJson = False) -> None:
    """Take a name away. The version stays, until it expires.

    Parameters
    ----------
    store
        The sample store.
    name
        The tag.
    as_json
        Print JSON instead of a line.
    """
    from flowpatch.catalogue.changing import untag

    done = untag(store, name)
    if as_json:
        print_json(done.to_json())
    else:
        show(f"Tag '{name}' no longer names {done.before}.")


def rollback(store: str, version: str, *, as_json: AsJson = False) -> None:
    """Make an older version the current one. Nothing is lost: the newer ones stay.

    Parameters
    ----------
    store
        The sample store.
    version
        Version to go back to: its id, the beginning of it, or a tag.
    as_json
        Print JSON instead of lines.
    """
    from flowpatch.catalogue.changing import rollback

    done = rollback(store, version)
    if as_json:
        print_json(done.to_json())
    elif done.before == done.now:
        show(f"{done.now.version} is the current version already.")
    else:
        show(
            f"The current version is {done.now.version}; it was {done.before.version}.",
            visible(f"To go back: flowpatch samples rollback {quote(store)} {done.before.version}"),
        )


def expire(
    store: str,
    *,
    keep: int | None = None,
    older_than: float | None = None,
    runs: Path | None = None,
    dry_run: bool = False,
    as_json: AsJson = False,
) -> None:
    """Remove old versions that nobody needs, and what stopped builds left.

    The current version stays, those that have a tag, and those that a run in --runs was trained on.

    Parameters
    ----------
    store
        The sample store.
    keep
        Keep the newest so many versions.
    older_than
        Keep versions that are not older than so many days. With --keep, only versions that neither
        of them keeps go.
    runs
        Folder in which to look for runs, at any depth.
    dry_run
        Say what would go, and remove nothing.
    as_json
        Print JSON instead of lines.
    """
    from flowpatch.catalogue.expiry import Rule, expire
    from flowpatch.training.run_search import versions_in_use

    rule = Rule(keep, older_than)
    needed_by = {} if runs is None else versions_in_use(runs)
    done = expire(store, rule, needed_by, is_dry_run=dry_run)
    if as_json:
        print_json(done.to_json())
    else:
        _print_expiry(done)


def _print_expiry(done: "Expiry") -> None:
    goes, frees = ("would go", "") if done.is_dry_run else ("is gone", "")
    if done.bytes_freed is not None:
        frees = f"; {size_of(done.bytes_freed)} freed"
    gone = [f"{goes}: {info.version}, {info.written_at:%Y-%m-%d %H:%M} UTC" for info in done.gone]
    left = [f"{goes}: what a stopped build left"] if done.has_unfinished else []
    kept = [f"stays: {kept.info.version}, {', '.join(kept.reasons)}" for kept in done.kept]
    summary = f"{len(done.gone):,} of {len(done.gone) + len(done.kept):,} versions {goes}{frees}."
    show(*map(visible, [*gone, *left, *kept, summary]))
