"""What every request passes: accounts, errors in both shapes, the log, clients that leave."""

import http.client
import json
import logging
import time
import xml.etree.ElementTree as ElementTree

import pytest
from odps import ODPS, errors
from odps.tunnel import TableTunnel

from maxcompute_emulator.emulator import Emulator


def ask(emulator, path: str, method: str = "GET", **headers: str) -> tuple:
    connection = http.client.HTTPConnection("127.0.0.1", emulator.port)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.headers, answer.read().decode()
    connection.close()
    return found


def test_errors_are_xml_under_api_and_json_at_the_tunnel(emulator):
    status, headers, text = ask(emulator, "/api/projects/demo")
    root = ElementTree.fromstring(text)  # noqa: S314
    assert (status, root.find("Code").text) == (401, "Unauthorized")
    assert root.find("RequestId").text == headers["x-odps-request-id"]
    status, headers, text = ask(emulator, "/projects/demo/tables/t?downloads")
    assert (status, json.loads(text)["Code"]) == (401, "Unauthorized")
    assert headers["x-odps-request-id"]


def test_only_the_loopback_address_is_bound(emulator):
    with pytest.raises(OSError, match="refused"):
        http.client.HTTPConnection("127.0.0.2", emulator.port).connect()


def test_a_wrong_secret_is_refused(emulator):
    stranger = ODPS("emulator", "wrong", project="demo", endpoint=emulator.endpoint)
    with pytest.raises(errors.SignatureNotMatch):
        TableTunnel(stranger, endpoint=f"http://127.0.0.1:{emulator.port}").create_upload_session(
            "t"
        )


def test_a_project_path_and_method_that_are_not_there(odps, tunnel, make_table):
    table = make_table(a="bigint")
    session = tunnel.create_download_session(table.name)
    url = session._table.table_resource()
    with pytest.raises(errors.MethodNotAllowed):
        session._client.delete(url)
    with pytest.raises(errors.NoSuchObject):
        session._client.get(f"{url}/nothing")
    for method in ("get", "post", "put"):
        with pytest.raises(errors.InvalidArgument):
            getattr(session._client, method)(url)
    with pytest.raises(errors.NoSuchProject):
        TableTunnel(
            odps, project="nowhere", endpoint=tunnel.tunnel_rest.endpoint
        ).create_download_session("t")


def test_the_log_names_every_request(tunnel, make_table, control):
    table = make_table(a="bigint")
    session = tunnel.create_upload_session(table.name)
    with session.open_record_writer(0) as writer:
        for value in range(10):
            writer.write(session.new_record([value]))
    [block] = control.requests("PUT")
    assert block["rows"] == 10
    assert block["bytes_in"] > 50
    assert (block["status"], block["fault"]) == (200, None)
    assert block["path"] == f"/projects/demo/tables/{table.name}"
    numbers = [entry["n"] for entry in control.requests()]
    assert numbers == sorted(set(numbers))
    control.call("DELETE", "requests")
    assert control.requests() == []


def test_connections_stay_open_but_for_answers_with_a_session(tunnel, make_table):
    """Clients fork their workers right after those, and would share the connection."""
    table = make_table(a="bigint")
    upload = tunnel.create_upload_session(table.name)
    download = tunnel.create_download_session(table.name)
    client, url = upload._client, upload._table.table_resource()
    for looking in ({"uploadid": upload.id}, {"downloadid": download.id}):
        assert client.get(url, params=looking).headers["Connection"] == "close"
    rows = client.get(url, params={"downloadid": download.id, "data": "", "rowrange": "(0,1)"})
    assert "Connection" not in rows.headers


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("faults", {"kinds": ["thunder"]}),
        ("faults", ["x"]),
        ("bandwidth", {"bytes_per_second": 0}),
        ("bandwidth", {"bytes": 1}),
        ("projects", {"name": ""}),
    ],
)
def test_the_control_address_refuses_nonsense(emulator, path, body):
    connection = http.client.HTTPConnection("127.0.0.1", emulator.port)
    connection.request("PUT", f"/emulator/{path}", body=json.dumps(body))
    answer = connection.getresponse()
    assert (answer.status, "error" in json.loads(answer.read())) == (400, True)
    connection.close()


def test_a_project_can_be_added(emulator, control, odps):
    control.call("PUT", "projects", {"name": "later"})
    tunnel = TableTunnel(odps, project="later", endpoint=f"http://127.0.0.1:{emulator.port}")
    with pytest.raises(errors.NoSuchTable):
        tunnel.create_download_session("t")


def test_clients_that_leave_are_no_errors(tunnel, make_table, control, caplog):
    caplog.set_level(logging.WARNING)
    table = make_table(b="string")
    session = tunnel.create_upload_session(table.name)

    def body():
        yield b"\x0a\xff\xff\x03" + b"x" * 10_000
        raise KeyError("the client stops here")

    url, parameters = session._table.table_resource(), {"uploadid": session.id, "blockid": 0}
    with pytest.raises(KeyError):
        session._client.put(url, data=body(), params=parameters)
    with session.open_record_writer(1) as writer:
        for _ in range(2000):
            writer.write(session.new_record(["x" * 10_000]))
    assert session.get_block_list() == [1]
    session.commit([1])
    reading = tunnel.create_download_session(table.name)
    stream = reading._build_input_stream(0, 2000)
    stream.read(1000)
    stream._input.close()
    deadline = time.monotonic() + 5
    while any(e["status"] is None for e in control.requests()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert caplog.records == []


def test_two_emulators_side_by_side_know_nothing_of_each_other(emulator):
    with Emulator(projects=("alone",), access_key_id="k", access_key_secret="s") as second:
        assert second.port != emulator.port
        client = ODPS("emulator", "emulator", project="alone", endpoint=second.endpoint)
        tunnel = TableTunnel(client, endpoint=f"http://127.0.0.1:{second.port}")
        with pytest.raises(errors.Unauthorized):
            tunnel.create_upload_session("t")
    with pytest.raises(OSError, match="refused"):
        ask(second, "/emulator/health")


def test_a_stopped_emulators_file_holds_its_projects(tmp_path):
    file = tmp_path / "state.duckdb"
    with Emulator(database=file, projects=("kept",)):
        pass
    with Emulator(database=file, projects=()) as again:
        assert again.warehouse.has_project("kept")
