"""Many stores, many versions: listed, named, compared, checked, copied, removed."""
