"""A function on a GPU's tensors as one launch: recorded once, played back after.

A training step is some seven hundred small pieces of work. Launched one by one they take a host
longer than the GPU needs to do them; recorded as a CUDA graph they are launched together. What is
played back is the same work in the same order, dropout's random numbers too: the results of a
recorded call are those of a plain one, digit for digit.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

PLAIN_CALLS = 3
"""Calls before the recording: libraries choose their ways, and buffers come into being."""


@dataclass(frozen=True)
class _Recording:
    """A graph, the memory that its inputs are read from, and that its result is written to."""

    graph: "torch.cuda.CUDAGraph"
    inputs: tuple[Tensor, ...]
    result: Tensor


class Captured:
    """A function of tensors that gives a tensor; what it does beside that is done again as well.

    Calls with inputs of the first call's shapes are recorded, any others are plain. A recorded
    result is overwritten by the next call.

    Args:
        function: waits for no result on the host, and makes no choice by a tensor's values.
        recorded: False where every call is to be plain; on a CPU it is in any case.
    """

    def __init__(self, function: Callable[..., Tensor], *, recorded: bool = True) -> None:
        self._function, self._may_record = function, recorded
        self._shapes: list[torch.Size] | None = None
        self._plain_calls = 0
        self._recording: _Recording | None = None
        self._beside: torch.cuda.Stream | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's result."""
        on_gpu = inputs[0].device.type == "cuda"
        if not (self._may_record and on_gpu and self._is_usual(inputs)):
            return self._function(*inputs)
        if self._recording is None:
            if self._plain_calls < PLAIN_CALLS:
                self._plain_calls += 1
                return self._call_beside(*inputs)
            self._recording = self._record(inputs)
        for place, given in zip(self._recording.inputs, inputs, strict=True):
            place.copy_(given)
        self._recording.graph.replay()
        return self._recording.result

    def _is_usual(self, inputs: tuple[Tensor, ...]) -> bool:
        shapes = [one.shape for one in inputs]
        if self._shapes is None:
            self._shapes = shapes
        return shapes == self._shapes

    def _call_beside(self, *inputs: Tensor) -> Tensor:
        """A plain call on another stream: what a recording uses may not belong to the first one."""
        self._beside = self._beside or torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._beside):
            result = self._function(*inputs)
        torch.cuda.current_stream().wait_stream(self._beside)
        return result

    def _record(self, inputs: tuple[Tensor, ...]) -> _Recording:
        places = tuple(one.clone() for one in inputs)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self._function(*places)
        return _Recording(graph, places, result)
