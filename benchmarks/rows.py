"""The rows: what is measured, beside what, and what it is held to. Declared once, as data.

A row is measured as a whole and gives one or more figures; the table, the JSON and the flags come
from this declaration. How a row is measured is in the file that `measure` names; that function
takes a `Workshop` and returns a `Found`, or a `NotMeasured`, for every figure by name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.measuring import Spread

Ratio = Literal["measured/beside", "beside/measured"]


@dataclass(frozen=True)
class Figure:
    """One figure of a row.

    `ratio` says what is divided by what, where there is a baseline. The bounds `at_least` and
    `hoped_for` hold for the ratio if `judged` says so, else for what was measured.
    """

    name: str
    what: str
    unit: str
    beside: str = ""
    ratio: Ratio | None = None
    judged: Literal["measured", "ratio"] = "measured"
    better: Literal["lower", "higher"] = "lower"
    at_least: float | None = None
    hoped_for: float | None = None

    def __post_init__(self) -> None:
        if bool(self.beside) != bool(self.ratio) or (self.judged == "ratio" and not self.ratio):
            raise ValueError(f"the figure '{self.name}' needs both a baseline and its ratio")

    def meets(self, found: "Found", bound: float | None) -> bool | None:
        """Whether the median keeps a bound; None where there is no bound."""
        judged = found.ratio(self) if self.judged == "ratio" else Spread.of(found.measured)
        if bound is None or judged is None:
            return None
        return judged.median <= bound if self.better == "lower" else judged.median >= bound


@dataclass(frozen=True)
class Row:
    """What is measured together. `disk_gb` is what it needs while it runs."""

    name: str
    title: str
    measure: str
    figures: tuple[Figure, ...]
    disk_gb: float = 0.1


@dataclass(frozen=True)
class Found:
    """What was measured, run by run, and the baseline beside it; `note` says on what."""

    measured: Sequence[float]
    beside: Sequence[float] = ()
    note: str = ""

    def ratio(self, figure: Figure) -> Spread | None:
        """The ratio run by run where both took turns, else that of the medians."""
        if figure.ratio is None or not self.beside:
            return None
        pairs = list(zip(self.measured, self.beside, strict=False))
        if len(self.measured) != len(self.beside):
            pairs = [(Spread.of(self.measured).median, Spread.of(self.beside).median)]
        turned = figure.ratio == "beside/measured"
        return Spread.of([b / m if turned else m / b for m, b in pairs])


@dataclass(frozen=True)
class NotMeasured:
    """Why a figure cannot be measured here."""

    why: str


FoundRow = Mapping[str, Found | NotMeasured]

_BUILD = (
    Figure(
        "seconds",
        "build from Parquet, the whole command",
        "s",
        "DuckDB's bare scan of the same columns, the whole process",
        "measured/beside",
        "ratio",
        at_least=3,
        hoped_for=2,
    ),
    Figure("memory", "its peak memory", "MB", at_least=2000, hoped_for=1000),
)
_CSV = (
    Figure(
        "seconds",
        "build from CSV, the whole command",
        "s",
        "DuckDB's bare scan of the same columns, the whole process",
        "measured/beside",
        "ratio",
        at_least=1.5,
        hoped_for=1.2,
    ),
    Figure(
        "parse_loop",
        "the same build",
        "s",
        "a loop that parses row by row, extrapolated from its first rows",
        "beside/measured",
        "ratio",
        "higher",
    ),
)
_UPDATE = (
    Figure(
        "seconds",
        "update by one day, the whole command",
        "s",
        "a build of that day alone, the whole command",
        "measured/beside",
        "ratio",
        at_least=2,
        hoped_for=1.2,
    ),
)
_DISK = (
    Figure(
        "raw",
        "bytes of the store",
        "MB",
        "the raw records as Parquet",
        "beside/measured",
        at_least=150,
        hoped_for=110,
    ),
    Figure(
        "text",
        "the same store",
        "MB",
        "its windows as comma-separated text, extrapolated from a sample",
        "beside/measured",
        "ratio",
        "higher",
    ),
)
_LOAD = (
    Figure(
        "first_batch",
        "store to first batch on the device, process warm",
        "s",
        "reading the same dense bytes from a plain file",
        "measured/beside",
        at_least=1,
        hoped_for=0.4,
    ),
    Figure(
        "first_step",
        "`flowpatch train` to the end of its first optimizer step, less a step",
        "s",
        "`import torch` in a fresh process",
        "measured/beside",
        at_least=4,
        hoped_for=2.5,
    ),
)


def _beside_loader(where: str = "", brought: str = "") -> tuple[Figure, ...]:
    """Batches a second beside a per-sample loader without workers, and with two."""
    rows = (
        (
            "dataset_0",
            f"batches a second{where}, scaled, with time features",
            f"a per-sample Dataset and DataLoader, no workers{brought}",
        ),
        ("dataset_2", "the same", "the same with 2 workers"),
    )
    return tuple(
        Figure(
            *(name, what, "batches/s", beside),
            ratio="measured/beside",
            judged="ratio",
            better="higher",
            at_least=100,
        )
        for name, what, beside in rows
    )


_BATCHES = (
    *_beside_loader(),
    Figure(
        "memcpy",
        "the same",
        "batches/s",
        "copying as many bytes out of the series",
        "measured/beside",
        "ratio",
        "higher",
        hoped_for=0.5,
    ),
    Figure(
        "share",
        "cutting a batch, beside the training step on it",
        "ms",
        "a training step, published widths",
        "measured/beside",
        "ratio",
        at_least=0.02,
    ),
)
_GPU_BATCHES = (
    *_beside_loader(" on the GPU", ", brought to the GPU"),
    Figure(
        "copy",
        "the same",
        "batches/s",
        "copying as many bytes on the GPU",
        "measured/beside",
        "ratio",
        "higher",
    ),
)
_PUBLISHED = "the published formulation: paper layout, float32, eager"


def _faster(name: str, what: str, beside: str = _PUBLISHED) -> Figure:
    """A figure of seconds that is to be several times faster than a baseline."""
    return Figure(
        name, what, "s", beside, "beside/measured", "ratio", "higher", at_least=3, hoped_for=5
    )


_STEP = (
    _faster("train", "training step, CPU"),
    _faster("infer", "inference, CPU"),
)
_MEMORY = (
    Figure(
        "added",
        "peak memory that training adds to a process, CPU",
        "MB",
        _PUBLISHED,
        "measured/beside",
        "ratio",
        at_least=0.5,
        hoped_for=0.333,
    ),
)


def _gpu_figures(shape: str, what: str, name: str) -> tuple[Figure, ...]:
    """A GPU's figures of a training step or of inference."""
    figures = (
        Figure(
            f"{name}_float32",
            f"{what} at {shape}'s shape, compiled",
            "ms",
            "the published formulation in float32",
            "beside/measured",
            "ratio",
            "higher",
            at_least=3,
            hoped_for=6,
        ),
        Figure(
            f"{name}_plain",
            "the same, not compiled",
            "ms",
            "the published formulation in float32",
            "beside/measured",
            "ratio",
            "higher",
            at_least=3,
        ),
        Figure(
            f"{name}_bf16",
            "the first again",
            "ms",
            "the published formulation in bf16",
            "beside/measured",
            "ratio",
            "higher",
        ),
    )
    limit = Figure(
        f"{name}_limit",
        "the same: arithmetic a second",
        "TFLOP/s",
        "a large bf16 matrix product",
        "measured/beside",
        "ratio",
        "higher",
        hoped_for=0.4,
    )
    return (*figures, limit)


_GPU = tuple(
    figure
    for shape in ("SD", "CA")
    for what, name in (("training step", "train"), ("inference", "infer"))
    for figure in _gpu_figures(shape, what, f"{shape.lower()}_{name}")
)


def _layout_figures() -> tuple[Figure, ...]:
    """Both layouts of every set; only the largest has bounds."""
    figures: list[Figure] = []
    for shape in ("SD", "GBA", "GLA", "CA"):
        at_least, hoped_for = (5, 1) if shape == "CA" else (None, None)
        for kind, beside in (("paper", "a dense N x N similarity"), ("balanced", "")):
            figure = Figure(
                f"{shape.lower()}_{kind}",
                f"layout `{kind}` for {shape}",
                "s",
                beside,
                "beside/measured" if beside else None,
                at_least=at_least,
                hoped_for=hoped_for,
            )
            figures.append(figure)
    memory = Figure(
        "ca_memory",
        "peak memory of the process that makes both for CA",
        "MB",
        "the same of the dense similarity",
        "measured/beside",
        at_least=1000,
    )
    return (*figures, memory)


_EVALUATION = (
    Figure(
        "growth",
        "peak memory that more windows add to an evaluation",
        "MB",
        "all predictions held until they are scored",
        "measured/beside",
        "ratio",
        at_least=0.1,
    ),
)
_STARTUP = (
    Figure(
        "help",
        "`flowpatch --help`",
        "s",
        "`python -c pass`",
        "measured/beside",
        at_least=0.3,
    ),
    Figure(
        "import",
        "`import flowpatch`",
        "s",
        "`python -c pass`",
        "measured/beside",
        at_least=0.1,
    ),
)

ROWS = (
    Row("startup", "start of the command", "benchmarks.startup:measure", _STARTUP),
    Row(
        "build",
        "build, 7 days at 1 minute of 15,946 nodes, shuffled inside a day",
        "benchmarks.build:measure_parquet",
        _BUILD,
        disk_gb=2,
    ),
    Row("disk", "bytes on disk of that store", "benchmarks.build:measure_disk", _DISK, disk_gb=2),
    Row("load", "from that store to training", "benchmarks.load:measure", _LOAD, disk_gb=3),
    Row(
        "csv",
        "build, 2 of those days, from CSV",
        "benchmarks.build:measure_csv",
        _CSV,
        disk_gb=3,
    ),
    Row(
        "update",
        "one day more for a store of 60: 1,000 nodes at 1 minute",
        "benchmarks.update:measure",
        _UPDATE,
        disk_gb=1.5,
    ),
    Row(
        "batches",
        "batches at CA's shape: 35,040 steps x 8,600 nodes, 16 windows of 12 -> 12",
        "benchmarks.batches:measure",
        _BATCHES,
    ),
    Row(
        "step",
        "PatchSTG at SD's shape: 716 nodes, 16 windows of 12 -> 12, published widths",
        "benchmarks.step:measure",
        _STEP,
    ),
    Row("memory", "memory of training at SD's shape", "benchmarks.step:measure_memory", _MEMORY),
    Row("gpu", "PatchSTG on a GPU, published widths", "benchmarks.gpu:measure", _GPU),
    Row(
        "gpu_batches",
        "batches at CA's shape on a GPU: 35,040 steps x 8,600 nodes, 16 windows of 12 -> 12",
        "benchmarks.batches:measure_on_gpu",
        _GPU_BATCHES,
    ),
    Row("layout", "patch layouts of LargeST", "benchmarks.layout:measure", _layout_figures()),
    Row(
        "evaluation",
        "evaluating at CA's shape",
        "benchmarks.evaluation:measure",
        _EVALUATION,
    ),
)
"""In the order in which they are measured: what needs the same files stands together."""


def row_of(name: str) -> Row:
    """The row of a name."""
    return next(row for row in ROWS if row.name == name)
