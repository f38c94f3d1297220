"""A local server that speaks MaxCompute, for trying and testing without an account."""
