"""Exponents, table and plot of the scaling benchmark, and that its sweeps run."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import scaling, scaling_page

HERE = {"processor": "P", "cores": 2, "memory_gb": 4, "python": "3.11", "commit": "abc"}
FOUND = {
    "sweeps": [
        {
            "name": "days",
            "title": "a build",
            "size_is": "days",
            "expected": {"build, s": 1.0},
            "points": [
                {"size": size, "figures": {"build, s": 2.0 * size, "build, MB": 300.0}}
                for size in (7, 70, 700)
            ],
        },
        {
            "name": "nodes",
            "title": "a layout",
            "size_is": "nodes",
            "expected": {},
            "points": [{"size": size, "figures": {"layout, s": size**1.5}} for size in (10, 1000)],
        },
    ]
}


@given(
    st.floats(-3, 3),
    st.floats(1e-3, 1e3),
    st.lists(st.integers(1, 10**6), min_size=2, max_size=6, unique=True),
)
def test_the_exponent_of_a_power_is_found(power: float, factor: float, sizes: list[int]) -> None:
    costs = [factor * size**power for size in sizes]
    assert scaling_page.exponent(sizes, costs) == pytest.approx(power, abs=1e-6)


def test_the_page_names_every_figure_with_its_exponent() -> None:
    page = scaling_page.render(FOUND, HERE)
    assert "| days | build, s | 1.00 | 1.00 | 1 |" in page
    assert "| days | build, MB | 0.00 | 0.00 |  |" in page
    assert "| nodes | layout, s | 1.50 | 1.50 |  |" in page
    assert "| 700 | 1,400 | 300 |" in page


def test_only_what_lies_between_the_marks_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "scaling.md"
    page.write_text(f"before\n{scaling_page.BEGIN}\nold\n{scaling_page.END}\nafter\n")
    monkeypatch.setattr(scaling_page, "PAGE", page)
    monkeypatch.setattr(scaling_page, "PLOT", tmp_path / "scaling.svg")
    scaling_page.refresh(FOUND, HERE)
    written = page.read_text()
    assert written.startswith("before\n")
    assert written.endswith("\nafter\n")
    assert "old" not in written
    assert "build, s" in written


def test_the_plot_shows_every_sweep_and_is_the_same_twice(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        scaling_page.draw(FOUND, tmp_path / name)
    drawn = (tmp_path / "one.svg").read_text()
    assert "<svg" in drawn
    assert drawn == (tmp_path / "two.svg").read_text()


def test_a_sweep_measures_every_size(tmp_path: Path) -> None:
    sweep = scaling.by_records(tmp_path, quick=True)
    assert [point.size for point in sweep.points] == [20_000, 60_000]
    for point in sweep.points:
        assert point.figures.keys() == {"build, s", "build, MB", "store, MB"}
        assert all(cost > 0 for cost in point.figures.values())


@pytest.mark.soak
def test_all_sweeps_run_on_tiny_sizes() -> None:
    found = scaling.measure(quick=True)
    assert [sweep["name"] for sweep in found["sweeps"]] == [
        *("records", "nodes", "days", "workers", "processes")
    ]
    assert all(len(sweep["points"]) == 2 for sweep in found["sweeps"])
