"""Memory used again: never while anyone holds what lies in it."""

import gc

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowpatch.windows import memory
from flowpatch.windows.memory import BatchMemory


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["take", "view", "drop"]), st.integers(1, 3), st.integers(0, 99)),
        max_size=40,
    )
)
def test_what_is_held_never_changes(steps: list[tuple[str, int, int]]) -> None:
    recycled = BatchMemory()
    held: list[tuple[torch.Tensor, float]] = []
    for number, (action, rows, which) in enumerate(steps):
        if action == "take":
            held.append((recycled.empty((rows, 2)).fill_(number), number))
        elif action == "view" and held:
            # Only a part is held on; the tensor itself goes.
            tensor, mark = held.pop(which % len(held))
            held.append((tensor[:1].T, mark))
        elif held:
            held.pop(which % len(held))
        assert all((tensor == mark).all() for tensor, mark in held)


def test_what_nobody_holds_is_used_again() -> None:
    recycled = BatchMemory()
    first = recycled.empty((3, 4))
    place = first.data_ptr()
    other = recycled.empty((3, 4))
    assert other.data_ptr() != place
    del first
    gc.collect()
    assert recycled.empty((4, 3)).data_ptr() == place


def test_a_gradient_that_waits_keeps_its_input() -> None:
    recycled = BatchMemory()
    weight = torch.ones(4, requires_grad=True)
    loss = (recycled.empty((4,)).fill_(3) * weight).sum()
    recycled.empty((4,)).fill_(7)
    loss.backward()
    np.testing.assert_array_equal(weight.grad, np.full(4, 3))


def test_few_arrays_are_kept() -> None:
    recycled = BatchMemory()
    held = [recycled.empty((5,)) for _ in range(20)]
    assert len(held) == 20
    assert len(recycled._arrays) == memory.KEPT
