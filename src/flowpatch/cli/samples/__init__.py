"""`flowpatch samples ...`: sample stores and their versions, and sample tables in MaxCompute.

catalogue.py   list, show, log: which stores and versions there are
versions.py    tag, untag, rollback, expire: which of them count
compare.py     compare: what differs between two
whole.py       verify, copy, remove: a store as a whole
tables.py      publish, fetch: tables of samples
"""
