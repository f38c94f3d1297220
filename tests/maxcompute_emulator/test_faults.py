"""Faults one by one as the real client meets them, and that a storm comes back as it was."""

import contextlib
import time

import pyarrow as pa
import pytest
import requests
from odps import errors
from urllib3.exceptions import ProtocolError

from maxcompute_emulator.faults import KINDS, Rule

N_ROWS = 30_000


@pytest.fixture
def table(tunnel, make_table):
    """A table of numbered rows."""
    made = make_table(a="bigint", b="string")
    session = tunnel.create_upload_session(made.name)
    with session.open_arrow_writer(0) as writer:
        writer.write(pa.table({"a": range(N_ROWS), "b": [f"{i:050}" for i in range(N_ROWS)]}))
    session.commit([0])
    return made


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    """The client waits seconds before it tries again; here it does not."""
    monkeypatch.setattr(
        "odps.tunnel.retry.RetryPolicy.wait_for_next_retry", lambda self, attempt: None
    )


def read(session, start=0, count=N_ROWS) -> list[int]:
    with session.open_arrow_reader(start, count) as reader:
        return reader.read()["a"].to_pylist()


def fault_log(control) -> list[str]:
    return [entry["fault"] for entry in control.requests() if entry["fault"]]


@pytest.mark.parametrize("kind", ["throttled", "unavailable", "reset_before"])
def test_a_session_request_is_tried_again(tunnel, table, control, kind):
    control.faults(kind, match="downloads", at_most=2)
    assert tunnel.create_download_session(table.name).count == N_ROWS
    assert fault_log(control) == [kind] * 2


def test_throttling_has_the_services_code(tunnel, table, control, monkeypatch):
    monkeypatch.setattr(
        "odps.tunnel.retry.InfiniteExponentialWaitRetryPolicy.should_retry",
        lambda self, error, attempt: False,
    )
    control.faults("throttled")
    with pytest.raises(errors.FlowExceeded) as caught:
        tunnel.create_download_session(table.name)
    assert caught.value.status_code == 429


def test_a_service_that_stays_unavailable_ends_after_eight_requests(tunnel, table, control):
    control.faults("unavailable", match="downloads")
    with pytest.raises(errors.ServiceUnavailable):
        tunnel.create_download_session(table.name)
    assert fault_log(control) == ["unavailable"] * 8


def test_an_arrow_stream_that_is_cut_goes_on_where_it_was(tunnel, table, control):
    control.faults("reset_inside", at_most=2, seed=3)
    assert read(tunnel.create_download_session(table.name)) == list(range(N_ROWS))
    assert fault_log(control) == ["reset_inside"] * 2


@pytest.mark.parametrize("seed", range(8))
def test_a_record_stream_that_is_cut_raises_at_first_and_goes_on_later(
    tunnel, table, control, seed
):
    session = tunnel.create_download_session(table.name)
    control.faults("reset_inside", at_most=1, seed=seed)
    found = None
    with contextlib.suppress(ProtocolError), session.open_record_reader(0, 2000) as reader:
        found = [record[0] for record in reader]
    [cut] = [entry for entry in control.requests() if entry["fault"]]
    first_read_bytes = 64 * 1024
    assert found == (None if cut["bytes_out"] < first_read_bytes else list(range(2000)))


@pytest.mark.parametrize("n_rows", [1, 10, N_ROWS])
def test_a_cut_body_is_never_complete(tunnel, table, control, n_rows):
    session = tunnel.create_download_session(table.name)
    for seed in range(5):
        control.faults("reset_inside", at_most=1, seed=seed)
        with pytest.raises((OSError, requests.RequestException, ProtocolError)):
            session._build_input_stream(0, n_rows, arrow=True).read()


@pytest.mark.parametrize("arrow", [True, False])
def test_an_empty_body_looks_like_no_rows(tunnel, table, control, arrow):
    session = tunnel.create_download_session(table.name)
    control.faults("empty_body", at_most=1)
    opened = session.open_arrow_reader if arrow else session.open_record_reader
    with opened(0, N_ROWS) as reader:
        assert list(reader) == []
    [entry] = [entry for entry in control.requests() if entry["fault"]]
    assert (entry["status"], entry["rows"], entry["bytes_out"] < 20) == (200, 0, True)


def test_an_expired_download_is_gone_for_good(tunnel, table, control):
    session = tunnel.create_download_session(table.name)
    control.faults("expired_session", at_most=1)
    with pytest.raises(errors.ODPSError, match="StatusConflict"):
        read(session)
    with pytest.raises(errors.ODPSError, match="NoSuchDownload"):
        read(session)


def test_an_expired_upload_shows_nothing(tunnel, table, control):
    session = tunnel.create_upload_session(table.name)
    with session.open_record_writer(0) as writer:
        writer.write(session.new_record([-1, "x"]))
    control.faults("expired_session", match="^POST", at_most=1)
    with pytest.raises(errors.ODPSError, match="StatusConflict"):
        session.commit([0])
    with pytest.raises(errors.ODPSError, match="NoSuchUpload"):
        session.commit([0])
    assert tunnel.create_download_session(table.name).count == N_ROWS


def test_a_commit_whose_answer_is_lost_is_done_once(tunnel, table, control):
    session = tunnel.create_upload_session(table.name)
    with session.open_record_writer(0) as writer:
        writer.write(session.new_record([-1, "x"]))
    control.faults("lost_commit", at_most=1)
    with pytest.raises(errors.ODPSError, match="StatusConflict"):
        session.commit([0])
    session.reload()
    assert session.status.value == "CLOSED"
    assert tunnel.create_download_session(table.name).count == N_ROWS + 1


@pytest.mark.parametrize("kind", ["unavailable", "reset_before"])
def test_a_streamed_block_that_fails_is_not_there(tunnel, table, control, kind):
    session = tunnel.create_upload_session(table.name)
    control.faults(kind, match="^PUT", at_most=1)

    def write() -> None:
        with session.open_record_writer(0) as writer:
            for i in range(20_000):
                writer.write(session.new_record([i, "x" * 50]))

    with pytest.raises((errors.ODPSError, requests.RequestException, OSError)):
        write()
    assert session.get_block_list() == []


def test_a_buffered_block_is_sent_again(tunnel, table, control):
    session = tunnel.create_upload_session(table.name, overwrite=True)
    control.faults("unavailable", "reset_before", match="^PUT", at_most=3, seed=1)
    with session.open_record_writer() as writer:
        for i in range(100):
            writer.write(session.new_record([i, "x"]))
    session.commit(writer.get_blocks_written())
    assert read(tunnel.create_download_session(table.name)) == list(range(100))


def test_slow_answers_are_late(tunnel, table, control):
    control.faults("slow", match="downloads", delay_s=0.3, at_most=1)
    started = time.monotonic()
    tunnel.create_download_session(table.name)
    assert time.monotonic() - started >= 0.3


def storm(tunnel, table, control, seed: int) -> list[tuple]:
    control.call("DELETE", "requests")
    control.faults(
        "throttled", "unavailable", "reset_before", "slow", seed=seed, rate=0.3, delay_s=0
    )
    session = tunnel.create_download_session(table.name)
    for start in range(20):
        assert read(session, start, 1) == [start]
    return [(e["method"], e["query"].split("rowrange")[-1], e["fault"]) for e in control.requests()]


def test_a_storm_comes_back_as_it_was(tunnel, table, control):
    first = storm(tunnel, table, control, 7)
    assert storm(tunnel, table, control, 7) == first
    assert storm(tunnel, table, control, 8) != first
    assert 3 <= sum(fault is not None for *_, fault in first) <= 25


def test_a_kind_falls_only_on_requests_that_it_fits(tunnel, table, control):
    control.faults("lost_commit", "reset_inside", "lost_submit", "empty_body")
    session = tunnel.create_download_session(table.name)
    session.reload()
    assert fault_log(control) == []


def test_rules_are_tried_in_turn(tunnel, table, control):
    control.call(
        "PUT",
        "faults",
        [
            {"kinds": ["slow"], "match": "nothing like it"},
            {"kinds": ["unavailable"], "match": "downloads", "at_most": 1},
            {"kinds": ["throttled"], "match": "downloads", "at_most": 1},
        ],
    )
    tunnel.create_download_session(table.name)
    assert fault_log(control) == ["unavailable", "throttled"]
    control.call("DELETE", "faults")
    tunnel.create_download_session(table.name)
    assert len(fault_log(control)) == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kinds": ["thunder"]}, "Unknown fault kinds \\['thunder'\\]. Allowed: throttled"),
        ({"kinds": []}, "Unknown fault kinds"),
        ({"kinds": ["slow"], "rate": 2}, "rate is 2"),
        ({"kinds": ["slow"], "delay_s": -1}, "delay_s is -1"),
        ({"kinds": ["slow"], "match": "("}, "match is no regular expression"),
        ({"kinds": ["slow"], "sead": 1}, "Unknown fields \\['sead'\\]"),
    ],
)
def test_a_wrong_rule_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Rule.from_json(fields)


def test_every_kind_can_be_set(control):
    control.faults(*KINDS, rate=0)


def test_the_cap_holds_for_each_stream(tunnel, table, control):
    session = tunnel.create_download_session(table.name)
    control.call("PUT", "bandwidth", {"bytes_per_second": 5_000_000})
    started = time.monotonic()
    read(session)
    took = time.monotonic() - started
    [entry] = control.requests("GET", "arrow")
    assert took >= 0.9 * entry["bytes_out"] / 5_000_000
    upload = tunnel.create_upload_session(table.name)
    started = time.monotonic()
    with upload.open_arrow_writer(0) as writer:
        writer.write(pa.table({"a": range(20_000), "b": [f"{i:050}" for i in range(20_000)]}))
    took = time.monotonic() - started
    [entry] = control.requests("PUT", "blockid")
    assert took >= 0.9 * entry["bytes_in"] / 5_000_000
