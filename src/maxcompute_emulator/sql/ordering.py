"""ORDER BY, LIMIT and OFFSET, and what names mean in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlglot import exp

from maxcompute_emulator.sql.expressions import ExpressionCompiler
from maxcompute_emulator.sql.scope import OutputColumn, Scope, Source, Typed

if TYPE_CHECKING:
    from maxcompute_emulator.sql.queries import QueryCompiler


def order_and_limit(compile_: ExpressionCompiler, node: exp.Expr) -> str:
    """The end of a query."""
    tail = ""
    if node.args.get("order"):
        tail += " " + compile_.order(node.args["order"])
    if node.args.get("limit"):
        tail += f" LIMIT {compile_(node.args['limit'].expression).sql}"
    if node.args.get("offset"):
        tail += f" OFFSET {compile_(node.args['offset'].expression).sql}"
    return tail


def output_first(queries: QueryCompiler, scope: Scope) -> ExpressionCompiler:
    """For ORDER BY, where the name of an output column goes before that of a source's."""
    columns = tuple(OutputColumn(name, value.type) for name, value in scope.aliases.items())
    taken = {column.name for column in columns}
    sources = [Source(source.alias, source.columns) for source in scope.sources]
    inner = Scope(scope.session, sources, dict(scope.aliases), set(), scope.parent)
    return _OrderCompiler(queries, inner, taken)


class _OrderCompiler(ExpressionCompiler):
    def __init__(self, queries: QueryCompiler, scope: Scope, taken: set[str]) -> None:
        super().__init__(queries, scope)
        self._taken = taken

    def _column(self, node: exp.Column) -> Typed:
        name = node.name.lower()
        if not node.table and name in self._taken:
            return self.scope.aliases[name]
        return super()._column(node)
