"""The sample table in MaxCompute: windows written out as rows, for other systems to read.

schema.py       the eight columns, and the metadata file beside the table
codec.py        array <-> the text of a cell
samples.py      origins and groups of nodes -> rows
publication.py  what is to be published: samples, blocks, metadata
destination.py  the table that is written, and how rows become it
unfinished.py   what a stopped publication left
publish.py      store version -> table
row_index.py    which windows a table holds, and which rows are wanted
covering.py     which rows are needed to rebuild the series
decoding.py     rows -> windows
rebuild.py      windows -> series; overlaps that contradict each other are counted
fetch.py        table -> local store, cached by the table's identity
diagnosis.py    what a sample table holds, for the doctor
"""
