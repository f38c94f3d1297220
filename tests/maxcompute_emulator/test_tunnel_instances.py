"""Results of queries read through the instance tunnel."""

import pandas as pd
import pytest
from odps import errors, options
from odps.tunnel import InstanceTunnel

N_ROWS = 12_345


@pytest.fixture
def table(odps, make_table):
    """Twelve thousand rows."""
    table = odps.get_table(make_table(a="bigint", b="string", t="timestamp").name)
    instant = pd.Timestamp("2025-09-19 08:00:00.123456789")
    frame = pd.DataFrame({"a": range(N_ROWS), "b": "x", "t": [instant] * N_ROWS})
    with table.open_writer(arrow=True) as writer:
        writer.write(frame)
    return table


@pytest.fixture
def instance(odps, table):
    """A query of all of them."""
    return odps.execute_sql(f"SELECT * FROM {table.name}")


@pytest.mark.parametrize("algorithm", [None, "zlib", "zstd", "lz4", "snappy"])
def test_records_and_arrow(odps, instance, algorithm):
    option = {"compress_algo": algorithm} if algorithm else {}
    session = InstanceTunnel(odps).create_download_session(instance, **option)
    assert session.count == N_ROWS
    with session.open_record_reader(5, 10, compress=bool(algorithm)) as reader:
        assert sorted(record[0] for record in reader)[0] >= 0
    with session.open_arrow_reader(0, N_ROWS, compress=bool(algorithm)) as reader:
        found = reader.read()
    assert sorted(found["a"].to_pylist()) == list(range(N_ROWS))
    assert set(found["t"].to_pylist()) == {pd.Timestamp("2025-09-19 08:00:00.123456789")}


def test_columns(odps, instance):
    session = InstanceTunnel(odps).create_download_session(instance)
    with session.open_record_reader(0, 3, columns=["b"]) as reader:
        assert [record.values for record in reader] == [["x"]] * 3
    with session.open_arrow_reader(0, 3, columns=["b"]) as reader:
        assert reader.read().to_pydict() == {"b": ["x"] * 3}


def test_with_and_without_the_limit(odps, instance):
    tunnel = InstanceTunnel(odps)
    limited = tunnel.create_download_session(instance, limit=True)
    assert limited.count == 10_000
    whole = tunnel.create_download_session(instance, limit=False)
    assert whole.count == N_ROWS
    again = tunnel.create_download_session(instance, download_id=limited.id)
    assert again.count == 10_000


@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.reset_index")
@pytest.mark.parametrize("arrow", [False, True])
def test_readers_of_instances(instance, arrow):
    with instance.open_reader(tunnel=True, limit=False, arrow=arrow) as reader:
        assert reader.count == N_ROWS
        assert len(reader.to_pandas()) == N_ROWS
    with instance.open_reader(tunnel=True, limit=True, arrow=arrow, reopen=True) as reader:
        assert reader.count == 10_000


def test_results_as_pandas(instance):
    assert len(instance.to_pandas()) == N_ROWS
    parts = list(instance.iter_pandas(columns=["a"], batch_size=5000))
    assert sum(len(part) for part in parts) == N_ROWS


def test_an_empty_result(odps, table):
    instance = odps.execute_sql(f"SELECT * FROM {table.name} WHERE a < 0")
    with instance.open_reader(tunnel=True) as reader:
        assert reader.count == 0
        assert list(reader) == []


def test_what_has_no_rows_cannot_be_read(odps, table):
    instance = odps.execute_sql(f"DESC {table.name}")
    with pytest.raises(errors.InstanceTypeNotSupported):
        InstanceTunnel(odps).create_download_session(instance)
    with pytest.raises(errors.ODPSError):
        InstanceTunnel(odps).create_download_session("20250101000000000nothing")


def test_the_option_that_limits_all_readers(instance):
    options.tunnel.limit_instance_tunnel = True
    try:
        with instance.open_reader(tunnel=True) as reader:
            assert reader.count == 10_000
    finally:
        options.tunnel.limit_instance_tunnel = None
