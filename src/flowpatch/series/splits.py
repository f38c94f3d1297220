"""The borders of train, val and test on the time axis.

    first                                                    stop
      |------------- train -------------|--- val ---|-- test --|

Ratios split the stretch from the first to the last observed step, in order. A window belongs to
the split that holds all of its labels; which origins that leaves is in `windows/origins.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from flowpatch.errors import PeriodError, SettingsError

SplitName = Literal["train", "val", "test"]
SPLIT_NAMES: tuple[SplitName, ...] = get_args(SplitName)

Ratios = tuple[float, float, float]


@dataclass(frozen=True)
class Splits:
    """Steps first .. val_start are train, val_start .. test_start val, test_start .. stop test."""

    first: int
    val_start: int
    test_start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.val_start <= self.test_start <= self.stop:
            raise PeriodError(f"The borders of the splits are out of order: {self.to_json()}.")

    def bounds(self, split: SplitName) -> tuple[int, int]:
        """First and stop step of a split's labels.

        Raises:
            SettingsError: there is no such split.
        """
        if split not in SPLIT_NAMES:
            raise SettingsError(f"Unknown split '{split}'. Allowed: {', '.join(SPLIT_NAMES)}.")
        borders = (self.first, self.val_start, self.test_start, self.stop)
        position = SPLIT_NAMES.index(split)
        return borders[position], borders[position + 1]

    def check_windows(self, input_len: int, output_len: int) -> None:
        """Makes sure that every split holds at least one window.

        Raises:
            PeriodError: the period or a split is too short.
        """
        steps = self.stop - self.first
        if steps < input_len + output_len:
            raise PeriodError(
                f"The period has {steps} steps with values, shorter than one window of "
                f"{input_len} + {output_len}. Give a longer period, or a smaller --input-len or "
                "--output-len."
            )
        for split in SPLIT_NAMES:
            first, stop = self.bounds(split)
            # Before the first input_len steps of the stretch, no window has its whole input.
            usable = stop - max(first, self.first + input_len)
            if usable < output_len:
                raise PeriodError(
                    f"The split '{split}' of {stop - first} steps holds no window: "
                    f"{max(usable, 0)} steps can be labels and a window needs {output_len}. "
                    f"Give a longer period, a larger --{split}-ratio or a smaller --output-len."
                )

    def to_json(self) -> dict[str, int]:
        """What `from_json` reads."""
        return {
            "first": self.first,
            "val_start": self.val_start,
            "test_start": self.test_start,
            "stop": self.stop,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Splits":
        """The splits that `to_json` described."""
        return cls(**content)


def check_ratios(ratios: Ratios) -> Ratios:
    """The ratios themselves, if they are shares of one whole.

    Raises:
        SettingsError: one is not above 0, or they do not add to 1.
    """
    if min(ratios) <= 0 or abs(sum(ratios) - 1) > 1e-6:
        given = " + ".join(f"{ratio:g}" for ratio in ratios)
        raise SettingsError(
            f"The ratios {given} = {sum(ratios):g} must each be above 0 and add to 1. "
            "Set --train-ratio, --val-ratio and --test-ratio, such as 0.6, 0.2 and 0.2."
        )
    return ratios


def split_by_ratio(first: int, stop: int, ratios: Ratios) -> Splits:
    """Cuts the steps first .. stop in order by the ratios of train, val and test."""
    train, val, _ = check_ratios(ratios)
    steps = stop - first
    # Rounding first: 0.6 + 0.2 is a little less than 0.8 in floating point.
    val_start = first + int(round(train * steps, 6))
    test_start = first + int(round((train + val) * steps, 6))
    return Splits(first, val_start, test_start, stop)
