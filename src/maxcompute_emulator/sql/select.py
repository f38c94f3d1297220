"""One SELECT: its sources, its list, its groups and its order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlglot import exp

from maxcompute_emulator import errors
from maxcompute_emulator.sql import pruning, rules
from maxcompute_emulator.sql.expressions import ExpressionCompiler
from maxcompute_emulator.sql.ordering import order_and_limit, output_first
from maxcompute_emulator.sql.scope import OutputColumn, Relation, Scope, Source, Typed
from maxcompute_emulator.sql.sources import lateral_sql, table_rows
from maxcompute_emulator.warehouse.storage import quoted

if TYPE_CHECKING:
    from maxcompute_emulator.sql.queries import QueryCompiler


def renamed(relation: Relation, names: Sequence[str]) -> Relation:
    """The same rows under other column names; none given means as they are."""
    if not names or [column.name for column in relation.columns] == list(names):
        return relation
    if len(names) != len(relation.columns):
        raise errors.semantic_error("the number of column names differs from that of the query")
    columns = tuple(
        OutputColumn(name.lower(), column.type)
        for name, column in zip(names, relation.columns, strict=True)
    )
    heading = ", ".join(quoted(column.name) for column in columns)
    return Relation(f"SELECT * FROM ({relation.sql}) AS q({heading})", columns)


class SelectCompiler:
    """One SELECT."""

    def __init__(
        self,
        queries: QueryCompiler,
        node: exp.Select,
        inherited: Sequence[exp.Expr],
        outer: Scope | None,
    ) -> None:
        self.queries = queries
        self.session = queries.session
        self.node = node
        self.scope = Scope(self.session, parent=outer)
        self.compile_ = ExpressionCompiler(queries, self.scope)
        self.conditions = [
            *pruning.conjuncts(node.args.get("where")),
            *rules.pushed_down(node, inherited),
            *_inner_join_conditions(node),
        ]

    def compile(self) -> Relation:
        """The query for DuckDB."""
        for kind in ("kind", "match", "sample", "pivots", "connect", "qualify_into"):
            if self.node.args.get(kind):
                raise errors.unsupported(f"'{kind}' in a query")
        from_ = self._from()
        items = self._projections()
        columns = tuple(OutputColumn(name, value.type) for name, value in items)
        listed = ", ".join(f"{value.sql} AS {quoted(name)}" for name, value in items)
        where = self._clause("where", "WHERE")
        group = self._group(dict(items))
        self._add_aliases(items)
        having = self._clause("having", "HAVING")
        qualify = self._clause("qualify", "QUALIFY")
        windows = self._windows()
        self.scope.aliases = {name: Typed(quoted(name), value.type) for name, value in items}
        tail = order_and_limit(output_first(self.queries, self.scope), self.node)
        distinct = "DISTINCT " if self.node.args.get("distinct") else ""
        body = f"SELECT {distinct}{listed}{from_}{where}{group}{having}{windows}{qualify}{tail}"
        return Relation(body, columns)

    def _clause(self, key: str, word: str) -> str:
        clause = self.node.args.get(key)
        return f" {word} {self.compile_(clause.this).sql}" if clause else ""

    # FROM.

    def _from(self) -> str:
        from_ = self.node.args.get("from_")
        if from_ is None:
            return ""
        joins = self.node.args.get("joins") or []
        laterals = self.node.args.get("laterals") or []
        alone = not joins and not laterals
        text = " FROM " + self._source(from_.this, self.conditions, alone)
        for join in joins:
            text += self._join(join)
        for lateral in laterals:
            text += lateral_sql(lateral, self.compile_, self.scope)
        return text

    def _join(self, join: exp.Join) -> str:
        side = (join.args.get("side") or "").upper()
        kind = (join.args.get("kind") or "").upper()
        if join.args.get("method"):
            raise errors.unsupported(f"{join.args['method']} JOIN")
        on = join.args.get("on")
        # What ON says of a side whose rows all stay does not choose among them.
        usable = [*self.conditions, *(pruning.conjuncts(on) if side in ("", "LEFT") else [])]
        if kind in ("SEMI", "ANTI"):
            usable = pruning.conjuncts(on)
        before = len(self.scope.sources)
        text = self._source(join.this, usable, alone=False)
        words = {"SEMI": "SEMI JOIN", "ANTI": "ANTI JOIN"}.get(kind)
        using = [item.name.lower() for item in join.args.get("using") or []]
        self.scope.shared |= set(using)
        if words is None:
            plain = kind == "CROSS" or (not on and not using)
            words = "CROSS JOIN" if plain and not side else f"{side} JOIN".strip()
        sql = f" {words} {text}"
        if using:
            sql += f" USING ({', '.join(quoted(name) for name in using)})"
        elif on is not None and words != "CROSS JOIN":
            sql += f" ON {self.compile_(on).sql}"
        elif on is not None:
            sql = f" JOIN {text} ON {self.compile_(on).sql}"
        elif words != "CROSS JOIN":
            raise errors.semantic_error(f"{words} needs an ON clause")
        if kind in ("SEMI", "ANTI"):
            del self.scope.sources[before:]
        return sql

    def _source(self, node: exp.Expr, conditions: Sequence[exp.Expr], alone: bool) -> str:
        if node.args.get("joins"):
            raise errors.unsupported("joins in parentheses")
        alias = (node.alias_or_name or f"_s{len(self.scope.sources)}").lower()
        names = [item.name for item in node.args["alias"].columns] if node.args.get("alias") else []
        if isinstance(node, exp.Values):
            relation = self.queries.values(node, names)
        elif isinstance(node, exp.Subquery):
            inner = [] if names else self._inner(conditions, alias, alone)
            relation = renamed(self.queries.query(node.this, inner), names)
        elif isinstance(node, exp.Table):
            relation = self._table(node, alias, conditions, alone)
        else:
            raise errors.unsupported(f"{type(node).__name__} in FROM")
        self.scope.sources.append(Source(alias, relation.columns))
        return f"({relation.sql}) AS {quoted(alias)}"

    @staticmethod
    def _inner(conditions: Sequence[exp.Expr], alias: str, alone: bool) -> list[exp.Expr]:
        """Conditions on one source only, without its alias."""
        passed = []
        for condition in conditions:
            columns = list(condition.find_all(exp.Column))
            mine = all(
                column.table.lower() == alias or (alone and not column.table) for column in columns
            )
            if columns and mine and not condition.find(exp.Query):
                stripped = condition.copy()
                for column in stripped.find_all(exp.Column):
                    column.set("table", None)
                passed.append(stripped)
        return passed

    def _table(
        self, node: exp.Table, alias: str, conditions: Sequence[exp.Expr], alone: bool
    ) -> Relation:
        if node.args.get("sample"):
            raise errors.unsupported("TABLESAMPLE")
        inner = self._inner(conditions, alias, alone)
        relation, table = self.queries.named(node, inner)
        if relation is not None:
            return relation
        if table is None:
            raise errors.no_such_table(node.name)
        values = list(table.record.parts)
        if table.partition_columns:
            keys = {column.name.lower() for column in table.partition_columns}
            rules.check_full_scan(self.session, table, alias, keys, conditions)
            own = self._owns(alias, keys, alone)
            useful = [item for item in conditions if pruning.about(item, alias, keys, own)]
            values = pruning.prune(self.session, table, alias, useful, self._condition)
        parts = [table.record.parts[value] for value in values]
        self.session.escaped |= any(item.escaped for part in parts for item in part.segments)
        self.session.input_bytes += sum(part.size_bytes for part in parts)
        return table_rows(table, values)

    def _owns(self, alias: str, keys: set[str], alone: bool) -> bool:
        """Whether a plain name of a key can only mean this table."""
        others = {
            column.name
            for source in self.scope.sources
            if source.alias != alias
            for column in source.columns
        }
        joins = self.node.args.get("joins") or []
        return alone or (not others & keys and len(joins) <= len(self.scope.sources))

    def _condition(self, condition: exp.Expr, scope: Scope) -> str:
        return ExpressionCompiler(self.queries, scope)(condition).sql

    # SELECT list and grouping.

    def _projections(self) -> list[tuple[str, Typed]]:
        items: list[tuple[str, Typed]] = []
        for position, node in enumerate(self.node.expressions):
            if isinstance(node, exp.Star) or (
                isinstance(node, exp.Column) and isinstance(node.this, exp.Star)
            ):
                items.extend(self._star(node))
            elif isinstance(node, (exp.Alias, exp.Column | exp.Dot)):
                items.append((node.output_name.lower(), self.compile_(node)))
            else:
                items.append((f"_c{position}", self.compile_(node)))
        if not items:
            raise errors.parse_error("a query needs columns")
        return items

    def _star(self, node: exp.Expr) -> list[tuple[str, Typed]]:
        if node.args.get("except_") or node.args.get("replace"):
            raise errors.unsupported("SELECT * EXCEPT or REPLACE")
        wanted = node.table.lower() if isinstance(node, exp.Column) else ""
        items: list[tuple[str, Typed]] = []
        seen: set[str] = set()
        for source in self.scope.sources:
            if wanted and source.alias != wanted:
                continue
            for column in source.columns:
                shared = column.name in self.scope.shared and not wanted
                if shared and column.name in seen:
                    continue
                seen.add(column.name)
                names = [column.name] if shared else [source.alias, column.name]
                items.append((column.name, self.scope.resolve(names, 1, 1)))
        if not items:
            raise errors.semantic_error(f"'{node.sql()}' names no columns")
        return items

    def _group(self, items: dict[str, Typed]) -> str:
        group = self.node.args.get("group")
        if group is None:
            return ""
        plain = [self._group_key(node, items) for node in group.expressions]
        parts = list(plain)
        for key in ("rollup", "cube"):
            if group.args.get(key):
                # `GROUP BY a, b WITH ROLLUP` has the keys before it.
                parts = [f"{key.upper()} ({', '.join(plain)})"]
        for sets in group.args.get("grouping_sets") or []:
            listed = ", ".join(self.compile_(item).sql for item in sets.expressions)
            # Keys before GROUPING SETS only name what the sets group by.
            parts = [f"GROUPING SETS ({listed})"]
        return " GROUP BY " + ", ".join(parts)

    def _group_key(self, node: exp.Expr, items: dict[str, Typed]) -> str:
        if isinstance(node, exp.Rollup | exp.Cube):
            inner = ", ".join(self._group_key(item, items) for item in node.expressions)
            return f"{'ROLLUP' if isinstance(node, exp.Rollup) else 'CUBE'} ({inner})"
        if isinstance(node, exp.Literal) and not node.is_string:
            rules.check_group_position(self.session, node)
            return node.name
        if isinstance(node, exp.Column) and not node.table:
            name = node.name.lower()
            owned = any(source.column(name) for source in self.scope.sources)
            if not owned and name in items:
                return f"({items[name].sql})"
        return self.compile_(node).sql

    def _windows(self) -> str:
        windows = self.node.args.get("windows") or []
        named = [f'"{item.name.lower()}" AS ({self.compile_.window(item)})' for item in windows]
        return " WINDOW " + ", ".join(named) if named else ""

    def _add_aliases(self, items: list[tuple[str, Typed]]) -> None:
        self.scope.aliases = {name: Typed(f"({value.sql})", value.type) for name, value in items}


def _inner_join_conditions(node: exp.Select) -> list[exp.Expr]:
    joins = node.args.get("joins") or []
    inner = [join for join in joins if not join.args.get("side") and not join.args.get("method")]
    return [item for join in inner for item in pruning.conjuncts(join.args.get("on"))]
