"""`python -m benchmarks NAME [--quick]`: runs one benchmark and writes its results."""

import argparse
import importlib
import json
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

NAMES = ("maxcompute",)
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Runs the benchmark that is named and keeps what it found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--quick", action="store_true", help="a smoke run on little data")
    flags = parser.parse_args()
    found = importlib.import_module(f"benchmarks.{flags.name}").measure(quick=flags.quick)
    content = {"machine": machine(), "quick": flags.quick, "found": found}
    print(json.dumps(content, indent=2))
    if not flags.quick:
        RESULTS.mkdir(exist_ok=True)
        device = f"{platform.machine()}-{content['machine']['cores']}cores"
        path = RESULTS / f"{flags.name}-{datetime.now(UTC):%Y-%m-%d}-{device}.json"
        path.write_text(json.dumps(content, indent=2) + "\n")


def machine() -> dict[str, object]:
    """Where and on what the figures were taken."""
    import psutil

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "commit": commit.stdout.strip() or None,
    }


if __name__ == "__main__":
    main()
