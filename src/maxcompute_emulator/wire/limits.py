"""The largest cell that the service holds."""

MAX_CELL_BYTES = 8 * 1024 * 1024
