"""How several records in one (step, node) become one value: the one list of rules.

A mean is the mean of all records, whatever their order. Records are rounded to float32 before
they are summed in float64: 29 spare bits make such sums exact, so no order of reading, and no
engine, can change them (docs/decisions/0004). `series/dense.py` carries the rules out on blocks of
records; here they are rendered as MaxCompute's SQL, for records that stay where they lie.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from flowpatch.maxcompute.names import TableName, column, text
from flowpatch.sources.columns import RecordColumns
from flowpatch.sources.contract import UNKNOWN_NODE
from flowpatch.time_axis import TimeAxis

Aggregate = Literal["mean", "sum", "max", "last"]
"""`last` takes the record with the latest instant, and of several at that instant the largest."""

LARGEST = float(np.finfo(np.float32).max)
_CLOCK = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
_ANY_YEAR = (
    "[12][0-9]{3}-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)"
    "|(0[13578]|1[02])-31)"
)
_LEAP_DAY = "[12][0-9](0[48]|[2468][048]|[13579][26])-02-29"
PLAIN_INSTANT = f"^({_ANY_YEAR}|{_LEAP_DAY}) {_CLOCK}$"
"""Text that every engine reads as the same instant; a day that no calendar has is not among it."""
MAYBE_INSTANT = "^[[:space:]]*([-+]?[0-9]|e|E)"
"""Text that DuckDB might read as an instant: only it can tell."""

PLAIN_WHOLE = "^(0|-?[1-9][0-9]*)$"
"""Text that is the same key as the number it shows."""
MAYBE_NUMBER = "^[[:space:]]*[-+.]?[0-9]"
"""Text that DuckDB might read as a whole number: 08, or 8.0."""

_WHOLE = ("tinyint", "smallint", "int", "bigint")
_NUMBERS = (*_WHOLE, "float", "double")
_NATIVE_INSTANTS = ("datetime", "timestamp", "timestamp_ntz", "date")


@dataclass(frozen=True)
class RecordTable:
    """A table of records in MaxCompute, as its SQL sees it.

    `types` gives MaxCompute's type of each column, partition columns included; `partitions` is
    the condition that chooses the partitions to read.
    """

    table: TableName
    types: Mapping[str, str]
    columns: RecordColumns
    partitions: str

    def cannot_push_down(self) -> str | None:
        """Why only reading the rows themselves gives the right series; None where SQL does."""
        columns = self.columns
        time_type = self.types[columns.time_column]
        if time_type in _NATIVE_INSTANTS:
            pass
        elif time_type != "string":
            return f"column '{columns.time_column}' is {time_type}"
        elif columns.time_format is not None:
            return f"--time-format '{columns.time_format}' is read outside of SQL"
        if self.types[columns.value_column] not in _NUMBERS:
            value_type = self.types[columns.value_column]
            return f"column '{columns.value_column}' is {value_type}"
        for name in columns.node_columns:
            if self.types[name] not in (*_WHOLE, "string"):
                return f"column '{name}' is {self.types[name]}"
        return None

    @property
    def hints(self) -> dict[str, str]:
        """Settings of the query: native instants are shown on the clock of the zone."""
        native = self.types[self.columns.time_column] in ("datetime", "timestamp")
        return {
            "odps.sql.type.system.odps2": "true",
            "odps.sql.allow.fullscan": "true",
            "odps.sql.timezone": self.columns.time_zone if native else "UTC",
        }

    def survey_sql(self, partition_columns: Sequence[str], whole_keys: Sequence[bool]) -> str:
        """One row a partition: its columns, records, those without an instant, and those with a
        text that only DuckDB can judge; first and last instant as text; one text without an
        instant. `whole_keys` says which keys of the nodes are whole numbers, else text.
        """
        keys = [column(name) for name in partition_columns]
        time = column(self.columns.time_column)
        shown = f"CAST({time} AS STRING)"
        measures = [
            "COUNT(*) AS records",
            "SUM(CASE WHEN instant IS NULL THEN 1 ELSE 0 END) AS without_time",
            f"SUM(CASE WHEN {self._unsure(whole_keys)} THEN 1 ELSE 0 END) AS unsure",
            "TO_CHAR(MIN(instant), 'yyyy-mm-dd hh:mi:ss') AS first_instant",
            "TO_CHAR(MAX(instant), 'yyyy-mm-dd hh:mi:ss') AS last_instant",
            f"MAX(CASE WHEN instant IS NULL THEN {shown} END) AS example",
        ]
        grouped = f" GROUP BY {', '.join(keys)}" if keys else ""
        used = dict.fromkeys([*keys, time, *map(column, self.columns.node_columns)])
        inner = ", ".join([*used, f"{self._instant} AS instant"])
        return (
            f"SELECT {', '.join([*keys, *measures])} FROM (SELECT {inner} FROM {self.table.sql} "
            f"WHERE {self._condition}) r{grouped}"
        )

    def cells_sql(
        self,
        nodes: TableName,
        whole_keys: Sequence[bool],
        axis: TimeAxis,
        first_step: int,
        stop_step: int,
        aggregate: Aggregate,
        null_value: float | None,
    ) -> str:
        """One row a (step, node) of the stretch: what `CellBlock` holds.

        Args:
            nodes: the table of `key_0`, `key_1`, ... and the `node` that each key gets.
            whole_keys: whether each key of the nodes is a whole number, else text.
            axis: whose steps are counted, from `first_step`.
            first_step: where the stretch begins; midnight.
            stop_step: where it ends; midnight.
            aggregate: the rule.
            null_value: a value that means missing.
        """
        begin, end = (_datetime(axis, step) for step in (first_step, stop_step))
        step = (
            f"DATEDIFF(instant, {begin}, 'dd') * {axis.steps_a_day} + CAST(FLOOR((HOUR(instant) "
            f"* 60 + MINUTE(instant)) / {axis.step_minutes}) AS BIGINT)"
        )
        keys = [
            f"CAST({column(name)} AS {kind}) AS key_{i}"
            for i, (name, kind) in enumerate(
                zip(self.columns.node_columns, self.key_types(whole_keys), strict=True)
            )
        ]
        joined = " AND ".join(f"r.key_{i} = n.key_{i}" for i in range(len(keys)))
        value = f"CAST({column(self.columns.value_column)} AS DOUBLE)"
        is_null = "false" if null_value is None else f"v = {_double(null_value)}"
        records = (
            f"SELECT {', '.join(keys)}, {self._instant} AS instant, {value} AS raw "
            f"FROM {self.table.sql} WHERE {self._condition}"
        )
        numbered = (
            f"SELECT /*+ MAPJOIN(n) */ {step} AS step, COALESCE(n.node, {UNKNOWN_NODE}) AS node, "
            f"instant, CASE WHEN ABS(raw) <= {LARGEST!r} THEN CAST(CAST(raw AS FLOAT) AS DOUBLE) "
            f"END AS v FROM ({records}) r LEFT JOIN {nodes.sql} n ON {joined} "
            f"WHERE instant >= {begin} AND instant < {end}"
        )
        judged = (
            f"SELECT step, node, instant, CASE WHEN {is_null} THEN NULL ELSE v END AS v, "
            f"CASE WHEN v IS NULL THEN 1 ELSE 0 END AS not_a_number, "
            f"CASE WHEN {is_null} THEN 1 ELSE 0 END AS null_value FROM ({numbered}) q"
        )
        return _RULES[aggregate].format(judged=judged)

    @property
    def _is_text(self) -> bool:
        return self.types[self.columns.time_column] == "string"

    @property
    def _instant(self) -> str:
        time = column(self.columns.time_column)
        if self._is_text:
            return f"CASE WHEN {time} RLIKE {text(PLAIN_INSTANT)} THEN CAST({time} AS DATETIME) END"
        return f"CAST({time} AS DATETIME)"

    @property
    def _condition(self) -> str:
        if self.columns.adcode is None:
            return self.partitions
        city = f"CAST({column(self.columns.adcode_column)} AS STRING) = {text(self.columns.adcode)}"
        return f"{self.partitions} AND {city}"

    def _unsure(self, whole_keys: Sequence[bool]) -> str:
        """The condition of a record that DuckDB might read and SQL would not, or otherwise."""
        time = column(self.columns.time_column)
        doubts = ["false"]
        if self._is_text:
            doubts.append(_like_but_not(time, MAYBE_INSTANT, PLAIN_INSTANT))
        for name, whole in zip(self.columns.node_columns, whole_keys, strict=True):
            if whole and self.types[name] == "string":
                doubts.append(_like_but_not(column(name), MAYBE_NUMBER, PLAIN_WHOLE))
        return " OR ".join(doubts)

    def key_types(self, whole_keys: Sequence[bool]) -> list[str]:
        """MaxCompute's type in which each key of records and nodes is compared."""
        return [
            "BIGINT" if whole and self.types[name] != "string" else "STRING"
            for name, whole in zip(self.columns.node_columns, whole_keys, strict=True)
        ]


def _like_but_not(quoted: str, maybe: str, plain: str) -> str:
    return f"({quoted} RLIKE {text(maybe)} AND NOT ({quoted} RLIKE {text(plain)}))"


_COUNTS = "COUNT(v) AS used, SUM(not_a_number) AS not_a_number, SUM(null_value) AS null_value"
_GROUPED = (
    "SELECT step, node, {value} AS value, " + _COUNTS + " FROM ({{judged}}) c GROUP BY step, node"
)
_LATEST = (
    "SELECT step, node, MAX(CASE WHEN place = 1 THEN v END) AS value, "
    + _COUNTS
    + " FROM (SELECT step, node, v, not_a_number, null_value, ROW_NUMBER() OVER (PARTITION BY "
    "step, node ORDER BY CASE WHEN v IS NULL THEN 1 ELSE 0 END, instant DESC, v DESC) AS place "
    "FROM ({judged}) j) c GROUP BY step, node"
)
_RULES: dict[Aggregate, str] = {
    "mean": _GROUPED.format(value="SUM(v)"),
    "sum": _GROUPED.format(value="SUM(v)"),
    "max": _GROUPED.format(value="MAX(v)"),
    "last": _LATEST,
}


def _datetime(axis: TimeAxis, step: int) -> str:
    instant = str(axis.instant_of(step)).replace("T", " ")
    return f"CAST({text(f'{instant}:00')} AS DATETIME)"


def _double(value: float) -> str:
    """The value as float32 holds it, written so that it is read back exactly."""
    with np.errstate(over="ignore"):
        return f"CAST({text(repr(float(np.float32(value))))} AS DOUBLE)"
