"""Raw records in: where they lie, and how they become blocks of (step, node, value)."""
