"""What tests of every kind of place share."""

from place_kinds import kind

__all__ = ["kind"]
