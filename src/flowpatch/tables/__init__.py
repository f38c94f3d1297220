"""The sample table in MaxCompute: windows written out as rows, for other systems to read.

schema.py    the eight columns, and the metadata file beside the table
codec.py     array <-> the text of a cell
samples.py   origins and groups of nodes -> rows
publish.py   store version -> table
covering.py  which rows are needed to rebuild the series
rebuild.py   rows -> series; overlaps that contradict each other are counted
fetch.py     table -> local store, cached by the table's identity
"""
