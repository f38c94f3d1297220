"""Series that are streamed although memory would hold them, for tests."""

import pytest

from flowpatch.windows import opening
from flowpatch.windows.residence import BlockPlan, Residence


def stream_everything(patched: pytest.MonkeyPatch, plan: BlockPlan) -> None:
    """However much memory there is."""
    patched.setattr(opening, "choose", lambda *_: Residence("streamed", plan))
