"""Flags that several commands share, gathered under one heading of their help."""

from cyclopts import Group, Parameter

MAXCOMPUTE = Parameter(name="*", group=Group("MaxCompute", sort_key=2))
