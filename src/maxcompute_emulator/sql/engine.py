"""Runs a script: the statements of one SQL task, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import duckdb
from sqlglot import exp

from maxcompute_emulator import errors
from maxcompute_emulator.sql.alter import alter
from maxcompute_emulator.sql.create import create
from maxcompute_emulator.sql.dialect import parse_query
from maxcompute_emulator.sql.drop import drop, truncate
from maxcompute_emulator.sql.insert import insert
from maxcompute_emulator.sql.queries import QueryCompiler
from maxcompute_emulator.sql.reader import Reader, Token
from maxcompute_emulator.sql.results import Rows, run_query
from maxcompute_emulator.sql.scope import Session
from maxcompute_emulator.sql.script import read_assignment, read_script
from maxcompute_emulator.sql.show import describe, explain, show
from maxcompute_emulator.warehouse import Warehouse

_SILENT: dict[str, Callable[[Session, Reader], None]] = {
    "CREATE": create,
    "DROP": drop,
    "ALTER": alter,
    "TRUNCATE": truncate,
    "INSERT": insert,
}
_TELLING: dict[str, Callable[[Session, Reader], str]] = {
    "SHOW": show,
    "DESC": describe,
    "DESCRIBE": describe,
    "EXPLAIN": explain,
}
_REFUSED = {"DELETE", "UPDATE", "MERGE", "FROM", "GRANT", "REVOKE", "UNLOAD", "LOAD", "ADD"}
_QUERIES = {"SELECT", "WITH", "(", "VALUES"}

Watch = Callable[[duckdb.DuckDBPyConnection], None]


@dataclass(frozen=True)
class Outcome:
    """What the last statement gave: rows, or a text."""

    text: str = ""
    rows: Rows | None = None


def execute(
    warehouse: Warehouse,
    project: str,
    schema: str | None,
    script: str,
    hints: Mapping[str, str],
    watch: Watch = lambda _cursor: None,
) -> Outcome:
    """Run every statement; the last one's outcome is the script's.

    Raises:
        ServiceError: A statement is refused or fails; those before it stay done.
    """
    read = read_script(script)
    settings = {**hints, **read.settings}
    place = schema or settings.get("odps.default.schema") or "default"
    warehouse.expire()
    outcome = Outcome()
    variables: list[tuple[str, exp.Expr]] = []
    for statement in read.statements:
        if assignment := read_assignment(statement):
            name, query = assignment
            variables.append((name, parse_query(query)))
            continue
        if outcome.rows:
            warehouse.storage.drop(outcome.rows.segments)
        session = Session(
            warehouse, project.lower(), place.lower(), settings, tuple(variables), watch=watch
        )
        outcome = _execute_one(session, statement)
    return outcome


def input_bytes(
    warehouse: Warehouse, project: str, schema: str | None, script: str, hints: Mapping[str, str]
) -> int:
    """What the queries of a script would read, told without running them."""
    read = read_script(script)
    total = 0
    for statement in read.statements:
        reader = Reader(statement)
        if reader.current.value.upper() not in _QUERIES:
            continue
        settings = {**hints, **read.settings}
        session = Session(warehouse, project.lower(), (schema or "default").lower(), settings)
        QueryCompiler(session).query(parse_query(statement))
        total += session.input_bytes
    return total


def _execute_one(session: Session, statement: str) -> Outcome:
    reader = Reader(statement)
    word = reader.current.value.upper()
    insertion = _insertion(reader) if word == "WITH" else None
    if insertion is not None:
        # WITH before INSERT belongs to the query behind it.
        head = statement[: insertion.start]
        inner = Reader(statement[insertion.start :])
        inner.take()
        insert(session, inner, head)
        return Outcome("")
    if word in _QUERIES:
        tree = parse_query(statement)
        return Outcome(rows=run_query(session, lambda: QueryCompiler(session).query(tree)))
    if word in _SILENT:
        reader.take()
        _SILENT[word](session, reader)
        return Outcome("")
    if word in _TELLING:
        reader.take()
        return Outcome(_TELLING[word](session, reader))
    if word in _REFUSED:
        raise errors.unsupported(f"{word} statements")
    raise reader.error("no statement begins like this")


def _insertion(reader: Reader) -> Token | None:
    """The word INSERT outside of parentheses."""
    depth = 0
    for token in reader.tokens:
        if token.kind == "sign":
            depth += (token.value == "(") - (token.value == ")")
        if depth == 0 and token.kind == "word" and token.value.upper() == "INSERT":
            return token
    return None
