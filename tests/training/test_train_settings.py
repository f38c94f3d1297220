"""Schedules and what settings refuse."""

import pytest

from flowpatch.errors import SettingsError
from flowpatch.training.settings import TrainSettings


def test_multistep_halves_after_the_published_epochs() -> None:
    settings = TrainSettings(learning_rate=0.002)
    rates = {epoch: settings.learning_rate_at(epoch, 0) for epoch in (0, 1, 34, 35, 40, 49)}
    assert rates == {0: 0.002, 1: 0.001, 34: 0.001, 35: 0.0005, 40: 0.00025, 49: 0.00025}


def test_cosine_falls_from_the_whole_rate_to_nothing() -> None:
    settings = TrainSettings(learning_rate=0.1, schedule="cosine")
    rates = [settings.learning_rate_at(0, share) for share in (0, 0.25, 0.5, 0.75, 1)]
    assert rates[0] == 0.1
    assert rates == sorted(rates, reverse=True)
    assert rates[2] == pytest.approx(0.05)
    assert rates[-1] == pytest.approx(0)


def test_constant_stays() -> None:
    settings = TrainSettings(learning_rate=0.1, schedule="constant")
    assert {settings.learning_rate_at(epoch, 0.9) for epoch in range(50)} == {0.1}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_epoch", 0),
        ("batch_size", -1),
        ("learning_rate", 0),
        ("learning_rate", float("nan")),
        ("schedule", "linear"),
        ("precision", "fp8"),
        ("missing", "drop"),
        ("seed", -1),
        ("epochs", 5),
    ],
)
def test_a_bad_value_or_unknown_key_is_named(key: str, value: object) -> None:
    with pytest.raises(SettingsError, match=key):
        TrainSettings(**{key: value})
