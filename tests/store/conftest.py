"""What tests of every kind of place share."""

from places import kind

__all__ = ["kind"]
