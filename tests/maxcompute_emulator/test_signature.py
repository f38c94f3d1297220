import base64
import hashlib
import hmac

import pytest
from multidict import CIMultiDict
from odps.accounts import CloudAccount, StsAccount
from requests import Request

from maxcompute_emulator.errors import ServiceError
from maxcompute_emulator.signature import Credentials, canonical_text, verify

ACCOUNT = Credentials("id", "a secret")
HEADERS = {"Date": "Fri, 19 Sep 2025 00:00:00 GMT", "x-odps-user-agent": "test"}
TARGETS = [
    "/api/projects/demo",
    "/api/projects/demo/tables?expectmarker=true&marker=",
    "/api/projects/demo/tables/t?partition=ds%3D%2720250919%27&x-odps-thing=1",
    "/api/projects/demo/tables?name=a+b%26c%3Dd",
    "/api/projects/demo/tables/%E8%A1%A8;x?data",
]


def signed(target: str, account: CloudAccount, prefix: str, region: str | None = None) -> dict:
    request = Request("GET", f"http://127.0.0.1:1{target}", headers=HEADERS).prepare()
    account.sign_request(request, f"http://127.0.0.1:1{prefix}", region_name=region)
    return request


@pytest.mark.parametrize("region", [None, "cn-hangzhou"])
@pytest.mark.parametrize("target", TARGETS)
def test_the_clients_signature_is_accepted(target, region):
    request = signed(target, CloudAccount("id", "a secret"), "/api", region)
    verify(ACCOUNT, "GET", request.path_url, "/api", request.headers)


def test_the_signed_text_is_as_documented():
    target = "/projects/p/tables/t?uploadid=1&blockid=0&arrow"
    more = {"Content-Type": "text/plain", "Content-MD5": "abc", "x-odps-a": "1"}
    headers = CIMultiDict({**HEADERS, **more})
    assert canonical_text("put", target, headers).split("\n") == [
        "PUT",
        "abc",
        "text/plain",
        "Fri, 19 Sep 2025 00:00:00 GMT",
        "x-odps-a:1",
        "x-odps-user-agent:test",
        "/projects/p/tables/t?arrow&blockid=0&uploadid=1",
    ]


def test_a_signature_made_by_hand():
    text = canonical_text("GET", "/projects/p", CIMultiDict(HEADERS))
    digest = hmac.new(b"a secret", text.encode(), hashlib.sha1).digest()
    authorization = f"ODPS id:{base64.b64encode(digest).decode()}"
    headers = CIMultiDict({**HEADERS, "Authorization": authorization})
    verify(ACCOUNT, "GET", "/projects/p", "", headers)


@pytest.mark.parametrize(
    ("account", "code", "status"),
    [
        (CloudAccount("id", "wrong"), "SignatureNotMatch", 403),
        (CloudAccount("nobody", "a secret"), "Unauthorized", 401),
    ],
)
def test_a_wrong_account_is_refused(account, code, status):
    request = signed(TARGETS[0], account, "/api")
    with pytest.raises(ServiceError) as caught:
        verify(ACCOUNT, "GET", request.path_url, "/api", request.headers)
    assert (caught.value.code, caught.value.status) == (code, status)
    assert "secret" not in caught.value.message.replace("access key secret", "")


@pytest.mark.parametrize("header", ["", "ODPS", "ODPS id", "Basic id:abc", "ODPS id/x/y:abc"])
def test_a_malformed_header_is_refused(header):
    with pytest.raises(ServiceError) as caught:
        verify(ACCOUNT, "GET", "/", "", {"Authorization": header})
    assert caught.value.status == 401


def test_a_changed_request_is_refused():
    request = signed(TARGETS[1], CloudAccount("id", "a secret"), "/api")
    with pytest.raises(ServiceError, match="SignatureNotMatch"):
        verify(ACCOUNT, "GET", request.path_url + "&more=1", "/api", request.headers)


def test_a_security_token_is_required_where_it_is_set():
    account = Credentials("id", "a secret", "token")
    with_token = signed(TARGETS[0], StsAccount("id", "a secret", "token"), "/api")
    verify(account, "GET", with_token.path_url, "/api", with_token.headers)
    for other in (CloudAccount("id", "a secret"), StsAccount("id", "a secret", "old")):
        request = signed(TARGETS[0], other, "/api")
        with pytest.raises(ServiceError, match="security token"):
            verify(account, "GET", request.path_url, "/api", request.headers)


def test_secrets_are_not_shown():
    assert "secret" not in repr(Credentials("id", "a secret", "token"))
    assert "token'" not in repr(Credentials("id", "a secret", "token'"))
