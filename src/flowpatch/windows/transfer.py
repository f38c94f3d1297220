"""Windows whose series does not fit a GPU: cut on the host, handed over batch by batch.

A batch is put into pinned memory and copied from there while the host goes on, so that the GPU is
not waited for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowpatch.windows.batches import Batch, Windows
from flowpatch.windows.order import BlockOrder


class Transferred(Windows):
    """Windows of the host, whose batches lie on another device.

    Args:
        host: windows that cut their batches on the CPU.
        device: where the batches are wanted.
    """

    def __init__(self, host: Windows, device: torch.device) -> None:
        self._host = host
        super().__init__(
            host.axis,
            host.statistics,
            host.input_len,
            host.output_len,
            host.missing,
            device,
            host.nodes,
        )
        self.order: BlockOrder | None = host.order

    def expect(self, origins: NDArray[np.int64], back: Sequence[int] = ()) -> None:
        """Tells the host which origins will be asked for."""
        self._host.expect(origins, back)

    def batch(self, origins: NDArray[np.int64]) -> Batch:
        """The windows at (B,) origins, on their way to the device."""
        batch = self._host.batch(origins)
        parts = {field.name: self._send(getattr(batch, field.name)) for field in fields(Batch)}
        return Batch(**parts)

    def values(self, origins_B: Tensor, first: int, stop: int) -> Tensor:
        """(B, S, N) values of the steps origin + first .. origin + stop."""
        return self._send(self._host.values(origins_B.cpu(), first, stop))

    def days(self, first: int, stop: int) -> Iterator[tuple[int, Tensor]]:
        """Each day of the steps first .. stop, and its (S, N) values."""
        for begin, values_SN in self._host.days(first, stop):
            yield begin, self._send(values_SN)

    def _send(self, tensor: Tensor) -> Tensor:
        if self.device.type != "cuda":
            return tensor.to(self.device)
        # Pinning copies, so the host may use the memory of its batch again at once.
        return tensor.pin_memory().to(self.device, non_blocking=True)
