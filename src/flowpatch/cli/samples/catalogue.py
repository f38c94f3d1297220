"""`flowpatch samples list | show | log`: which stores there are, and which versions of each."""

from typing import TYPE_CHECKING, Any

from flowpatch.cli.groups import AsJson
from flowpatch.cli.inspect import describe, print_description
from flowpatch.cli.printing import print_json, show, size_of, some, visible

if TYPE_CHECKING:
    from flowpatch.catalogue.changes import Changes
    from flowpatch.catalogue.listing import Entry, LogEntry
    from flowpatch.store.sample_store import SampleStore

_PARTS_SHOWN = 4
"""So many files or partitions of the source are named; more are counted."""


def list_stores(place: str, *, as_json: AsJson = False) -> None:
    """List the sample stores of a folder or prefix, damaged and unfinished ones too.

    Parameters
    ----------
    place
        A store, or a folder or s3://BUCKET/PATH of stores.
    as_json
        Print JSON instead of a table.
    """
    # Imported here: --help must not wait for the engines.
    from flowpatch.catalogue import listing

    entries = listing.list_stores(place)
    if as_json:
        print_json({"path": place, "stores": [entry.to_json() for entry in entries]})
    elif entries:
        _print_entries(entries)
    else:
        show(visible(f"No sample store in {place}."))


def show_version(store: str, *, version: str | None = None, as_json: AsJson = False) -> None:
    """Show a version: what it holds, where it came from, its tags, and the runs that used it.

    Parameters
    ----------
    store
        The sample store.
    version
        Version to show, or a tag; by default the current one.
    as_json
        Print JSON instead of tables.
    """
    from flowpatch.store.sample_store import open_store

    content = _describe(open_store(store, version))
    if as_json:
        print_json(content)
    else:
        print_description(content, _sections(content))


def log_versions(store: str, *, as_json: AsJson = False) -> None:
    """List the versions of a store, newest first, and what each changed.

    Parameters
    ----------
    store
        The sample store.
    as_json
        Print JSON instead of a table.
    """
    from flowpatch.catalogue.listing import log

    entries = log(store)
    if as_json:
        print_json({"path": store, "versions": [entry.to_json() for entry in entries]})
    else:
        _print_log(store, entries)


def _changed(changes: "Changes") -> list[str]:
    """What changed, one line for each kind of change."""
    kinds = {
        "days added": changes.days_added,
        "days dropped": changes.days_dropped,
        "days rewritten": changes.days_rewritten or (),
        "nodes added": changes.nodes_added,
        "nodes gone": changes.nodes_gone,
        "nodes moved": changes.nodes_moved,
    }
    found = [f"{kind}: {len(names):,} ({some(names)})" for kind, names in kinds.items() if names]
    if changes.days_rewritten is None:
        found.append("days before and now have other nodes or steps: see samples compare")
    return found or ["no day and no node"]


def _print_entries(entries: "list[Entry]") -> None:
    from rich.table import Table

    table = Table()
    for name in ("store", "version", "period"):
        table.add_column(name, overflow="fold")
    for name in ("versions", "nodes", "coverage", "size"):
        table.add_column(name, justify="right")
    for name in ("tags", "last written"):
        table.add_column(name, overflow="fold")
    for entry in entries:
        table.add_row(*(visible(cell) for cell in _row(entry)))
    show(table)


def _row(entry: "Entry") -> tuple[str, ...]:
    size = size_of(entry.bytes)
    if entry.status != "ok":
        state = {"newer": "of a newer flowpatch"}.get(entry.status, entry.status)
        return entry.name, state, entry.problem or "", "", "", "", size, "", ""
    written = f"{entry.written_at:%Y-%m-%d %H:%M} UTC" if entry.written_at else ""
    return (
        entry.name,
        entry.version or "",
        f"{entry.start} to {entry.stop}, {entry.days} days of {entry.step_minutes} min",
        f"{entry.versions:,}",
        f"{entry.nodes:,}",
        f"{entry.coverage:.2%}",
        size,
        ", ".join(entry.tags or {}),
        written,
    )


def _describe(store: "SampleStore") -> dict[str, Any]:
    from flowpatch.catalogue.lineage import read_notes
    from flowpatch.catalogue.listing import tags_of
    from flowpatch.store.repository import open_repository, reading

    repository = open_repository(store.place)
    with reading(store.place):
        notes = read_notes(store.place)
    return {
        **describe(store),
        "parent": store.manifest.parent,
        "tags": [*tags_of(repository.tags(), store.version)],
        "current": repository.find().version == store.version,
        "runs": [note.to_json() for note in notes if note.version == store.version],
    }


def _sections(content: dict[str, Any]) -> dict[str, list[str]]:
    """What `inspect` does not show."""
    current = "the current one" if content["current"] else "not the current one"
    runs = [
        f"{note['run']} on {note['host']}, {note['event']} {note['at']}"
        + (f", by tag {note['tag']}" if note["tag"] else "")
        for note in content["runs"]
    ]
    return {
        "version": [f"{content['version']}, {current}", f"made by flowpatch {_made_by(content)}"],
        "parent": [content["parent"] or "none"],
        "tags": [", ".join(content["tags"]) or "none"],
        "source": _source_lines(content["source"]),
        "runs": runs or ["none known"],
    }


def _made_by(content: dict[str, Any]) -> str:
    return f"{content['code_version']}, format {content['format']}"


def _source_lines(source: dict[str, Any]) -> list[str]:
    # Imported here: --help must not wait for the engines.
    from flowpatch.preprocessing.parts import PARTS

    lines = []
    # What the records are made of is told by the parts, where there are any.
    shown = {
        name: value for name, value in source.items() if name != "records" or PARTS not in source
    }
    for name, value in shown.items():
        parts = [*map(_part, value)] if isinstance(value, list) else [_part(value)]
        lines.append(f"{name}: {parts[0] if parts else 'none'}")
        lines += [f"  {part}" for part in parts[1:_PARTS_SHOWN]]
        if len(parts) > _PARTS_SHOWN:
            lines.append(f"  and {len(parts) - _PARTS_SHOWN:,} more")
    return lines


def _part(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    if value.keys() >= {"name", "survey"}:
        survey = value["survey"] or {}
        place = value["name"] or "the whole table"
        return (
            f"{place}, {survey.get('records', 0):,} records, "
            f"{survey.get('first')} to {survey.get('last')}"
        )
    return ", ".join(f"{name} {part}" for name, part in value.items())


def _print_log(store: str, entries: "list[LogEntry]") -> None:
    from rich.table import Table

    table = Table(title=f"Versions of {visible(store)}", title_justify="left")
    for name in ("version", "written", "tags", "parent", "period"):
        table.add_column(name, overflow="fold")
    for name in ("nodes", "cells", "coverage"):
        table.add_column(name, justify="right")
    table.add_column("changes", overflow="fold")
    for entry in entries:
        table.add_row(*(visible(cell) for cell in _log_row(entry)))
    show(table)


def _log_row(entry: "LogEntry") -> tuple[str, ...]:
    period = entry.period
    gone = "" if entry.parent_is_there or entry.info.parent is None else " (expired)"
    return (
        entry.info.version + (" current" if entry.is_current else ""),
        f"{entry.info.written_at:%Y-%m-%d %H:%M:%S} UTC",
        ", ".join(entry.tags),
        f"{entry.info.parent or 'none'}{gone}",
        f"{period['start']} to {period['stop']}, {period['days']} days",
        f"{entry.nodes:,}",
        f"{entry.cells:,}",
        f"{entry.coverage:.2%}",
        "" if entry.changes is None else "\n".join(_changed(entry.changes)),
    )
