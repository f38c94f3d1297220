"""What no build can be faster than: DuckDB decodes every column of the records, for four sums.

Nothing else is imported, as the whole process is measured.
"""

import duckdb


def scan(files: list[str], kind: str) -> list[int]:
    """The sums of keys and values, and the latest instant in microseconds since 1970.

    Args:
        files: the files of records.
        kind: parquet or csv.
    """
    reader = "read_parquet" if kind == "parquet" else "read_csv"
    query = f"""
        SELECT sum(nds_id), sum(next_nds_id), epoch_us(max(passts_time)), sum(flow_label)
        FROM {reader}(?, hive_partitioning = false)"""
    ((*sums,),) = duckdb.connect().execute(query, [files]).fetchall()
    return [int(total) for total in sums]
