"""A city that grows, its store before and after, and processes to kill."""

from collections.abc import Iterator

import pytest

from command_forker import Commands
from flowpatch.store.sample_store import open_store
from growing_city import DAYS, DAYS_BEFORE, GrowingCity, Grown, hashes_of


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Commands that gather and write one day at a time, and make each safe."""
    with Commands(tmp_path_factory.mktemp("said")) as started:
        yield started


@pytest.fixture(scope="session")
def grown(tmp_path_factory: pytest.TempPathFactory, commands: Commands) -> Grown:
    folder = tmp_path_factory.mktemp("grown")
    city = GrowingCity(folder / "city")
    city.write_days(range(DAYS_BEFORE))
    assert commands.run(city.command(folder / "before")).code == 0
    city.write_days(range(DAYS_BEFORE, DAYS))
    city.write_days([1], seed=1)
    assert commands.run(city.command(folder / "after")).code == 0
    return Grown(
        city,
        folder / "before",
        *hashes_of(folder / "before").values(),
        open_store(folder / "after").manifest.content_hash,
    )
