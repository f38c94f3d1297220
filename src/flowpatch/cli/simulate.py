"""`flowpatch simulate`: the raw records of a city of any size."""

from typing import Annotated

from cyclopts import Parameter

from flowpatch.progress import say
from flowpatch.sources.simulated import SimulateSettings
from flowpatch.sources.simulated import simulate as write_city


def simulate(*, settings: Annotated[SimulateSettings, Parameter(name="*")]) -> None:
    """Write the raw records and the node table of a simulated city."""
    city = write_city(settings)
    say(f"{city.records:,} records of {city.nodes:,} nodes, {city.bytes / 1e6:,.1f} MB")
    print(city.records_path)
    print(city.nodes_path)
