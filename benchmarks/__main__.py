"""`python -m benchmarks [NAME ...]`: measures rows, saves them, and refreshes docs/benchmarks.md.

Without a name all rows are measured, which takes about ten minutes on two cores. `maxcompute`,
`accuracy`, `streaming`, `scaling` and `wide` stand alone: they take long, and are measured only
when they are named.
"""

import argparse
import importlib
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import report
from benchmarks.rows import ROWS, FoundRow, Row, row_of
from benchmarks.workshop import Workshop, say

ALONE = ("maxcompute", "accuracy", "streaming", "scaling", "wide")


def main() -> None:
    """Measures what is named."""
    flags = parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for name in flags.names:
            if name in ALONE:
                measure_alone(name, quick=flags.quick)
        if rows := [row_of(name) for name in flags.names if name not in ALONE]:
            measure_rows(rows, flags)
        elif flags.table:
            report.refresh_page(report.RESULTS, report.PAGE)
    except KeyboardInterrupt:
        sys.exit("Stopped; nothing was left behind.")
    except (OSError, RuntimeError) as error:
        sys.exit(str(error))


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [row.name for row in ROWS]
    allowed = f"rows: {', '.join(names)}; or alone: {', '.join(ALONE)}"
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{allowed}. Default: all rows.")
    parser.add_argument("--quick", action="store_true", help="a smoke run; nothing is saved")
    parser.add_argument(
        "--work", type=Path, metavar="FOLDER", help="keep and reuse the simulated cities here"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write what was measured to this file"
    )
    parser.add_argument(
        "--table", action="store_true", help="only write the table again, from saved results"
    )
    flags = parser.parse_args()
    unknown = [name for name in flags.names if name not in (*names, *ALONE)]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}. Allowed are {allowed}.")
    if flags.table and (flags.names or flags.quick or flags.work or flags.json):
        parser.error("--table measures nothing: give it alone.")
    if not flags.names and not flags.table:
        flags.names = names
    return flags


def measure_rows(rows: list[Row], flags: argparse.Namespace) -> None:
    """Measures rows in their order, and prints and saves what was found."""
    here = report.machine()
    contents = {}
    with work_folder(flags.work) as folder:
        workshop = Workshop(folder, flags.quick)
        workshop.check_disk(rows)
        for number, row in enumerate(rows, 1):
            say(f"{number}/{len(rows)} {row.name}: {row.title}")
            started = time.monotonic()
            contents[row.name] = report.row_content(row, measure(row, workshop), here)
            say(f"    {time.monotonic() - started:.0f} s")
            if not flags.quick:
                # Row by row, so that stopping loses none that is done.
                report.save({row.name: contents[row.name]}, here, report.RESULTS)
    found = {"machine": here, "quick": flags.quick, "rows": contents}
    if flags.json:
        flags.json.write_text(json.dumps(found, indent=2) + "\n")
    print(report.render([found], rows))
    if not flags.quick:
        report.refresh_page(report.RESULTS, report.PAGE)


def measure(row: Row, workshop: Workshop) -> FoundRow:
    """Everything that a row declares.

    Raises:
        LookupError: it found other figures than it declares.
    """
    module, name = row.measure.split(":")
    found: FoundRow = getattr(importlib.import_module(module), name)(workshop)
    declared = {figure.name for figure in row.figures}
    if found.keys() != declared:
        raise LookupError(f"row '{row.name}' found {sorted(found)}, declared {sorted(declared)}")
    return found


@contextmanager
def work_folder(kept: Path | None) -> Iterator[Path]:
    """The folder to work in: one that is kept, or one that is removed at the end."""
    if kept:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="flowpatch-bench-") as folder:
        yield Path(folder)


def measure_alone(name: str, *, quick: bool) -> None:
    """A benchmark with results of a form and a file of its own."""
    module = importlib.import_module(f"benchmarks.{name}")
    found = module.measure(quick=quick)
    here = report.machine()
    content = {"machine": here, "quick": quick, "found": found}
    print(json.dumps(content, indent=2))
    if not quick:
        path = report.RESULTS / f"{name}-{datetime.now(UTC):%Y-%m-%d}-{here['device']}.json"
        path.write_text(json.dumps(content, indent=2) + "\n")
        if hasattr(module, "publish"):
            module.publish(found, here)


if __name__ == "__main__":
    main()
