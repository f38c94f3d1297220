"""Windows of a store, wherever its series fits; said in one line."""

import torch

from flowpatch.errors import MemoryLimitError
from flowpatch.progress import say
from flowpatch.settings import format_bytes
from flowpatch.store.sample_store import SampleStore
from flowpatch.windows.allowance import Allowance, memory_allowed, process_bytes
from flowpatch.windows.batches import Windows
from flowpatch.windows.in_memory import InMemory
from flowpatch.windows.missing import Missing
from flowpatch.windows.residence import BlockPlan, Needs, Residence, SeriesSize, choose
from flowpatch.windows.shared import Machine
from flowpatch.windows.streaming import Streamed
from flowpatch.windows.transfer import Transferred

_SPARE_SHARE = 0.1
"""Of a GPU's free memory, left to its allocator."""


def open_windows(
    store: SampleStore,
    input_len: int | None = None,
    output_len: int | None = None,
    missing: Missing = "last",
    device: torch.device | str = "cpu",
    memory_limit: int | None = None,
    needs: Needs | None = None,
    machine: Machine | None = None,
) -> Windows:
    """The windows of a store: of the series in memory, or streamed where it does not fit.

    Args:
        store: an open store version.
        input_len: steps before the origin; by default as the store was built.
        output_len: steps from the origin; by default as the store was built.
        missing: what the model sees in a missing cell.
        device: where batches are wanted.
        memory_limit: bytes that this process, or all of the machine, may take; by default what
            there is.
        needs: what all but the windows will take in a process.
        machine: the processes that read the store together, here and on other machines.

    Raises:
        MemoryLimitError: not even a few blocks fit.
    """
    device = torch.device(device)
    input_len = input_len or store.manifest.input_len
    output_len = output_len or store.manifest.output_len
    lengths = (input_len, output_len)
    series = SeriesSize(
        store.axis.length, store.manifest.nodes, store.chunk_steps, *lengths, missing
    )
    host, others = memory_allowed(memory_limit), needs or Needs(process_bytes())
    processes = machine.launch.local_size if machine else 1

    def decide() -> Residence:
        return choose(series, others, host, _free_on(device), processes)

    # By one for all: where it lives decides in which order windows come.
    found = machine.from_main(decide) if machine else decide()
    say(_line(series, found, host, device))
    if found.kind == "device":
        return InMemory.of_store(store, *lengths, missing, device, machine)
    on_host = (
        Streamed(store, found.plan, *lengths, missing)
        if found.plan
        else InMemory.of_store(store, *lengths, missing, machine=machine)
    )
    return on_host if device.type == "cpu" else Transferred(on_host, device)


def check_allowed(needs: Needs, memory_limit: int | None = None) -> None:
    """Makes sure that work without a series fits in the memory allowed.

    Raises:
        MemoryLimitError: it does not.
    """
    host = memory_allowed(memory_limit)
    if needs.host > host.bytes:
        raise MemoryLimitError(
            f"The process and the model take about {format_bytes(needs.host)}, more than the "
            f"{format_bytes(host.bytes)} of {host.of}. Give a larger --memory-limit."
        )


def _free_on(device: torch.device) -> int | None:
    """Bytes that are free on a GPU; None for the CPU."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    # What torch holds for later is free too.
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int((free + cached) * (1 - _SPARE_SHARE))


def _line(series: SeriesSize, found: Residence, host: Allowance, device: torch.device) -> str:
    size, limit = format_bytes(series.bytes), f"{format_bytes(host.bytes)} of {host.of}"
    if found.plan is not None:
        return f"The series ({size}) does not fit in the {limit}: {_of_plan(series, found.plan)}"
    where = {"device": f"in the memory of {device}", "host": f"on the host, as {device} is small"}
    within = f", within the {limit}" if device.type == "cpu" else ""
    return f"The series ({size}) is held {where[found.kind]}{within}"


def _of_plan(series: SeriesSize, plan: BlockPlan) -> str:
    block = series.block_bytes(plan.block_steps)
    return (
        f"streamed from the store, windows mixed over {plan.mixed_blocks} blocks of "
        f"{plan.block_steps:,} steps at a time, in a buffer of "
        f"{format_bytes(plan.held_blocks * block)}"
    )
