"""`flowpatch inspect`: what a sample store holds, as tables or as JSON."""

import json
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from flowpatch.cli.printing import show, size_of, visible

if TYPE_CHECKING:
    from flowpatch.store.sample_store import SampleStore


def inspect(
    store: str,
    *,
    version: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Show what a sample store holds: period, nodes, coverage, quality, splits, versions.

    Parameters
    ----------
    store
        The sample store: a folder, or s3://BUCKET/PATH.
    version
        Version to show; by default the newest.
    as_json
        Print JSON instead of tables.
    """
    # Imported here: --help must not wait for the engines.
    from flowpatch.store.sample_store import open_store

    content = describe(open_store(store, version))
    if as_json:
        print(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        print_description(content)


def describe(store: "SampleStore") -> dict[str, Any]:
    """Everything that `inspect` shows, as plain values."""
    manifest, axis = store.manifest, store.axis
    content = manifest.to_json()
    changes = [
        {
            "kind": change.kind,
            "from": str(axis.instant_of(change.first_step)),
            "to": str(axis.instant_of(change.stop_step)),
        }
        for change in axis.clock_changes
    ]
    splits = {
        name: {
            "first": str(axis.instant_of(bounds[0])),
            "stop": str(axis.instant_of(bounds[1])),
            "steps": bounds[1] - bounds[0],
        }
        for name in ("train", "val", "test")
        if (bounds := store.splits.bounds(name))
    }
    latitude, longitude = store.nodes.latitude, store.nodes.longitude
    return {
        "path": str(store.place),
        "version": store.version,
        "content_hash": manifest.content_hash,
        "format": content["format"],
        "code_version": manifest.code_version,
        "period": {**axis.to_json(), "days": axis.days, "clock_changes": changes},
        "nodes": {
            "count": len(store.nodes),
            "key_columns": list(manifest.key_columns),
            "without_coordinates": manifest.nodes_without_coordinates,
            "latitude": [float(latitude.min()), float(latitude.max())],
            "longitude": [float(longitude.min()), float(longitude.max())],
        },
        "records": content["counts"],
        "coverage": manifest.quality.coverage,
        "quality": content["quality"],
        "splits": splits,
        "statistics": content["statistics"],
        "window": {"input_len": manifest.input_len, "output_len": manifest.output_len},
        "sizes": {
            "bytes_on_disk": store.bytes_on_disk(),
            "bytes_in_memory": 4 * axis.length * len(store.nodes),
        },
        "recipe": manifest.recipe,
        "source": manifest.source,
        "versions": [
            {
                "version": info.version,
                "written_at": info.written_at.isoformat(timespec="seconds"),
                "message": info.message,
                "content_hash": info.content_hash,
            }
            for info in store.versions()
        ],
    }


def print_description(content: dict[str, Any], more: dict[str, list[str]] | None = None) -> None:
    """Prints what `describe` gave, and more lines by heading."""
    from rich.table import Table

    title = f"Sample store {visible(content['path'])}"
    table = Table(show_header=False, title=title, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, lines in {**_sections(content), **(more or {})}.items():
        table.add_row(name, "\n".join(map(visible, lines)))
    show(table)


def _sections(content: dict[str, Any]) -> dict[str, list[str]]:
    period, nodes, quality = content["period"], content["nodes"], content["quality"]
    records, statistics, sizes = content["records"], content["statistics"], content["sizes"]
    dropped = [
        f"{count:,} {cause.replace('_', ' ')}"
        for cause, count in records.items()
        if count and cause not in ("read", "used")
    ]
    return {
        "period": [
            f"{period['start']} to {period['stop']}, {period['time_zone']}",
            f"{period['days']} days, {period['length']:,} steps of {period['step_minutes']} min",
            *(f"clock {c['kind']}: {c['from']} to {c['to']}" for c in period["clock_changes"]),
        ],
        "nodes": [
            f"{nodes['count']:,} by {', '.join(nodes['key_columns'])}"
            + (
                f", {nodes['without_coordinates']:,} more without coordinates left out"
                if nodes["without_coordinates"]
                else ""
            ),
            "latitude {:.4f} to {:.4f}, longitude {:.4f} to {:.4f}".format(
                *nodes["latitude"], *nodes["longitude"]
            ),
        ],
        "records": [
            f"{records['read']:,} read, {records['used']:,} used",
            *(dropped or ["none dropped"]),
        ],
        "coverage": [
            f"{content['coverage']:.2%} of cells observed",
            f"lowest on {quality['lowest_day']}: {quality['lowest_day_coverage']:.2%}",
        ],
        "quality": [
            f"values {quality['minimum']:g} to {quality['maximum']:g}",
            f"{quality['zeros']:,} zeros, {quality['negatives']:,} negative",
            f"{quality['stuck']:,} cells stuck for 6 hours or more, on {quality['stuck_nodes']:,} "
            "nodes",
            f"{quality['silent_nodes']:,} nodes without any value",
            f"{quality['network_gaps']:,} gaps over the whole network, the longest "
            f"{quality['longest_network_gap_steps']:,} steps",
        ],
        "splits": [
            f"{name:5}  {split['first']} to {split['stop']}  {split['steps']:,} steps"
            for name, split in content["splits"].items()
        ],
        "statistics": [
            f"mean {statistics['mean']:.4f}, deviation {statistics['deviation']:.4f} over "
            f"{statistics['observed']:,} training values"
        ],
        "window": ["{input_len} -> {output_len} steps".format(**content["window"])],
        "size": [
            f"{size_of(sizes['bytes_on_disk'])} on disk, all versions together; "
            f"{size_of(sizes['bytes_in_memory'])} in memory"
        ],
        "versions": [
            f"{info['version']}  {info['written_at']}  {info['message']}"
            for info in content["versions"]
        ],
        "content hash": [content["content_hash"]],
    }
