"""The service's rules on queries, refused in its words."""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from maxcompute_emulator import errors
from maxcompute_emulator.sql import pruning
from maxcompute_emulator.sql.scope import Session
from maxcompute_emulator.warehouse import Table


def check_order_by(session: Session, node: exp.Expr) -> None:
    """ORDER BY needs LIMIT, unless `odps.sql.validate.orderby.limit` is false."""
    order = node.args.get("order")
    if order is None:
        return
    if not node.args.get("limit") and session.flag("odps.sql.validate.orderby.limit", True):
        raise errors.semantic_error(
            "ORDER BY must be used with a LIMIT clause, please set "
            "odps.sql.validate.orderby.limit=false to use it"
        )
    by_position = any(
        isinstance(item.this, exp.Literal) and not item.this.is_string for item in order.expressions
    )
    if by_position and not session.flag("odps.sql.orderby.position.alias"):
        raise errors.semantic_error(
            "ORDER BY a position needs odps.sql.orderby.position.alias=true"
        )


def check_group_position(session: Session, node: exp.Expr) -> None:
    """GROUP BY a position needs `odps.sql.groupby.position.alias`."""
    if not session.flag("odps.sql.groupby.position.alias"):
        raise errors.semantic_error(
            f"GROUP BY the position {node.name} needs odps.sql.groupby.position.alias=true"
        )


def check_full_scan(
    session: Session,
    table: Table,
    alias: str,
    keys: set[str],
    conditions: Sequence[exp.Expr],
) -> None:
    """A partitioned table needs a condition on a key, unless `odps.sql.allow.fullscan` is true."""
    if session.flag("odps.sql.allow.fullscan"):
        return
    if not any(pruning.mentions(condition, alias, keys) for condition in conditions):
        raise errors.semantic_error(
            "physical plan generation failed: java.lang.RuntimeException: "
            f"Table({table.project},{table.name}) is full scan with all partitions, "
            "please specify partition predicates."
        )


def pushed_down(node: exp.Select, inherited: Sequence[exp.Expr]) -> list[exp.Expr]:
    """Conditions on the output of a SELECT, said of its sources, where that means the same."""
    if node.args.get("limit") or node.args.get("offset") or node.find(exp.Window):
        return []
    group = node.args.get("group")
    keys = {item.name.lower() for item in group.expressions} if group else None
    found = []
    for condition in inherited:
        moved = condition.copy()
        if all(_move(column, node, keys) for column in list(moved.find_all(exp.Column))):
            found.append(moved)
    return found


def _move(column: exp.Column, node: exp.Select, keys: set[str] | None) -> bool:
    """Replace an output column by the source's column that it shows, if it shows one."""
    name = column.name.lower()
    for item in node.expressions:
        if item.output_name.lower() != name:
            continue
        shown = item.unalias()
        if not isinstance(shown, exp.Column) or isinstance(shown.this, exp.Star):
            return False
        if keys is not None and shown.name.lower() not in keys:
            return False
        column.set("this", shown.this.copy())
        column.set("table", shown.args["table"].copy() if shown.args.get("table") else None)
        return True
    stars = [item for item in node.expressions if item.is_star and not item.find(exp.Anonymous)]
    return bool(stars) and keys is None
