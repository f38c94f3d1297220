"""`python -m maxcompute_emulator`: flags to an `Emulator`."""

import argparse
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from maxcompute_emulator.emulator import DEFAULT_PROJECT, DEFAULT_TIME_ZONE, Emulator

_KEY_ID = "ALIBABA_CLOUD_ACCESS_KEY_ID"
_KEY_SECRET = "ALIBABA_CLOUD_ACCESS_KEY_SECRET"  # noqa: S105
_TOKEN = "ALIBABA_CLOUD_SECURITY_TOKEN"  # noqa: S105


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until interrupted."""
    flags = _parser().parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        emulator = Emulator(
            port=flags.port,
            database=flags.database,
            projects=flags.project or [DEFAULT_PROJECT],
            access_key_id=os.environ.get(_KEY_ID) or "emulator",
            access_key_secret=os.environ.get(_KEY_SECRET) or "emulator",
            security_token=os.environ.get(_TOKEN) or None,
            bandwidth=flags.bandwidth,
            time_zone=flags.time_zone,
        )
        emulator.start()
    except OSError as error:
        raise SystemExit(f"Port {flags.port} cannot be used: {error}. Choose another.") from error
    try:
        print(
            f"MaxCompute emulator at {emulator.endpoint} "
            f"(projects: {', '.join(emulator.projects)}; control at {emulator.control})",
            flush=True,
        )
        stop.wait()
    finally:
        emulator.stop()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m maxcompute_emulator",
        description="A local server that speaks MaxCompute's REST and tunnel protocol.",
        epilog=f"It accepts the account that {_KEY_ID} and {_KEY_SECRET} name (and requires "
        f"{_TOKEN} where that is set), else the id and secret 'emulator'.",
    )
    parser.add_argument("--port", type=int, default=8085, help="0 takes a free one")
    parser.add_argument("--database", type=Path, help="DuckDB file that keeps the state")
    parser.add_argument(
        "--project",
        action="append",
        help=f"project to make, repeatable (default {DEFAULT_PROJECT})",
    )
    parser.add_argument(
        "--bandwidth", type=_positive, help="bytes a second for each data stream (default: no cap)"
    )
    parser.add_argument(
        "--time-zone", type=_zone, default=DEFAULT_TIME_ZONE, help="zone in which queries read time"
    )
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def _zone(text: str) -> str:
    try:
        return ZoneInfo(text).key
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text} is no time zone") from error


if __name__ == "__main__":
    main()
