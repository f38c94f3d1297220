"""The versioned, transactional home of a series, its nodes, splits and statistics."""
