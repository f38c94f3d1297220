"""`flowpatch samples compare`: what differs between two versions."""

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from flowpatch.cli.groups import AsJson
from flowpatch.cli.printing import print_json, show, some, visible

if TYPE_CHECKING:
    from flowpatch.catalogue.comparison import Comparison


def compare(
    store: str,
    before: str | None = None,
    now: str | None = None,
    *,
    other: Annotated[str | None, Parameter(name="--with")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what differs between two versions: days, nodes, cells, statistics, splits, settings.

    Parameters
    ----------
    store
        The sample store.
    before
        The first version; by default the parent of the second, or with --with the current one.
    now
        The second version; by default the current one.
    other
        Another store, in which to look for the second version.
    as_json
        Print JSON instead of a table.
    """
    # Imported here: --help must not wait for the engines.
    from flowpatch.catalogue.comparison import compare
    from flowpatch.errors import StoreNotFoundError
    from flowpatch.store.sample_store import open_store

    second = open_store(other or store, now)
    if before is None and other is None:
        before = second.manifest.parent
        if before is None:
            raise StoreNotFoundError(
                f"Version {second.version} of '{second.place}' has no parent to compare it with. "
                "Name two versions: flowpatch samples log shows them."
            )
    found = compare(open_store(store, before), second)
    if as_json:
        print_json(found.to_json())
    else:
        _print(found)


def _print(found: "Comparison") -> None:
    from rich.table import Table

    table = Table(show_header=True)
    table.add_column("", style="bold")
    for side, title in ((found.before, "before"), (found.now, "now")):
        table.add_column(visible(f"{title}: {side.version} of {side.place}"), overflow="fold")
    for name, before, now in _rows(found):
        table.add_row(visible(name), visible(before), visible(now))
    show(table, *map(visible, _lines(found)))


def _rows(found: "Comparison") -> list[tuple[str, str, str]]:
    sides = (found.before, found.now)
    rows: list[tuple[str, ...]] = [
        ("period", *(f"{s.period['start']} to {s.period['stop']}" for s in sides)),
        ("step", *(f"{s.period['step_minutes']} min, {s.period['time_zone']}" for s in sides)),
        ("nodes", *(f"{s.nodes:,}" for s in sides)),
        ("coverage", *(f"{s.coverage:.4%}" for s in sides)),
        ("mean", *(f"{s.statistics['mean']:.6g}" for s in sides)),
        ("deviation", *(f"{s.statistics['deviation']:.6g}" for s in sides)),
        ("training values", *(f"{s.statistics['observed']:,}" for s in sides)),
        *((f"splits, {name}", *(s.splits[name] for s in sides)) for name in found.now.splits),
        *((f"--{name.replace('_', '-')}", *map(str, two)) for name, two in found.settings.items()),
    ]
    return [(name, before, now) for name, before, now in rows]


def _lines(found: "Comparison") -> list[str]:
    changes, cells = found.changes, found.cells
    kinds: dict[str, Any] = {
        "days added": changes.days_added,
        "days dropped": changes.days_dropped,
        "days changed": found.days_changed or (),
        "nodes added": changes.nodes_added,
        "nodes gone": changes.nodes_gone,
        "nodes moved": changes.nodes_moved,
    }
    lines = [f"{kind}: {len(names):,} ({some(names)})" for kind, names in kinds.items() if names]
    if cells is None:
        lines.append("Cells are not compared: the steps have other lengths.")
    else:
        lines.append(
            f"{cells.differing:,} of {cells.compared:,} common cells differ ({cells.share:.4%}): "
            f"{cells.appeared:,} observed now only, {cells.vanished:,} before only, "
            f"{cells.changed:,} with another value, by up to {cells.largest_change:g}"
        )
    lines.append("The content is the same." if found.is_same else "The content is not the same.")
    return lines
