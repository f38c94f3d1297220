"""MaxCompute SQL on DuckDB: the service's grammar, rules, types and functions."""

from maxcompute_emulator.sql.engine import Outcome, execute, input_bytes

__all__ = ["Outcome", "execute", "input_bytes"]
