"""Rows of a sample table -> the series, in files that may be larger than memory.

Cells come in any order and more than once. Where two contradict each other the label wins over
the input, and of two of a kind the smaller: the result does not depend on the order, nor does the
count of contradicted cells.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowpatch.errors import OutputError

_INPUT, _LABEL, _TWICE, _CONTRADICTED = map(np.uint8, (1, 2, 4, 8))
_BLOCK = 512
"""Steps looked at at once."""


@dataclass(frozen=True)
class Overlaps:
    """Cells that several windows hold, and those of them on which the windows disagree."""

    twice: int
    contradicted: int

    @property
    def share(self) -> float:
        """Contradicted cells as a share of those seen twice."""
        return self.contradicted / self.twice if self.twice else 0.0


class Rebuilding:
    """A series of T steps and N nodes under way, in two files of a folder.

    A folder that holds one already is gone on with.
    """

    def __init__(self, folder: Path, steps: int, nodes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.steps, self.nodes = steps, nodes
        self._values = _open(folder / "values.f4", "<f4", (steps, nodes), np.nan)
        self._seen = _open(folder / "seen.u1", "u1", (steps, nodes), 0)

    def place(
        self,
        first_step: int,
        nodes: NDArray[np.int64],
        values: NDArray[np.float32],
        *,
        labels: bool,
    ) -> None:
        """Places the (S, K) values of K nodes from `first_step` on."""
        rows = slice(first_step, first_step + len(values))
        whole = len(nodes) == self.nodes and bool((nodes == np.arange(self.nodes)).all())
        columns: slice | NDArray[np.int64] = slice(None) if whole else nodes
        seen: NDArray[np.uint8] = np.array(self._seen[rows, columns])
        known: NDArray[np.float32] = np.array(self._values[rows, columns])
        kind = _LABEL if labels else _INPUT
        before = seen > 0
        differs = before & ~((known == values) | (np.isnan(known) & np.isnan(values)))
        wins = ~before if not labels else ~before | ((seen & _LABEL) == 0)
        same_kind = differs & ((seen & _LABEL) == (kind & _LABEL))
        settled = np.where(wins, values, known)
        settled = np.where(same_kind, np.fmin(known, values), settled)
        self._values[rows, columns] = settled
        self._seen[rows, columns] = (
            seen
            | kind
            | np.where(before, _TWICE, np.uint8(0))
            | np.where(differs, _CONTRADICTED, np.uint8(0))
        )

    def overlaps(self) -> Overlaps:
        """What was seen more than once."""
        twice = contradicted = 0
        for first in range(0, self.steps, _BLOCK):
            seen = self._seen[first : first + _BLOCK]
            twice += int(np.count_nonzero(seen & _TWICE))
            contradicted += int(np.count_nonzero(seen & _CONTRADICTED))
        return Overlaps(twice, contradicted)

    def unseen(self) -> NDArray[np.bool_]:
        """(T,) whether any node of the step was in no row."""
        return np.concatenate(
            [
                (self._seen[first : first + _BLOCK] == 0).any(axis=1)
                for first in range(0, self.steps, _BLOCK)
            ]
        )

    def read(self, first: int, stop: int) -> NDArray[np.float32]:
        """(S, N) values, NaN where nothing was placed."""
        return np.array(self._values[first:stop], dtype=np.float32)


def _open(path: Path, kind: str, shape: tuple[int, int], fill: float) -> Any:
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    if path.is_file() and path.stat().st_size == size:
        return np.memmap(path, dtype=kind, mode="r+", shape=shape)
    # Filled under another name: half of it, after a kill, would be zeros where NaN belongs.
    filling = path.with_name(f"{path.name}.filling")
    try:
        with filling.open("wb") as file:
            # Written to later through memory, a full disk could only kill the process.
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        filling.unlink(missing_ok=True)
        raise OutputError(
            f"Cannot write {size / 1e6:,.0f} MB to '{path.parent}': {error.strerror}. Free some "
            "space, or set another folder with $FLOWPATCH_CACHE or --store."
        ) from None
    array = np.memmap(filling, dtype=kind, mode="r+", shape=shape)
    for first in range(0, shape[0], _BLOCK):
        array[first : first + _BLOCK] = fill
    array.flush()
    filling.replace(path)
    return array
