"""Cuts of batches on a GPU as one launch, played back into memory that nobody holds.

A batch is some twenty small pieces of work, which a host takes longer to launch than a GPU to do.
Recorded as a CUDA graph they are launched together, but write where they wrote before. So there are
several recordings, and one is played back only when nothing shows its last results any more, as
`memory.py` does with memory of the CPU.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

RECORDINGS = 4
"""At most, each with memory for one batch; where all are held, a batch is cut piece by piece."""
PLAIN_CUTS = 3
"""Before the first recording: libraries choose their ways, and buffers come into being."""

Cut = Callable[[Tensor], tuple[Tensor, ...]]
"""(B,) origins on the device to the parts of a batch; makes no choice by a tensor's values."""


@dataclass(frozen=True)
class _Recording:
    """A graph, the memory that it reads origins from and writes parts to, and when it is free."""

    graph: "torch.cuda.CUDAGraph"
    origins_B: Tensor
    parts: tuple[Tensor, ...]
    holders: tuple[int, ...]

    @classmethod
    def of(cls, cut: Cut, origins_B: Tensor) -> "_Recording":
        graph, place_B = torch.cuda.CUDAGraph(), origins_B.clone()
        with torch.cuda.graph(graph):
            parts = cut(place_B)
        return cls(graph, place_B, parts, tuple(map(_holders, parts)))

    def is_free(self) -> bool:
        """Whether no tensor shows what was written last."""
        return tuple(map(_holders, self.parts)) == self.holders

    def play(self, origins_B: Tensor) -> tuple[Tensor, ...]:
        self.origins_B.copy_(origins_B, non_blocking=True)
        self.graph.replay()
        # Tensors of their own, so that it shows who holds one.
        return tuple(part.detach() for part in self.parts)


class RecordedCuts:
    """Cuts batches of the first one's size by recordings, and others piece by piece."""

    def __init__(self) -> None:
        self._windows: int | None = None
        self._plain_cuts = 0
        self._recordings: list[_Recording] = []

    def __call__(self, cut: Cut, origins_B: Tensor, device: torch.device) -> tuple[Tensor, ...]:
        """The parts of the batch at (B,) origins of the host; `cut` is always the same one."""
        self._windows = self._windows or len(origins_B)
        if len(origins_B) != self._windows or self._plain_cuts < PLAIN_CUTS:
            self._plain_cuts += len(origins_B) == self._windows
            return cut(origins_B.to(device, non_blocking=True))
        recording = next((one for one in self._recordings if one.is_free()), None)
        if recording is None:
            if len(self._recordings) == RECORDINGS:
                return cut(origins_B.to(device, non_blocking=True))
            recording = _Recording.of(cut, origins_B.to(device))
            self._recordings.append(recording)
        return recording.play(origins_B)


def _holders(tensor: Tensor) -> int:
    """How many hold the memory of a tensor."""
    count: int = torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)
    return count
