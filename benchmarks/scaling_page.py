"""docs/scaling.md's table and plot, from what `scaling.py` measured."""

from collections.abc import Iterator, Mapping, Sequence
from math import log
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import ROOT

PAGE = ROOT / "docs" / "scaling.md"
PLOT = ROOT / "docs" / "scaling.svg"
BEGIN = "<!-- figures: begin, written by `python -m benchmarks scaling` -->"
END = "<!-- figures: end -->"

Content = Mapping[str, Any]


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """P of cost ~ size^p: the slope of a straight line through the logarithms, least squares."""
    return float(np.polyfit([log(size) for size in sizes], [log(cost) for cost in costs], 1)[0])


def refresh(found: Content, here: Content) -> None:
    """Writes the plot, and the table between its marks in the page."""
    draw(found, PLOT)
    page = PAGE.read_text()
    head, rest = page.split(BEGIN)
    _, tail = rest.split(END)
    PAGE.write_text(f"{head}{BEGIN}\n{render(found, here)}\n{END}{tail}")


def render(found: Content, here: Content) -> str:
    """The tables in Markdown: one a sweep, and one of the exponents."""
    machine = (
        f"{here['processor']}, {here['cores']} cores, {here['memory_gb']} GB, "
        f"Python {here['python']}; commit {here['commit']}"
    )
    parts = [machine, "", *_exponent_table(found["sweeps"])]
    for sweep in found["sweeps"]:
        parts += ["", *_sweep_table(sweep)]
    return "\n".join(parts)


def _exponent_table(sweeps: Sequence[Content]) -> Iterator[str]:
    yield "| work | cost | exponent, all sizes | exponent, the two largest | should be |"
    yield "| --- | --- | --- | --- | --- |"
    for sweep in sweeps:
        for name, (sizes, costs) in series_of(sweep).items():
            expected = sweep["expected"].get(name)
            yield (
                f"| {sweep['size_is']} | {name} | {exponent(sizes, costs):.2f} "
                f"| {exponent(sizes[-2:], costs[-2:]):.2f} "
                f"| {'' if expected is None else f'{expected:g}'} |"
            )


def _sweep_table(sweep: Content) -> Iterator[str]:
    series = series_of(sweep)
    yield f"**{sweep['title']}**"
    yield ""
    yield f"| {sweep['size_is']} | {' | '.join(series)} |"
    yield f"| --- | {' | '.join('---' for _ in series)} |"
    for point in sweep["points"]:
        costs = " | ".join(_number(point["figures"][name]) for name in series)
        yield f"| {point['size']:,} | {costs} |"


def series_of(sweep: Content) -> dict[str, tuple[list[float], list[float]]]:
    """Sizes and costs of each figure of a sweep."""
    points = sweep["points"]
    return {
        name: ([point["size"] for point in points], [point["figures"][name] for point in points])
        for name in points[0]["figures"]
    }


def draw(found: Content, path: Path) -> None:
    """A small plot a sweep: every cost over the size, both on logarithmic axes."""
    # Only this page is drawn.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    sweeps = found["sweeps"]
    figure = Figure(figsize=(4 * len(sweeps), 3.6), layout="constrained")
    for axes, sweep in zip(figure.subplots(1, len(sweeps)), sweeps, strict=True):
        for name, (sizes, costs) in series_of(sweep).items():
            line = "-o" if name.endswith(", s") else "--s"
            axes.loglog(sizes, costs, line, markersize=4, linewidth=1.2, label=name)
        axes.set_title(sweep["name"], fontsize=10)
        axes.set_xlabel(sweep["size_is"])
        axes.set_xticks(sizes, [_short(size) for size in sizes], fontsize=8)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    # The same figures give the same file.
    with rc_context({"svg.hashsalt": "flowpatch"}):
        figure.savefig(path, metadata={"Date": None})


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _short(size: float) -> str:
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if size >= unit:
            return f"{size / unit:g}{name}"
    return f"{size:g}"
