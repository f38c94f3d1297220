"""Where a series lives while it serves: whole on the device, whole on the host, or in its store.

    device     it fits the memory of the device that trains: gathered there
    host       it fits the host, but not the GPU: gathered on the host, batches handed over
    streamed   it fits neither: blocks read from the store while others train

Only what is known before any work is looked at, so that too little memory is told at once.
"""

from dataclasses import dataclass
from typing import Literal

from flowpatch.errors import MemoryLimitError
from flowpatch.settings import format_bytes
from flowpatch.windows.allowance import Allowance
from flowpatch.windows.missing import Missing

WANTED_BLOCKS = 64
"""Held at a time, where memory allows: as many as twice a batch of 32 has windows."""
LEAST_BLOCKS = 8
"""With fewer, a naive forecast and the windows that it is scored on would take turns in them."""
AHEAD_BLOCKS = 2
"""Held beside those that are mixed: one that is read, and one that is ready."""
MOST_BUFFER_BYTES = 2**31
"""Of blocks: the page cache makes better use of more."""
_VALUE_BYTES = 4
_BYTES_A_STEP = 56
"""Of what is kept for every step of the axis: origins, their order, observed nodes."""

Kind = Literal["device", "host", "streamed"]


@dataclass(frozen=True)
class Needs:
    """Bytes that all else takes, on the host and on a GPU: process, model, batches at work."""

    host: int
    device: int = 0


@dataclass(frozen=True)
class SeriesSize:
    """What decides where a series of `steps` x `nodes` can live."""

    steps: int
    nodes: int
    chunk_steps: int
    input_len: int
    output_len: int
    missing: Missing

    @property
    def bytes(self) -> int:
        """The bare values."""
        return _VALUE_BYTES * self.steps * self.nodes

    @property
    def held_bytes(self) -> int:
        """Held whole: the values, the input prepared from them, and how deep each gap is."""
        gap_bytes = (1 if self.input_len < 2**8 - 1 else 2) if self.missing == "last" else 0
        return self.bytes + (_VALUE_BYTES + gap_bytes) * self.steps * self.nodes

    def block_bytes(self, block_steps: int) -> int:
        """A block of so many origins, with all steps of their windows."""
        return _VALUE_BYTES * self.nodes * (block_steps + self.input_len + self.output_len - 1)

    def reading_bytes(self, block_steps: int) -> int:
        """The chunks that a block lies in, while it is read: decoded, and as they came."""
        rows = block_steps + self.input_len + self.output_len - 1
        chunks = (rows - 1) // self.chunk_steps + 2
        return 2 * chunks * _VALUE_BYTES * self.nodes * self.chunk_steps


@dataclass(frozen=True)
class BlockPlan:
    """`held_blocks` blocks of `block_steps` origins in memory; windows are mixed over most."""

    block_steps: int
    held_blocks: int

    @property
    def mixed_blocks(self) -> int:
        """Over how many blocks an epoch mixes windows at a time."""
        return max(1, self.held_blocks - AHEAD_BLOCKS)


@dataclass(frozen=True)
class Residence:
    """Where a series lives; `plan` where it is streamed."""

    kind: Kind
    plan: BlockPlan | None = None


def choose(
    series: SeriesSize,
    needs: Needs,
    host: Allowance,
    device_bytes: int | None = None,
    processes: int = 1,
) -> Residence:
    """Where a series lives, given what all else needs and what the host and a GPU have.

    Args:
        series: its size.
        needs: of everything but the series, in each process.
        host: what all processes of the machine may take together.
        device_bytes: what is free on the GPU that trains; None where the CPU trains.
        processes: of this machine. They share a series on the host; blocks each has its own.

    Raises:
        MemoryLimitError: not even the blocks of a stream fit.
    """
    steps_bytes = _BYTES_A_STEP * series.steps
    each = Allowance(host.bytes // processes, host.of)
    free = each.bytes - needs.host - steps_bytes
    shared = processes * free
    if device_bytes is None:
        if series.held_bytes <= shared:
            return Residence("device")
    elif free >= 0 and series.held_bytes + needs.device <= device_bytes:
        return Residence("device")
    elif series.held_bytes <= shared:
        return Residence("host")
    return Residence("streamed", plan_blocks(series, free, each))


def plan_blocks(series: SeriesSize, free: int, host: Allowance) -> BlockPlan:
    """Blocks as long as a chunk, or shorter where few would fit, but no less than a window.

    Raises:
        MemoryLimitError: `LEAST_BLOCKS` of the shortest do not fit the free bytes.
    """
    window = series.input_len + series.output_len
    longest = max(window, series.chunk_steps)
    reading = series.reading_bytes(longest)
    needed = reading + LEAST_BLOCKS * series.block_bytes(window)
    if free < needed:
        others = host.bytes - free
        raise MemoryLimitError(
            f"The series of {format_bytes(series.bytes)} does not fit in the "
            f"{format_bytes(host.bytes)} of {host.of}, and reading it block by block takes at "
            f"least {format_bytes(others + needed)}: {format_bytes(needed)} for {LEAST_BLOCKS} "
            f"blocks of {format_bytes(series.block_bytes(window))} and what decodes them, beside "
            f"{format_bytes(others)} for the process, the model and its batches. Give a larger "
            "--memory-limit or a smaller --batch-size."
        )
    buffer = min(MOST_BUFFER_BYTES, free - reading)
    rows = buffer // (WANTED_BLOCKS * _VALUE_BYTES * series.nodes)
    block_steps = min(longest, max(window, rows - window + 1))
    blocks = -(-series.steps // block_steps)
    return BlockPlan(block_steps, min(blocks, buffer // series.block_bytes(block_steps)))
