"""The declaration covers what is measured, and results become a table; nothing here is timed."""

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks import report
from benchmarks.__main__ import measure
from benchmarks.measuring import Spread, alternate, run, run_child
from benchmarks.rows import ROWS, Figure, Found, NotMeasured, Row, row_of
from benchmarks.workshop import Workshop

ROOT = Path(__file__).resolve().parents[2]
FASTER = Figure(
    "seconds", "a thing", "s", "a slow thing", "beside/measured", "ratio", "higher", 3, 5
)
SMALL = Figure("memory", "its memory", "MB", at_least=100)
ROW = Row("row", "a row", "tests:none", (FASTER, SMALL))
HERE = {
    "device": "abacus",
    "processor": "beads",
    "cores": 2,
    "memory_gb": 1.0,
    "python": "3.11",
    "versions": {"torch": "2"},
    "commit": "abc",
}


# --- the declaration ------------------------------------------------------------------------------


def test_every_row_and_figure_has_a_name_of_its_own() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert row_of(row.name) is row
        assert len({figure.name for figure in row.figures}) == len(row.figures)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_can_be_measured(row: Row) -> None:
    module, name = row.measure.split(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_the_bounds_are_those_that_the_project_holds_itself_to() -> None:
    bounds = {
        f"{row.name}.{figure.name}": (figure.at_least, figure.hoped_for)
        for row in ROWS
        for figure in row.figures
        if figure.at_least is not None or figure.hoped_for is not None
    }
    assert bounds == {
        "startup.help": (0.3, None),
        "startup.import": (0.1, None),
        "build.seconds": (3, 2),
        "build.memory": (2000, 1000),
        "disk.raw": (150, 110),
        "load.first_batch": (1, 0.4),
        "load.first_step": (4, 2.5),
        "csv.seconds": (1.5, 1.2),
        "update.seconds": (2, 1.2),
        "batches.dataset_0": (100, None),
        "batches.dataset_2": (100, None),
        "batches.memcpy": (None, 0.5),
        "batches.share": (0.02, None),
        "step.train": (3, 5),
        "step.infer": (3, 5),
        "memory.added": (0.5, 0.333),
        **{f"gpu.{shape}_{kind}_float32": (3, 6) for shape in ("sd", "ca") for kind in KINDS},
        **{f"gpu.{shape}_{kind}_plain": (3, None) for shape in ("sd", "ca") for kind in KINDS},
        **{f"gpu.{shape}_{kind}_limit": (None, 0.4) for shape in ("sd", "ca") for kind in KINDS},
        "gpu_batches.dataset_0": (100, None),
        "gpu_batches.dataset_2": (100, None),
        "layout.ca_paper": (5, 1),
        "layout.ca_balanced": (5, 1),
        "layout.ca_memory": (1000, None),
        "evaluation.growth": (0.1, None),
    }


KINDS = ("train", "infer")


def test_a_figure_without_its_baseline_is_refused() -> None:
    with pytest.raises(ValueError, match="'lone' needs both"):
        Figure("lone", "a thing", "s", ratio="measured/beside")
    with pytest.raises(ValueError, match="'lone' needs both"):
        Figure("lone", "a thing", "s", judged="ratio")


# --- what was found -------------------------------------------------------------------------------


def test_a_ratio_is_formed_run_by_run() -> None:
    found = Found([1, 2, 10], [4, 6, 30])
    assert found.ratio(FASTER) == Spread(3, 3, 4, 3)
    assert FASTER.meets(found, FASTER.at_least)
    assert not FASTER.meets(found, FASTER.hoped_for)
    assert FASTER.meets(found, None) is None


def test_runs_that_took_no_turns_are_compared_by_their_medians() -> None:
    assert Found([1, 2, 3], [8]).ratio(FASTER) == Spread(4, 4, 4, 1)


def test_lower_is_better_unless_declared() -> None:
    assert SMALL.meets(Found([100]), SMALL.at_least)
    assert not SMALL.meets(Found([101]), SMALL.at_least)


def test_actions_take_turns() -> None:
    order: list[str] = []

    def action(name: str) -> float:
        order.append(name)
        return float(len(order))

    taken = alternate(2, lambda: action("a"), lambda: action("b"))
    assert (order, taken) == (["a", "b", "a", "b"], [(1, 3), (2, 4)])


def test_a_row_that_finds_something_else_than_it_declares_is_an_error(tmp_path: Path) -> None:
    row = Row("startup", "less than is measured", "benchmarks.startup:measure", (SMALL,))
    with pytest.raises(LookupError, match=r"found \['help', 'import'\], declared \['memory'\]"):
        measure(row, Workshop(tmp_path, quick=True))


# --- processes ------------------------------------------------------------------------------------


def test_a_child_returns_its_value() -> None:
    value, ran = run_child("statistics:fmean", data=[1, 2])
    assert value == 1.5
    assert ran.seconds > 0


def test_the_memory_of_a_process_is_seen() -> None:
    code = "import time; held = b'x' * 50_000_000; time.sleep(0.5)"
    ran = run([sys.executable, "-c", code], memory=True)
    assert ran.peak_bytes > 50_000_000


def test_a_failing_child_says_why() -> None:
    with pytest.raises(RuntimeError, match="mean requires at least one data point"):
        run_child("statistics:fmean", data=[])


def test_much_output_does_not_stop_a_process_that_is_watched() -> None:
    ran = run([sys.executable, "-c", "print('x' * 2**20)"], memory=True)
    assert len(ran.printed) == 2**20 + 1


# --- the report -----------------------------------------------------------------------------------


def content(device: str, **found: Found | NotMeasured) -> dict[str, Any]:
    """Results of a device as they are saved."""
    here = {**HERE, "device": device}
    return {"machine": here, "rows": {"row": report.row_content(ROW, found, here)}}


SLOW = content("abacus", seconds=Found([2, 3], [8, 9], "ten beads"), memory=Found([120]))
FAST = content("engine", seconds=Found([1], [8]), memory=NotMeasured("no memory here"))


def test_results_become_a_table() -> None:
    first, *lines = report.render([SLOW], [ROW]).splitlines()
    assert first == "- **abacus**: beads, 2 cores, 1.0 GB, Python 3.11, torch 2; commit abc"
    assert lines[-2:] == [
        "| a thing (ten beads) | **2.5 s (2 to 3)** on abacus | a slow thing: 8.5 s (8 to 9) | "
        "3.5x (3 to 4) less | >= 3x: yes | >= 5x: **no** |",
        "| its memory | **120 MB** on abacus |  |  | <= 100 MB: **no** |  |",
    ]


def test_devices_stand_beside_each_other_and_a_reason_gives_way_to_a_figure() -> None:
    lines = report.render([SLOW, FAST], [ROW]).splitlines()
    assert [line.split(" on ")[1].split(" ")[0] for line in lines[-3:]] == [
        "abacus",
        "engine",
        "abacus",
    ]
    assert "no memory here" in report.render([FAST], [ROW])
    assert "not measured yet" in report.render([], [ROW])


def test_every_declared_figure_has_a_line() -> None:
    lines = report.render([]).splitlines()
    for row in ROWS:
        assert any(line.startswith(f"### {row.name}: ") for line in lines)
    assert sum(line.startswith("| ") for line in lines) - 2 * len(ROWS) == sum(
        len(row.figures) for row in ROWS
    )


def test_saving_keeps_the_other_rows_of_the_day(tmp_path: Path) -> None:
    report.save({"one": {"figures": {}}}, HERE, tmp_path)
    path = report.save({"two": {"figures": {}}}, HERE, tmp_path)
    (kept,) = report.saved(tmp_path)
    assert kept["rows"].keys() == {"one", "two"}
    assert path.name.endswith("-abacus.json")


def test_results_of_another_form_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "alone.json").write_text(json.dumps({"found": {}}))
    assert report.saved(tmp_path) == []


def test_the_page_is_refreshed_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.save(SLOW["rows"], HERE, tmp_path)
    report.refresh_page(tmp_path, page)
    once = page.read_text()
    assert once.startswith("before\n")
    assert once.endswith("\nafter\n")
    assert "old" not in once
    report.refresh_page(tmp_path, page)
    assert page.read_text() == once
    page.write_text("no markers")
    with pytest.raises(ValueError, match="put both where the table belongs"):
        report.refresh_page(tmp_path, page)


def test_the_page_has_its_markers_and_names_every_row_and_baseline() -> None:
    page = report.PAGE.read_text(encoding="utf-8")
    assert page.index(report.BEGIN) < page.index(report.END)
    for row in ROWS:
        assert f"\n| {row.name} | " in page
    for path in (ROOT / "benchmarks" / "baselines").glob("[!_]*.py"):
        assert f"`{path.name}`" in page


# --- the command ----------------------------------------------------------------------------------


def benchmarks(*words: str) -> subprocess.CompletedProcess[str]:
    """`python -m benchmarks`, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_a_quick_run_measures_every_row(tmp_path: Path) -> None:
    saved = {path: path.read_bytes() for path in report.RESULTS.glob("*")}
    ended = benchmarks("--quick", "--json", str(tmp_path / "found.json"))
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["rows"].keys() == {row.name for row in ROWS}
    for row in ROWS:
        figures = found["rows"][row.name]["figures"]
        assert list(figures) == [figure.name for figure in row.figures]
        for figure in figures.values():
            assert figure.get("not_measured") or figure["measured"]["runs"] >= 1
    assert all(f"{row.name}: {row.title}" in ended.stderr for row in ROWS)
    assert {path: path.read_bytes() for path in report.RESULTS.glob("*")} == saved


@pytest.mark.soak
def test_a_quick_run_measures_a_wide_city() -> None:
    saved = set(report.RESULTS.glob("*"))
    ended = benchmarks("wide", "--quick")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)["found"]
    assert found["layout_balanced"]["peak_bytes"] > 0
    for step in (found["training_step"]["kept"], found["training_step"]["recomputed"]):
        assert 0 < step["peak_bytes_before"] <= step["peak_bytes"]
    assert found["build"]["2_days"]["records"] == 2 * found["build"]["1_days"]["records"]
    assert found["build"]["1_days"]["peak_bytes"] > 0
    assert set(report.RESULTS.glob("*")) == saved


def test_an_interruption_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--quick", "build"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    said = [process.stderr.readline() for _ in range(2)]
    assert "simulating" in said[1]
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    assert "nothing was left behind" in process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert list(tmp_path.iterdir()) == []
    assert not any(child.is_running() for child in children)


def test_an_unknown_row_is_refused() -> None:
    ended = benchmarks("speed")
    assert ended.returncode == 2
    assert "unknown: speed. Allowed are rows: startup, build, " in ended.stderr


def test_too_little_disk_is_said_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10**9}))
    with pytest.raises(OSError, match=r"1\.0 GB are free .* need 3\.0 GB.*--work FOLDER"):
        Workshop(tmp_path, quick=False).check_disk([row_of("csv")])
