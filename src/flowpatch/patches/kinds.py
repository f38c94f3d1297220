"""The names of the layouts. Free of numpy, so that `--help` need not load it."""

from typing import Literal

LayoutKind = Literal["balanced", "paper"]
"""Equal patches; or the published layout, padded by similarity. See `layout.py`."""
