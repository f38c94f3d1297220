"""How several records in one (step, node) become one value: the one list of rules.

A mean is the mean of all records, whatever their order. Records are rounded to float32 before
they are summed in float64: 29 spare bits make such sums exact, so no order of reading can change
them (docs/decisions/0004).
"""

from typing import Literal

Aggregate = Literal["mean", "sum", "max", "last"]
"""`last` takes the record with the latest instant, and of several at that instant the largest."""
