"""Where a series lives, and how long and how many blocks are, from sizes alone."""

import pytest

from flowpatch.errors import MemoryLimitError
from flowpatch.windows.allowance import Allowance
from flowpatch.windows.residence import (
    LEAST_BLOCKS,
    MOST_BUFFER_BYTES,
    WANTED_BLOCKS,
    Kind,
    Needs,
    SeriesSize,
    choose,
)

MB, GB = 10**6, 10**9
SD = SeriesSize(
    steps=100_000, nodes=716, chunk_steps=1440, input_len=12, output_len=12, missing="last"
)
"""286 MB of values; 644 MB held, with the prepared input and how deep each gap is."""


@pytest.mark.parametrize(
    ("host", "device", "needs", "kind"),
    [
        # The CPU trains: what it has decides.
        (2 * GB, None, Needs(GB), "device"),
        (1.7 * GB, None, Needs(GB), "device"),
        (1.6 * GB, None, Needs(GB), "streamed"),
        (2 * GB, None, Needs(1.4 * GB), "streamed"),
        # A GPU trains: it holds the series where it can, though the host cannot.
        (2 * GB, 2 * GB, Needs(GB, GB), "device"),
        (1.1 * GB, 2 * GB, Needs(GB, GB), "device"),
        # Else the host does, and else the store.
        (2 * GB, 1.5 * GB, Needs(GB, GB), "host"),
        (1.6 * GB, 1.5 * GB, Needs(GB, GB), "streamed"),
    ],
)
def test_a_series_lives_where_it_fits(
    host: float, device: float | None, needs: Needs, kind: Kind
) -> None:
    found = choose(SD, needs, Allowance(int(host), "it"), device and int(device))
    assert found.kind == kind
    assert (found.plan is not None) == (kind == "streamed")


@pytest.mark.parametrize("missing", ["zero", "mean"])
def test_without_gaps_to_hide_a_series_takes_less(missing: str) -> None:
    lean = SeriesSize(100_000, 716, 1440, 12, 12, missing)  # type: ignore[arg-type]
    assert SD.bytes == lean.bytes == 4 * 100_000 * 716
    assert lean.held_bytes == 2 * SD.bytes
    assert SD.held_bytes == 2.25 * SD.bytes


@pytest.mark.parametrize("free", [60 * MB, 100 * MB, 150 * MB, 300 * MB, 500 * MB])
def test_the_blocks_fit_what_is_free(free: int) -> None:
    long = SeriesSize(10_000_000, 716, 1440, 12, 12, "last")
    host = GB + free + 56 * long.steps
    plan = choose(long, Needs(GB), Allowance(host, "it")).plan
    assert plan is not None
    buffer = plan.held_blocks * long.block_bytes(plan.block_steps)
    assert 0.8 * free - long.reading_bytes(1440) < buffer
    assert buffer + long.reading_bytes(plan.block_steps) <= free
    assert 24 <= plan.block_steps <= 1440
    # As long as a chunk only where so many blocks can be mixed.
    assert plan.held_blocks >= WANTED_BLOCKS
    assert plan.mixed_blocks < plan.held_blocks


def test_a_buffer_is_no_larger_than_is_of_use() -> None:
    long = SeriesSize(10_000_000, 716, 1440, 12, 12, "last")
    plan = choose(long, Needs(GB), Allowance(20 * GB, "it")).plan
    assert plan is not None
    buffer = plan.held_blocks * long.block_bytes(plan.block_steps)
    assert 0.9 * MOST_BUFFER_BYTES < buffer <= MOST_BUFFER_BYTES


def test_a_wide_series_is_cut_into_blocks_of_a_window() -> None:
    wide = SeriesSize(43_200, 100_000, 20, 12, 12, "last")
    plan = choose(wide, Needs(GB), Allowance(GB + 500 * MB, "it")).plan
    assert plan is not None
    assert plan.block_steps == 24
    assert plan.held_blocks >= LEAST_BLOCKS


@pytest.mark.parametrize("host", [500 * MB, GB, GB + 5 * MB])
def test_too_little_memory_is_one_error_that_says_what_would_do(host: int) -> None:
    with pytest.raises(MemoryLimitError) as caught:
        choose(SD, Needs(GB), Allowance(host, "--memory-limit"))
    message = str(caught.value)
    for part in ("286 MB", "of --memory-limit", "at least 1.0", "135 kB", "--batch-size"):
        assert part in message
    assert "\n" not in message
