"""Figures that the project holds itself to, each measured beside its baseline in the same run."""
