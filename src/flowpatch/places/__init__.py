"""Where stores lie: folders and buckets, and one writer at a time."""
