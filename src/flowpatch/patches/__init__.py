"""Spatial patches: which node stands in which slot of which patch."""
