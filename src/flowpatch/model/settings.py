"""What a PatchSTG is built from. Free of torch, so that `--help` need not load it."""

from typing import Annotated

from pydantic import Field

from flowpatch.errors import SettingsError
from flowpatch.patches.kinds import LayoutKind
from flowpatch.settings import Settings

Positive = Annotated[int, Field(ge=1)]


class ModelSettings(Settings):
    """Widths, depth and patching of a PatchSTG.

    The published widths for LargeST are input_dims 64, node_dims 32, tod_dims 32, dow_dims 32 and
    5 layers; the defaults are 2.5 times narrower, for hours of training on a laptop rather than a
    day.
    """

    layers: Positive = 3
    """Encoder blocks."""
    input_dims: Positive = 24
    """Width of the embedded input values."""
    node_dims: Positive = 16
    """Width of the learned embedding of a node."""
    tod_dims: Positive = 12
    """Width of the learned embedding of the time of day."""
    dow_dims: Positive = 12
    """Width of the learned embedding of the day of the week."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout in attention and MLPs, in training only."""
    temporal_patch_size: Positive | None = None
    """Input steps of one temporal patch; by default all of them."""
    layout: LayoutKind = "balanced"
    """How nodes are cut into patches: equal patches, or the published layout."""
    factors: Positive | None = None
    """paper: leaves a patch, must divide 2**depth. balanced: the number of patches."""
    depth: Annotated[int, Field(ge=0)] | None = None
    """paper: depth of the KD-tree, which has 2**depth leaves (published as recur)."""
    leaf_size: Positive | None = None
    """paper: nodes a leaf after padding (published as sps)."""

    @property
    def dims(self) -> int:
        """Width of the encoder."""
        return self.input_dims + self.node_dims + self.tod_dims + self.dow_dims

    def temporal_patches(self, input_len: int) -> tuple[int, int]:
        """Size and number of the temporal patches of an input.

        Raises:
            SettingsError: the size does not divide the input; the message names those that do.
        """
        size = self.temporal_patch_size or input_len
        if input_len % size:
            fitting = [n for n in range(1, input_len + 1) if input_len % n == 0]
            raise SettingsError(
                f"--temporal-patch-size {size} does not divide --input-len {input_len}. "
                f"Allowed: {', '.join(map(str, fitting))}."
            )
        return size, input_len // size

    def check_layout(self) -> None:
        """Makes sure that no flag of the other layout was set.

        Raises:
            SettingsError: one was.
        """
        if self.layout == "balanced" and (self.depth, self.leaf_size) != (None, None):
            raise SettingsError(
                "--depth and --leaf-size belong to --layout paper. With --layout balanced, set "
                "--factors to the number of patches."
            )
