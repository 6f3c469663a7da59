"""The key stays home: where it may go, and what never shows it, on real HTTP."""

import logging
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.core.auth import Auth, check_base_url
from sources.core.client import Client
from sources.core.errors import AuthError, ConfigError, ProtocolError, RefusedError, UncertainError
from tests.scripted_client import KEY, client_of, serving, told
from tests.scripted_server import ScriptedServer, reply

WHOLE = reply(body=b'{"data": []}')


@pytest.fixture
def stranger() -> Iterator[ScriptedServer]:
    with ScriptedServer(WHOLE) as server:
        yield server


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_elsewhere_is_not_followed(stranger: ScriptedServer, status: int) -> None:
    error, server = told(reply(status, headers={"Location": stranger.url + "/contacts"}))
    assert type(error) is ProtocolError
    assert "redirects to another address" in str(error)
    assert len(server.requests) == 1
    assert stranger.requests == []


@pytest.mark.parametrize(
    "location",
    [
        "//evil.example/x",
        "https://127.0.0.1/x",
        "http://u@127.0.0.1/x",
        "http://[bad",
        "\\\\evil.example",
        "",
    ],
)
def test_a_redirect_that_only_looks_like_home_is_not_followed(location: str) -> None:
    error, server = told(reply(302, headers={"Location": location}))
    assert type(error) is ProtocolError
    assert len(server.requests) == 1


def test_a_redirect_at_home_is_followed_with_the_key() -> None:
    with serving(reply(307, headers={"Location": "/v2/contacts?page=1"}), WHOLE) as (server, client):
        client.get("/contacts", {"a": "1"})
    assert server.requests[1].target == "/v2/contacts?page=1"
    assert server.requests[1].headers["authorization"] == f"Bearer {KEY}"


def test_a_redirect_in_a_circle_ends_after_three() -> None:
    error, server = told(reply(302, headers={"Location": "/contacts"}))
    assert type(error) is ProtocolError
    assert len(server.requests) == 4


def test_a_redirected_write_is_not_sent_again() -> None:
    error, server = told(reply(303, headers={"Location": "/contacts"}), method="POST")
    assert type(error) is UncertainError
    assert len(server.requests) == 1


def test_an_error_shows_no_key_no_address_and_no_query() -> None:
    body = f'{{"message": "key {KEY} of ada@example.com may not"}}'.encode()
    with serving(reply(400, body)) as (_, client), pytest.raises(RefusedError) as caught:
        client.get("/contacts", {"email": "bob@example.com"})
    assert str(caught.value) == "relm: the request was refused (400: key … of … may not)"
    assert KEY.encode() not in caught.value.answer.body


def test_the_log_names_method_path_and_status_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(WHOLE) as (_, client):
        client.get("/contacts/ada@example.com", {"email": "bob@example.com"})
    assert [record.getMessage().partition(" 200 ")[0] for record in caplog.records] == ["GET /contacts/…"]
    assert KEY not in caplog.text


def test_auth_shows_no_key() -> None:
    auth = Auth("Authorization", "Bearer ", KEY)
    assert KEY not in repr(auth) + str(auth) + repr(auth.secret) + f"{auth.secret}"
    assert auth.headers() == {"Authorization": f"Bearer {KEY}"}


@pytest.mark.parametrize("key", ["", f"{KEY}\n", f" {KEY}", "kéy", "a\r\nX-Evil: 1"])
def test_a_key_that_no_header_can_carry_is_refused_unseen(key: str) -> None:
    with pytest.raises(AuthError) as caught:
        Client(connection="relm", base_url="https://crm.example", auth=Auth("X-Key", "", key))
    assert not key.strip() or key.strip() not in str(caught.value)


@pytest.mark.parametrize(
    "path", ["/contacts/../keys", "/contacts/%2e%2e/keys", "/a?b=1", "/a#b", "/a//b", "/a\nb"]
)
def test_an_id_cannot_lead_to_another_path(path: str) -> None:
    with client_of("https://crm.example") as client, pytest.raises(RefusedError, match="an id cannot stand"):
        client.get(path)


# -- where the key may go ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://crm.example",
        "https://crm.example:8443/v1/",
        "http://127.0.0.1:8080",
        "http://[::1]:80",
        "http://localhost",
    ],
)
def test_https_and_this_machine_are_where_a_key_may_go(url: str) -> None:
    check_base_url("relm", url)


@pytest.mark.parametrize(
    "url",
    [
        "http://crm.example",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "https://user:pass@crm.example",
        "https://crm.example?x=1",
        "https://crm.example#x",
        "https://crm.example:99999",
        "https://",
        "https:crm.example",
        "ftp://crm.example",
        "file:///etc/passwd",
        "crm.example",
        "",
        " https://crm.example",
        "https://crm.example\n",
        "https://crm.example\\@evil.example",
        "https://[::1",
    ],
)
def test_any_other_base_url_is_refused_by_the_name_of_its_setting(url: str) -> None:
    with pytest.raises(ConfigError, match=r"sources\.relm\.base_url") as caught:
        check_base_url("relm", url)
    assert "pass@" not in str(caught.value)


@given(url=st.text(max_size=40))
def test_no_text_breaks_the_check_of_a_base_url(url: str) -> None:
    with suppress(ConfigError):
        check_base_url("relm", "http://" + url)
