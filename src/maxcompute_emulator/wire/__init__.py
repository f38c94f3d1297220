"""How rows look on the wire: record streams, Arrow chunk streams, and their compressions.

Written from the protocol's description. Everything here turns an iterator into an iterator or a
file into an iterator, so that no stream is ever held whole.
"""
