"""Raw records to a sample store: source -> series -> store."""
