"""Columns of Arrow from arrays and texts, without pandas."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowpatch.sources.arrow_columns import of_numbers, of_texts


@pytest.mark.parametrize("kind", [np.int32, np.int64])
@pytest.mark.parametrize("step", [1, 2, -1])
def test_numbers_are_what_arrow_makes_of_them(kind: type, step: int) -> None:
    numbers = np.arange(-5, 6, dtype=kind)[::step]
    assert of_numbers(numbers).equals(pa.array(np.ascontiguousarray(numbers)))
    assert of_numbers(numbers[:0]).equals(pa.array(np.empty(0, dtype=kind)))


@given(texts=st.lists(st.text(max_size=5)))
def test_texts_are_what_arrow_makes_of_them(texts: list[str]) -> None:
    found = of_texts(texts)
    found.validate(full=True)
    assert found.equals(pa.array(texts, pa.string()))


BUILD = """
import sys
from flowpatch.preprocessing.build import preprocess
from flowpatch.preprocessing.settings import PreprocessSettings

records, nodes, store = sys.argv[1:]
columns = {"node_columns": ("k",), "time_column": "t", "value_column": "v"}
windows = {"step_minutes": 60, "input_len": 2, "output_len": 2}
preprocess(PreprocessSettings(records=records, nodes=nodes, store=store, **columns, **windows))
sys.exit("pandas was imported" if "pandas" in sys.modules else 0)
"""


@pytest.mark.parametrize("key", [7, "west"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_no_build_of_few_records_imports_pandas(tmp_path: Path, key: int | str, kind: str) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed, so nothing could import it")
    hours = np.datetime64("2025-03-03T00", "s") + np.arange(72) * np.timedelta64(1, "h")
    table = pa.table({"k": [key] * 72, "t": hours, "v": np.arange(72.0)})
    records = tmp_path / f"records.{kind}"
    pq.write_table(table, records) if kind == "parquet" else pacsv.write_csv(table, records)
    nodes = tmp_path / "nodes.csv"
    nodes.write_text(f"k,lat,lng\n{key},56.1,10.2\n")
    command = [sys.executable, "-c", BUILD, str(records), str(nodes), str(tmp_path / "store")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
