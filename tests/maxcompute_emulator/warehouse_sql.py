"""A warehouse asked in SQL, without a server."""

from maxcompute_emulator.sql import execute
from maxcompute_emulator.warehouse import Table, Warehouse


class Sql:
    """One warehouse, asked in SQL."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse

    def __call__(self, script: str, **hints: str) -> str:
        named = {key.replace("__", "."): value for key, value in hints.items()}
        return execute(self.warehouse, "demo", None, script, named).text

    def types(self, query: str) -> list[str]:
        rows = execute(self.warehouse, "demo", None, query, {}).rows
        assert rows is not None
        return [str(stored.column.type) for stored in rows.columns]

    def rows(self, query: str) -> list[tuple]:
        hints = {"odps.sql.allow.fullscan": "true", "odps.sql.validate.orderby.limit": "false"}
        outcome = execute(self.warehouse, "demo", None, query, hints)
        assert outcome.rows is not None
        found: list[tuple] = []
        for item in outcome.rows.snapshot(self.warehouse).read(0, 10**6):
            found += zip(*(column.to_pylist() for column in item.columns), strict=True)
        return found

    def table(self, name: str) -> Table:
        return self.warehouse.table("demo", None, name)
