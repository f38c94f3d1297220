"""An S3 server on this machine, and one that refuses or never answers, for tests."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

BUCKET = "flowpatch-tests"
KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIA-MARKER-OF-THE-TESTS",
    "AWS_SECRET_ACCESS_KEY": "marker/secret+of/the=tests",
    "AWS_SESSION_TOKEN": "marker-token-of-the-tests",
}
_OTHERS = (
    "AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy",
)  # fmt: skip


def point_at(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in which a server is reached with the keys above, and nothing else is."""
    for name in _OTHERS:
        monkeypatch.delenv(name, raising=False)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nowhere/of-the-tests")


@contextmanager
def s3_server() -> Iterator[str]:
    """The endpoint of an S3 server that runs until the end of the block."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@dataclass(frozen=True)
class Remote:
    """A prefix of a bucket that belongs to one test, and a client to look at it from outside."""

    endpoint: str
    prefix: str
    client: Any

    def address(self, name: str) -> str:
        return f"s3://{BUCKET}/{self.prefix}/{name}"

    def contents(self) -> dict[str, bytes]:
        """Every object of the test, by its key."""
        found = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=BUCKET, Prefix=self.prefix
        )
        keys = [each["Key"] for page in found for each in page.get("Contents", ())]
        return {key: self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}


@contextmanager
def refusing_server(status: int, code: str) -> Iterator[str]:
    """The endpoint of a server that answers every request with one error."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            body = f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode()
            self.send_response(status)
            self.send_header("content-type", "application/xml")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = answer

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
