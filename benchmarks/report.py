"""What was measured, as JSON and as the table of docs/benchmarks.md.

A file of results belongs to one day and one device; measuring some rows again that day replaces
those rows. The table shows, for every figure, the newest result of every device that has one.
"""

import json
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measuring import ROOT, Spread
from benchmarks.rows import ROWS, Figure, Found, FoundRow, NotMeasured, Row

RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN = "<!-- figures: begin, written by `make bench` -->"
END = "<!-- figures: end -->"
LIBRARIES = ("duckdb", "icechunk", "numpy", "pyarrow", "torch", "zarr")
HEAD = "| what | measured | beside | ratio | at least | hoped for |"
LINE = "| --- | --- | --- | --- | --- | --- |"

Content = dict[str, Any]


def machine() -> Content:
    """Where and on what the figures were taken."""
    return {
        "device": device_name(),
        "processor": processor(),
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in LIBRARIES if find_spec(name)},
        "commit": commit(),
    }


def device_name() -> str:
    """The GPU's name, or the processor's kind and cores: part of a file's name."""
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name().lower()
        return "-".join("".join(c if c.isalnum() else " " for c in name).split())
    return f"{platform.machine()}-{psutil.cpu_count()}cores"


def processor() -> str:
    """The processor as the system names it."""
    described = Path("/proc/cpuinfo")
    if described.is_file():
        for line in described.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit that was measured, marked where files were changed since; None without git."""
    if not shutil.which("git"):
        return None
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty=-changed", "--exclude=*"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or None


def row_content(row: Row, found: FoundRow, here: Content) -> Content:
    """A row as JSON: every figure that was declared, with its bounds and whether they hold."""
    figures = {figure.name: figure_content(figure, found[figure.name]) for figure in row.figures}
    taken = datetime.now(UTC).isoformat(timespec="seconds")
    return {"title": row.title, "taken_at": taken, "commit": here["commit"], "figures": figures}


def figure_content(figure: Figure, found: Found | NotMeasured) -> Content:
    """A figure as JSON."""
    if isinstance(found, NotMeasured):
        return {"what": figure.what, "not_measured": found.why}
    ratio = found.ratio(figure)
    return {
        "what": figure.what,
        "beside_what": figure.beside,
        "unit": figure.unit,
        "measured": asdict(Spread.of(found.measured)),
        "beside": asdict(Spread.of(found.beside)) if found.beside else None,
        "ratio": {"of": figure.ratio, **asdict(ratio)} if ratio else None,
        "judged": figure.judged,
        "at_least": _bound_content(figure, found, figure.at_least),
        "hoped_for": _bound_content(figure, found, figure.hoped_for),
        "note": found.note,
    }


def _bound_content(figure: Figure, found: Found, limit: float | None) -> Content | None:
    if limit is None:
        return None
    return {"limit": limit, "better": figure.better, "holds": figure.meets(found, limit)}


def save(rows: Mapping[str, Content], here: Content, folder: Path) -> Path:
    """Writes the rows to the day's file of this device, beside those that it holds already."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{datetime.now(UTC):%Y-%m-%d}-{here['device']}.json"
    before = json.loads(path.read_text())["rows"] if path.is_file() else {}
    content = {"machine": here, "rows": {**before, **rows}}
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def saved(folder: Path) -> list[Content]:
    """The contents of all files of results, oldest first."""
    contents = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [content for content in contents if "rows" in content]


def refresh_page(folder: Path, page: Path) -> None:
    """Writes the table of all saved results between the two markers of a page.

    Raises:
        ValueError: the page lacks a marker.
    """
    text = page.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"'{page}' lacks '{BEGIN}' or '{END}': put both where the table belongs.")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n{render(saved(folder))}\n{END}{after}", encoding="utf-8")


def render(contents: Iterable[Content], rows: Sequence[Row] = ROWS) -> str:
    """Results as Markdown: the devices, then a table for each row."""
    newest: dict[str, dict[str, Content]] = {}
    devices: dict[str, Content] = {}
    for content in contents:
        device = content["machine"]["device"]
        devices[device] = content["machine"]
        newest.setdefault(device, {}).update(content["rows"])
    parts = [_device_line(here) for here in devices.values()]
    for row in rows:
        parts.append(f"\n### {row.name}: {row.title}\n\n{HEAD}\n{LINE}")
        of_devices = {device: found.get(row.name) for device, found in newest.items()}
        for figure in row.figures:
            parts += _figure_lines(figure, of_devices)
    return "\n".join(parts)


def _device_line(here: Content) -> str:
    libraries = ", ".join(f"{name} {number}" for name, number in here["versions"].items())
    return (
        f"- **{here['device']}**: {here['processor']}, {here['cores']} cores, "
        f"{here['memory_gb']} GB, Python {here['python']}, {libraries}; commit {here['commit']}"
    )


def _figure_lines(figure: Figure, rows: Mapping[str, Content | None]) -> list[str]:
    """A line for each device that has the figure; else one that says why there is none."""
    found = {
        device: row["figures"][figure.name]
        for device, row in rows.items()
        if row and figure.name in row["figures"]
    }
    measured = {device: one for device, one in found.items() if "measured" in one}
    if measured:
        return [_line(figure, device, one) for device, one in measured.items()]
    reasons = sorted({one["not_measured"] for one in found.values()}) or ["not measured yet"]
    return [f"| {figure.what} | {'; '.join(reasons)} | {figure.beside} | | {_bounds(figure)} |"]


def _line(figure: Figure, device: str, found: Content) -> str:
    what = f"{figure.what} ({found['note']})" if found["note"] else figure.what
    measured = f"**{_spread(found['measured'], figure.unit)}** on {device}"
    beside = f"{figure.beside}: {_spread(found['beside'], figure.unit)}" if found["beside"] else ""
    bounds = " | ".join(_bound(figure, found[name]) for name in ("at_least", "hoped_for"))
    return f"| {what} | {measured} | {beside} | {_ratio(figure, found)} | {bounds} |"


def _ratio(figure: Figure, found: Content) -> str:
    """`3.1x`; `less` where the baseline is the larger part of the ratio, as it should be."""
    if not found["ratio"]:
        return ""
    return _spread(found["ratio"], "x") + (" less" if figure.ratio == "beside/measured" else "")


def _bounds(figure: Figure) -> str:
    return " | ".join(
        "" if limit is None else _limit(figure, limit)
        for limit in (figure.at_least, figure.hoped_for)
    )


def _bound(figure: Figure, bound: Content | None) -> str:
    if bound is None:
        return ""
    return f"{_limit(figure, bound['limit'])}: {'yes' if bound['holds'] else '**no**'}"


def _limit(figure: Figure, limit: float) -> str:
    unit = "x" if figure.judged == "ratio" else f" {figure.unit}"
    return f"{'<=' if figure.better == 'lower' else '>='} {_number(limit)}{unit}"


def _spread(spread: Mapping[str, Any], unit: str) -> str:
    """`1.2 s (1.1 to 1.4)`; the spread is left out where there was one run."""
    space = "" if unit == "x" else " "
    median = f"{_number(spread['median'])}{space}{unit}"
    if spread["runs"] == 1:
        return median
    return f"{median} ({_number(spread['lowest'])} to {_number(spread['highest'])})"


def _number(value: float) -> str:
    """Three digits that count, thousands set apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
