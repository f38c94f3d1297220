"""Windows are indices, not data: origins, and the batches gathered at them."""
