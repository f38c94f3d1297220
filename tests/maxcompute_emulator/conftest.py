"""A running emulator, the real client on it, and tables made without SQL."""

import itertools
import json
from collections.abc import Callable, Iterator
from urllib.request import Request, urlopen

import pytest
from odps import ODPS, options
from odps.tunnel import TableTunnel
from warehouse_sql import Sql

from maxcompute_emulator.emulator import Emulator
from maxcompute_emulator.types import Column, parse_type
from maxcompute_emulator.warehouse import StoredColumn, Table, TableRecord, Warehouse

_names = (f"t{number}" for number in itertools.count(1))


class Control:
    """The control address."""

    def __init__(self, base: str) -> None:
        self.base = base

    def call(self, method: str, path: str, body: object = None) -> object:
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.base}/{path}", data=data, method=method)  # noqa: S310
        with urlopen(request) as answer:  # noqa: S310
            return json.load(answer)

    def faults(self, *kinds: str, **rule: object) -> None:
        self.call("PUT", "faults", {"kinds": kinds, **rule})

    def requests(self, method: str = "", containing: str = "") -> list[dict]:
        return [
            entry
            for entry in self.call("GET", "requests")
            if method in ("", entry["method"]) and containing in f"{entry['path']}?{entry['query']}"
        ]


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    """One server for all tests; each makes its own tables."""
    with Emulator(projects=("demo", "other")) as running:
        yield running


@pytest.fixture
def control(emulator: Emulator) -> Iterator[Control]:
    """The control address, clean before and after."""
    control = Control(emulator.control)
    control.call("DELETE", "requests")
    yield control
    control.call("DELETE", "faults")
    control.call("PUT", "bandwidth", {"bytes_per_second": None})


@pytest.fixture
def odps(emulator: Emulator) -> Iterator[ODPS]:
    """The real client, without its pauses before it tries again."""
    before = options.retry_delay, options.retry_times
    options.retry_delay = 0.01
    yield ODPS("emulator", "emulator", project="demo", endpoint=emulator.endpoint)
    options.retry_delay, options.retry_times = before


@pytest.fixture
def tunnel(odps: ODPS) -> TableTunnel:
    """The client's table tunnel."""
    return TableTunnel(odps)


@pytest.fixture
def make_table(emulator: Emulator) -> Callable[..., Table]:
    """Makes a table of columns given as name=type."""

    def make(
        partitions: dict[str, str] | None = None,
        primary_key: tuple[str, ...] = (),
        **columns: str,
    ) -> Table:
        stored = tuple(
            StoredColumn(number, Column(name, parse_type(kind)))
            for number, (name, kind) in enumerate(columns.items())
        )
        keys = tuple(Column(name, parse_type(kind)) for name, kind in (partitions or {}).items())
        record = TableRecord(
            id=0,
            project="demo",
            schema="default",
            name=next(_names),
            columns=stored,
            created=0,
            modified=0,
            ddl_time=0,
            owner="emulator",
            partition_columns=keys,
            next_column_id=len(stored),
            primary_key=primary_key,
        )
        return emulator.warehouse.create(record)

    return make


@pytest.fixture
def sql() -> Iterator[Sql]:
    """SQL on a warehouse of the test's own."""
    warehouse = Warehouse(None, projects=["demo", "other"])
    yield Sql(warehouse)
    warehouse.close()
