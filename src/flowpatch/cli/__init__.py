"""The command line: one file a command; each parses, calls and prints. Nothing imports it."""

from flowpatch.cli.app import entry, main

__all__ = ["entry", "main"]
