"""Sessions of the table tunnel, opened by hand with the real client."""

import pandas as pd
import pyarrow as pa
import pytest
from odps import errors
from odps.tunnel import TableTunnel

DATA = {"a": "bigint", "b": "string"}


def upload(tunnel: TableTunnel, table, rows, block=0, **kind) -> None:
    session = tunnel.create_upload_session(table.name, **kind)
    with session.open_record_writer(block) as writer:
        for row in rows:
            writer.write(session.new_record(row))
    session.commit([block])


def download(tunnel: TableTunnel, table, **kind) -> list[list]:
    session = tunnel.create_download_session(table.name, **kind)
    if not session.count:
        return []
    with session.open_record_reader(0, session.count) as reader:
        return [list(record.values) for record in reader]


def rows(n: int, start: int = 0) -> list[list]:
    return [[i, None if i % 3 == 0 else f"值{i}"] for i in range(start, start + n)]


@pytest.mark.parametrize("algorithm", [None, "zlib", "zstd", "lz4", "snappy"])
@pytest.mark.parametrize("arrow", [False, True])
def test_round_trip_in_both_forms_and_all_compressions(tunnel, make_table, algorithm, arrow):
    table = make_table(**DATA)
    option = {"compress_algo": algorithm} if algorithm else {}
    session = tunnel.create_upload_session(table.name, **option)
    wanted = rows(5000)
    if arrow:
        frame = pa.table({"a": [r[0] for r in wanted], "b": [r[1] for r in wanted]})
        with session.open_arrow_writer(0, compress=bool(algorithm)) as writer:
            writer.write(frame)
    else:
        with session.open_record_writer(0, compress=bool(algorithm)) as writer:
            for row in wanted:
                writer.write(session.new_record(row))
    session.commit([0])
    reading = tunnel.create_download_session(table.name, **option)
    assert reading.count == 5000
    with reading.open_record_reader(0, 5000, compress=bool(algorithm)) as reader:
        assert [list(record.values) for record in reader] == wanted
    with reading.open_arrow_reader(0, 5000, compress=bool(algorithm)) as reader:
        found = reader.read()
    assert [list(row.values()) for row in found.to_pylist()] == wanted


def test_buffered_writers_make_blocks_of_their_own(tunnel, make_table):
    table = make_table(**DATA)
    session = tunnel.create_upload_session(table.name)
    with session.open_record_writer(buffer_size=500) as writer:
        for row in rows(200):
            writer.write(session.new_record(row))
    assert len(writer.get_blocks_written()) > 1
    session.commit(writer.get_blocks_written())
    assert download(tunnel, table) == rows(200)


def test_blocks_are_ordered_by_their_ids_not_by_their_arrival(tunnel, make_table):
    table = make_table(**DATA)
    session = tunnel.create_upload_session(table.name)
    for block in (5, 1, 3):
        with session.open_record_writer(block) as writer:
            writer.write(session.new_record([block, "x"]))
    assert sorted(session.get_block_list()) == [1, 3, 5]
    assert download(tunnel, table) == []
    session.commit([5, 1, 3])
    assert [row[0] for row in download(tunnel, table)] == [1, 3, 5]


def test_a_block_sent_twice_counts_once(tunnel, make_table):
    table = make_table(**DATA)
    session = tunnel.create_upload_session(table.name)
    for value in ("first", "second"):
        with session.open_record_writer(0) as writer:
            writer.write(session.new_record([1, value]))
    session.commit([0])
    assert download(tunnel, table) == [[1, "second"]]


def test_a_second_commit_is_a_conflict_and_the_session_says_closed(tunnel, make_table):
    table = make_table(**DATA)
    session = tunnel.create_upload_session(table.name)
    with session.open_record_writer(0) as writer:
        writer.write(session.new_record([1, "x"]))
    session.commit([0])
    again = tunnel.create_upload_session(table.name, upload_id=session.id)
    assert again.status.value == "CLOSED"
    assert again.blocks == [0]
    with pytest.raises(errors.ODPSError, match="StatusConflict"):
        again._complete_upload()
    with (
        pytest.raises(errors.ODPSError, match="StatusConflict"),
        again.open_record_writer(1) as writer,
    ):
        writer.write(again.new_record([2, "y"]))
    assert download(tunnel, table) == [[1, "x"]]


def test_append_and_overwrite(tunnel, make_table):
    table = make_table(**DATA)
    upload(tunnel, table, rows(3))
    upload(tunnel, table, rows(2, start=3))
    assert download(tunnel, table) == rows(5)
    upload(tunnel, table, rows(1), overwrite=True)
    assert download(tunnel, table) == rows(1)


@pytest.mark.parametrize("arrow", [False, True])
def test_empty_blocks(tunnel, make_table, arrow):
    table = make_table(**DATA)
    session = tunnel.create_upload_session(table.name)
    writer = session.open_arrow_writer(0) if arrow else session.open_record_writer(0)
    writer.close()
    session.commit([0])
    assert download(tunnel, table) == []


def test_row_ranges(tunnel, make_table):
    table = make_table(**DATA)
    upload(tunnel, table, rows(10))
    session = tunnel.create_download_session(table.name)

    def read(start, count):
        with session.open_record_reader(start, count) as reader:
            return [record[0] for record in reader]

    assert read(3, 4) == [3, 4, 5, 6]
    assert read(8, 100) == [8, 9]
    assert read(10, 1) == []
    with pytest.raises(errors.ODPSError, match="InvalidRowRange"):
        read(11, 1)
    with pytest.raises(errors.ODPSError, match="InvalidRowRange"):
        session._build_input_stream(0, 0)
    with pytest.raises(errors.ODPSError, match="InvalidRowRange"):
        session._build_input_stream(-1, 5)


def test_projected_columns(tunnel, make_table):
    table = make_table(a="bigint", b="string", c="double")
    upload(tunnel, table, [[1, "x", 0.5], [2, None, None]])
    session = tunnel.create_download_session(table.name)
    with session.open_record_reader(0, 2, columns=["c", "a"]) as reader:
        assert [list(record.values) for record in reader] == [[0.5, 1], [None, 2]]
    with session.open_arrow_reader(0, 2, columns=["c", "a"]) as reader:
        assert reader.read().to_pydict() == {"c": [0.5, None], "a": [1, 2]}
    with pytest.raises(errors.ODPSError, match="'nothing' is not found"):
        session._build_input_stream(0, 2, columns=["nothing"])


@pytest.mark.parametrize("arrow", [False, True])
def test_values_of_char_columns_come_in_full_length(tunnel, make_table, arrow):
    table = make_table(a="char(5)", b="varchar(5)")
    upload(tunnel, table, [["中x", "中x"], [None, None]])
    session = tunnel.create_download_session(table.name)
    if arrow:
        with session.open_arrow_reader(0, 2) as reader:
            found = [list(row.values()) for row in reader.read().to_pylist()]
    else:
        with session.open_record_reader(0, 2) as reader:
            found = [list(record.values) for record in reader]
    assert found == [["中x   ", "中x"], [None, None]]


def test_partitions(tunnel, make_table):
    table = make_table({"ds": "string", "h": "bigint"}, **DATA)
    with pytest.raises(errors.ODPSError, match="MissingPartitionSpec"):
        tunnel.create_upload_session(table.name)
    with pytest.raises(errors.ODPSError, match="MissingPartitionSpec"):
        tunnel.create_download_session(table.name)
    with pytest.raises(errors.ODPSError, match="InvalidPartitionSpec"):
        tunnel.create_download_session(table.name, partition_spec="ds=1")
    with pytest.raises(errors.NoSuchPartition):
        tunnel.create_upload_session(table.name, partition_spec="ds=1,h=2")
    upload(tunnel, table, rows(3), partition_spec="ds='1',h='2'", create_partition=True)
    found = download(tunnel, table, partition_spec="ds=1,h=2")
    assert [row[:2] for row in found] == rows(3)
    session = tunnel.create_download_session(table.name, partition_spec="ds=1,h=2")
    with session.open_arrow_reader(0, 3, columns=["a", "ds"]) as reader:
        assert reader.read().to_pydict() == {"a": [0, 1, 2], "ds": ["1"] * 3}


def test_a_change_between_session_and_read_is_noticed(tunnel, make_table):
    table = make_table(**DATA)
    upload(tunnel, table, rows(3))
    session = tunnel.create_download_session(table.name)
    upload(tunnel, table, rows(1))
    with (
        pytest.raises(errors.TableModified),
        session.open_record_reader(0, 3) as reader,
    ):
        list(reader)


def test_sessions_can_be_shared_by_their_ids(tunnel, make_table):
    table = make_table(**DATA)
    upload(tunnel, table, rows(4))
    first = tunnel.create_download_session(table.name)
    second = tunnel.create_download_session(table.name, download_id=first.id)
    assert second.count == 4
    other = make_table(**DATA)
    with pytest.raises(errors.ODPSError, match="NoSuchDownload"):
        tunnel.create_download_session(other.name, download_id=first.id)
    with pytest.raises(errors.ODPSError, match="NoSuchUpload"):
        tunnel.create_upload_session(table.name, upload_id=first.id)


@pytest.mark.parametrize("arrow", [False, True])
def test_a_cell_above_eight_megabytes_is_refused(tunnel, make_table, arrow):
    table = make_table(b="binary")
    session = tunnel.create_upload_session(table.name)
    largest = b"x" * (8 * 1024 * 1024)

    def write(value: bytes) -> None:
        if arrow:
            with session.open_arrow_writer(0) as writer:
                writer.write(pa.table({"b": pa.array([value], pa.binary())}))
        else:
            session.max_field_size = 2**40
            with session.open_record_writer(0) as writer:
                writer.write(session.new_record([value]))

    with pytest.raises(errors.ODPSError, match="a cell holds at most 8388608"):
        write(largest + b"x")
    write(largest)
    session.commit([0])
    assert download(tunnel, table) == [[largest]]


def test_the_client_learns_the_largest_cell_from_the_session(tunnel, make_table):
    session = tunnel.create_upload_session(make_table(**DATA).name)
    assert session.max_field_size == 8 * 1024 * 1024


def test_a_buffered_reader_reads_in_steps_by_size(tunnel, make_table, control):
    table = make_table(**DATA)
    upload(tunnel, table, [[i, "x" * 1000] for i in range(3000)])
    session = tunnel.create_download_session(table.name)
    reader = session.open_record_reader(
        0, 3000, buffered=True, buffer_size=1 << 20, row_batch_size=5000
    )
    assert [record[0] for record in reader] == list(range(3000))
    steps = control.requests("GET", "raw_size=")
    assert len(steps) > 2
    assert sum(entry["rows"] for entry in steps) == 3000


def test_a_table_that_is_not_there(tunnel):
    with pytest.raises(errors.NoSuchTable):
        tunnel.create_download_session("nothing_here")


def test_rows_of_the_wrong_kind_are_refused(tunnel, make_table):
    table = make_table(a="tinyint")
    session = tunnel.create_upload_session(table.name)
    url, parameters = session._table.table_resource(), {"uploadid": session.id, "blockid": 0}
    with pytest.raises(errors.ODPSError, match="MalformedDataStream"):
        session._client.put(url, data=b"\x0a\x01x", params=parameters)
    with pytest.raises(errors.ODPSError, match="blockid is '20000'"):
        session._client.put(url, data=b"", params={**parameters, "blockid": 20_000})
    assert session.get_block_list() == []


def test_stream_uploads_show_rows_at_once(tunnel, make_table):
    table = make_table({"ds": "string"}, **DATA)
    session = tunnel.create_stream_upload_session(
        table.name, partition_spec="ds=1", create_partition=True
    )
    for start in (0, 5):
        with session.open_record_writer(compress=True) as writer:
            for row in rows(5, start):
                writer.write(session.new_record([*row, None]))
    assert [row[:2] for row in download(tunnel, table, partition_spec="ds=1")] == rows(10)
    session.abort()
    with pytest.raises(errors.StreamSessionNotFound):
        session.reload(force=True)


def test_upserts_replace_add_and_delete_by_key(tunnel, make_table):
    table = make_table(primary_key=("a",), **DATA)
    for changes in (
        [("upsert", [1, "one"]), ("upsert", [2, "two"]), ("upsert", [1, "eins"])],
        [("delete", [2, None]), ("upsert", [3, "three"])],
    ):
        session = tunnel.create_upsert_session(table.name)
        with session.open_upsert_stream(compress=True) as stream:
            for operation, row in changes:
                getattr(stream, operation)(session.new_record(row))
        assert session.status.value == "NORMAL"
        session.commit()
    assert sorted(download(tunnel, table)) == [[1, "eins"], [3, "three"]]
    with pytest.raises(errors.ODPSError, match="has no primary key"):
        tunnel.create_upsert_session(make_table(**DATA).name)


def test_previews_show_the_first_rows_of_all_partitions(tunnel, odps, make_table):
    table = make_table({"ds": "string"}, a="bigint", d="decimal")
    for day in ("1", "2"):
        upload(
            tunnel,
            table,
            [[i, i] for i in range(3)],
            partition_spec=f"ds={day}",
            create_partition=True,
        )
    handle = odps.get_table(table.name)
    for option in ({}, {"compress_algo": "zstd"}, {"compress_algo": "lz4"}):
        with tunnel.open_preview_reader(handle, limit=4, arrow=False, **option) as reader:
            found = [list(record.values) for record in reader]
        assert found == [[0, 0, "1"], [1, 1, "1"], [2, 2, "1"], [0, 0, "2"]]
    with tunnel.open_preview_reader(handle, columns=["a"], partition_spec="ds=2") as reader:
        assert reader.read().to_pydict() == {"a": [0, 1, 2]}


def test_previews_of_times_and_of_nothing(tunnel, odps, make_table):
    table = make_table(t="timestamp", i="interval_day_time")
    handle = odps.get_table(table.name)
    with tunnel.open_preview_reader(handle, arrow=False) as reader:
        assert list(reader) == []
    row = [pd.Timestamp("2025-09-19 08:00:00.123456789"), pd.Timedelta(1, "D")]
    upload(tunnel, table, [row])
    with tunnel.open_preview_reader(handle, arrow=False) as reader:
        assert [list(record.values) for record in reader] == [row]
