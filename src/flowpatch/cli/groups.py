"""Flags that several commands share, gathered under one heading of their help."""

from typing import Annotated

from cyclopts import Group, Parameter

MAXCOMPUTE = Parameter(name="*", group=Group("MaxCompute", sort_key=2))

AsJson = Annotated[bool, Parameter(name="--json", negative="")]
"""JSON in place of tables."""
