"""The client: each failure is one `ConnectorError` without a secret, and no write is sent twice blindly."""

import socket
import threading
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources.core.client import Client
from sources.core.errors import (
    AuthError,
    ConfigError,
    ConnectorError,
    GoneError,
    ProtocolError,
    QuotaError,
    RateLimitError,
    RefusedError,
    UnavailableError,
    UncertainError,
)
from tests.scripted_client import KEY, client_of, serving, told
from tests.scripted_server import RESET, ScriptedServer, Step, TurnedClock, reply

WHOLE = reply(body=b'{"data": []}')
CUT_SHORT = b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\nContent-Type: application/json\r\n\r\n{"data"'
CUT_CHUNK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\nhalf"
HEAD_ALONE = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
PAGE = reply(body=b"<!doctype html><p>Sign in", content_type="text/html; charset=utf-8")


# -- answers -------------------------------------------------------------------------------------


def test_an_answer_is_json_with_lower_case_headers() -> None:
    with serving(reply(body=b'{"id": 7}', headers={"X-Total": "1"})) as (_, client):
        answer = client.get("/contacts/7")
    assert (answer.status, answer.json(), answer.headers["x-total"]) == (200, {"id": 7}, "1")


def test_a_request_carries_the_key_its_parameters_and_no_cookie() -> None:
    with ScriptedServer(reply(headers={"Set-Cookie": "session=1; Path=/"})) as server:
        client = client_of(server.url + "/v1/")
        client.get("/contacts", {"a": "1"})
        client.get("contacts", [("tag", "x y"), ("tag", "ü")])
        client.close()
    first, second = server.requests
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert first.headers["accept"] == "application/json"
    assert first.headers["user-agent"].startswith("roundtrip")
    assert (first.target, second.target) == ("/v1/contacts?a=1", "/v1/contacts?tag=x+y&tag=%C3%BC")
    assert "cookie" not in second.headers


def test_a_netrc_file_does_not_replace_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password other\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with serving(WHOLE) as (server, client):
        client.get("/contacts")
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_proxy_does_not_stand_before_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with serving(WHOLE) as (_, client):
        assert client.get("/contacts").status == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [("SSL_CERT_FILE", "/none"), ("HTTPS_PROXY", "gopher://me:secret@proxy"), ("HTTPS_PROXY", "::")],
)
def test_an_environment_that_allows_no_connection_is_one_line_without_its_values(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with (
        Client(connection="relm", base_url="https://relm.invalid", auth=None) as client,
        pytest.raises(ConfigError, match=rf"^relm contacts: .*{name}") as found,
    ):
        client.get("/contacts", resource="contacts")
    assert value not in str(found.value)
    assert found.value.__cause__ is None


def test_a_place_too_long_for_an_address_is_a_protocol_error() -> None:
    with serving(WHOLE) as (_, client), pytest.raises(ProtocolError, match="cannot be written"):
        client.get("/contacts", {"cursor": "x" * 70_000})


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (r"cut \ud83d", r"cut \ud83d"),
        (r"\uDE00 late", r"\uDE00 late"),
        (r"\ud83d\ud83d\ude00", "\\ud83d\N{GRINNING FACE}"),
        (r"\\ud83d\ud83d", r"\ud83d\ud83d"),
    ],
)
def test_half_a_character_is_kept_as_it_was_written(sent: str, kept: str) -> None:
    with serving(reply(body=f'{{"name": "{sent}", "other": "\\u00e9 \\ud83d\\ude00"}}'.encode())) as (
        _,
        client,
    ):
        assert client.get("/contacts").json() == {"name": kept, "other": "\u00e9 \N{GRINNING FACE}"}


def test_the_servers_time_is_its_date_and_what_passed_since() -> None:
    clock = TurnedClock()
    date = datetime(2026, 3, 1, 12, tzinfo=UTC)
    dated = reply(headers={"Date": formatdate(date.timestamp(), usegmt=True)})
    with serving(dated, clock=clock) as (_, client):
        assert client.server_time() is None
        client.get("/contacts")
        clock.now += 90
        assert client.server_time() == datetime(2026, 3, 1, 12, 1, 30, tzinfo=UTC)


# -- lost answers --------------------------------------------------------------------------------

LOST: dict[str, Step] = {
    "reset before the headers": [RESET],
    "closed before the headers": [b"", 0.0],
    "closed within the headers": [b"HTTP/1.1 200 OK\r\nContent-", 0.0],
    "reset after the headers": [HEAD_ALONE, RESET],
    "half a body": [CUT_SHORT, 0.0],
    "half a chunk": [CUT_CHUNK, 0.0],
    "408": [reply(408)],
    "503": [reply(503)],
}


@pytest.mark.parametrize("step", LOST.values(), ids=LOST.keys())
def test_a_lost_answer_to_a_read_is_asked_for_again(step: Step) -> None:
    with serving(step, step, WHOLE) as (server, client):
        assert client.get("/contacts").json() == {"data": []}
    assert len(server.requests) == 3


@pytest.mark.parametrize("step", LOST.values(), ids=LOST.keys())
def test_a_read_that_never_gets_an_answer_ends_unavailable_after_five_attempts(step: Step) -> None:
    error, server = told(step)
    assert type(error) is UnavailableError
    assert len(server.requests) == 5


@pytest.mark.parametrize("step", LOST.values(), ids=LOST.keys())
def test_a_write_that_may_have_been_applied_is_sent_once_and_uncertain(step: Step) -> None:
    error, server = told(step, WHOLE, method="POST")
    assert type(error) is UncertainError
    assert len(server.requests) == 1


def test_a_repeatable_write_is_sent_again_with_the_same_bytes() -> None:
    with serving(reply(500), WHOLE) as (server, client):
        client.send("POST", "/x", body=b'{"a": 1}', headers={"Idempotency-Key": "k"}, repeatable=True)
    first, second = server.requests
    assert (first.body, first.headers["idempotency-key"]) == (second.body, second.headers["idempotency-key"])
    assert first.headers["content-type"] == "application/json"


@pytest.mark.parametrize("status", [400, 401, 402, 409])
def test_a_refusal_after_an_attempt_that_may_have_been_applied_is_uncertain(status: int) -> None:
    with (
        serving(reply(500), reply(status)) as (_, client),
        pytest.raises(UncertainError, match=str(status)),
    ):
        client.send("POST", "/contacts", repeatable=True)


def test_a_wait_too_long_after_an_attempt_that_may_have_been_applied_is_no_plain_rate_limit() -> None:
    with (
        serving(reply(503, headers={"Retry-After": "9999"})) as (server, client),
        pytest.raises(UnavailableError, match="not known"),
    ):
        client.send("POST", "/contacts", repeatable=True)
    assert len(server.requests) == 1


def test_a_read_after_a_server_error_is_refused_plainly() -> None:
    error, _ = told(reply(500), reply(404))
    assert type(error) is GoneError


def test_a_refused_connection_is_tried_again_even_for_a_write_and_then_told() -> None:
    clock = TurnedClock()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    unreachable = pytest.raises(UnavailableError, match=r"cannot be reached \(Connection refused\)")
    with client_of(f"http://127.0.0.1:{port}", clock) as client, unreachable:
        client.send("POST", "/contacts", repeatable=False)
    assert len(clock.slept) == 4


def test_a_server_that_stays_silent_ends_in_a_time_out() -> None:
    error, server = told([5.0], timeout_s=0.1, max_attempts=2)
    assert str(error) == "relm contacts: no whole answer came in time"
    assert len(server.requests) == 2


def test_a_body_that_drips_is_given_up_though_every_wait_is_short() -> None:
    drip: list[bytes | float | None] = [HEAD_ALONE]
    drip += [b"x", 0.05] * 99
    with ScriptedServer(drip) as server:
        client = Client(
            connection="relm", base_url=server.url, auth=None, timeout_s=2, answer_s=0.2, max_attempts=1
        )
        with client, pytest.raises(UnavailableError, match="in time"):
            client.get("/contacts")


# -- answers that break the rules ----------------------------------------------------------------


def test_bytes_that_are_not_http_are_a_protocol_error() -> None:
    error, _ = told([b"SSH-2.0-OpenSSH_9.6\r\n\r\n", 0.0])
    assert type(error) is ProtocolError
    assert "not HTTP" in str(error)


STARTS = [
    b"",
    b"HTTP/1.1 ",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: ",
    b"HTTP/1.1 429 No\r\nRetry-After: ",
]


@settings(max_examples=80, deadline=None)
@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=60), ending=st.sampled_from([b"", b"\r\n\r\n"]))
def test_whatever_bytes_come_it_is_an_answer_or_one_connector_error(
    start: bytes, rest: bytes, ending: bytes
) -> None:
    with serving([start + rest + ending, 0.0], max_attempts=1) as (_, client), suppress(ConnectorError):
        client.get("/contacts").json()


BROKEN = {
    "is a web page": PAGE,
    "is a web page, not JSON": reply(body=b" <html>", content_type="application/json"),
    "is not JSON": reply(body=b'{"data": ['),
    "is not": reply(body=b"[" * 100_000),
    "is empty": reply(204, b""),
}


@pytest.mark.parametrize(
    ("what", "answer"), BROKEN.items(), ids=["html", "hidden html", "cut", "deep", "empty"]
)
def test_an_answer_that_is_no_json_is_a_protocol_error(what: str, answer: bytes) -> None:
    error, server = told(answer)
    assert type(error) is ProtocolError
    assert what in str(error)
    assert len(server.requests) == 1


def test_an_answer_of_another_shape_is_told_with_what_was_expected() -> None:
    with (
        serving(reply(body=b'{"data": {"id": 1}}')) as (_, client),
        pytest.raises(ProtocolError, match=r"relm contacts: .* another shape .*`array`.* \(200\)"),
    ):
        client.get("/contacts", resource="contacts").json(type=dict[str, list[int]])


@pytest.mark.parametrize(("method", "kind"), [("GET", ProtocolError), ("POST", UncertainError)])
def test_an_answer_larger_than_the_limit_is_not_read_to_its_end(method: str, kind: type[Exception]) -> None:
    error, server = told(reply(body=b"x" * 5000), method=method, max_body_bytes=1000)
    assert type(error) is kind
    assert len(server.requests) == 1


@pytest.mark.parametrize("header", ["gzip", "deflate"])
def test_a_body_whose_compression_is_broken_is_a_protocol_error(header: str) -> None:
    error, _ = told(reply(body=b"\x01garbage", headers={"Content-Encoding": header}))
    assert type(error) is ProtocolError


# -- statuses ------------------------------------------------------------------------------------

KINDS = {
    400: RefusedError,
    401: AuthError,
    402: QuotaError,
    403: AuthError,
    404: GoneError,
    405: RefusedError,
    409: RefusedError,
    410: GoneError,
    412: RefusedError,
    413: RefusedError,
    415: RefusedError,
    422: RefusedError,
    418: RefusedError,
    501: RefusedError,
    304: ProtocolError,
}


@pytest.mark.parametrize(("status", "kind"), KINDS.items())
def test_a_status_that_waiting_does_not_change_is_asked_for_once(status: int, kind: type[Exception]) -> None:
    error, server = told(reply(status, b"" if status == 304 else b"{}"))
    assert type(error) is kind
    assert error.status == status
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 504, 520])
def test_a_status_that_may_pass_is_asked_again(status: int) -> None:
    error, server = told(reply(status))
    assert type(error) is UnavailableError
    assert len(server.requests) == 5


def test_a_crm_overrides_rows_of_the_table() -> None:
    error, server = told(reply(500), statuses={500: RefusedError})
    assert type(error) is RefusedError
    assert len(server.requests) == 1


def test_a_refused_key_says_where_to_set_it() -> None:
    error, _ = told(reply(401))
    assert str(error) == (
        "relm contacts: the key was refused (401). "
        "Set sources.relm.api_key in .dlt/secrets.toml or SOURCES__RELM__API_KEY."
    )


def test_a_missing_permission_is_told_apart_from_a_wrong_key() -> None:
    error, _ = told(reply(403, b'{"detail": "scope read is missing"}'), key_hint="Ask an admin.")
    assert str(error) == (
        "relm contacts: the key lacks a permission for this (403: scope read is missing). Ask an admin."
    )


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"error": {"code": "x", "message": "no such field"}}', "(422: no such field)"),
        (b'{"error": "Bad", "message": "no such field"}', "(422: Bad; no such field)"),
        (
            b'{"detail": [{"loc": ["body", "age"], "msg": "too old", "input": "secret"}]}',
            "(422: body.age: too old)",
        ),
        (b'{"title": "Invalid", "errors": {"age": ["too old"]}}', "(422: Invalid; age: too old)"),
        (b'{"errors": ["one", "two"]}', "(422: one; two)"),
        (b"plain\x1b[31m words\r\n", "(422: plain [31m words)"),
        (b"<html>no</html>", "(422)"),
        (b"[" * 100_000, "["),
        (b'{"message": 7}', "(422)"),
        (b"\xff\xfe", "(422"),
    ],
)
def test_the_vendors_reason_is_found_in_any_shape(body: bytes, reason: str) -> None:
    error, _ = told(reply(422, body))
    assert reason in str(error)
    assert len(str(error)) < 400


def test_a_refusal_keeps_the_answer_for_those_who_read_its_rows() -> None:
    error, _ = told(reply(422, b'{"rows": [1, 2]}', {"X-Request-Id": "r-1"}))
    assert error.answer.json() == {"rows": [1, 2]}
    assert error.request_id == "r-1"


# -- waits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_429_is_repeated_after_the_whole_wait_for_reads_and_writes(method: str) -> None:
    clock = TurnedClock()
    with serving(reply(429, headers={"Retry-After": "40"}), WHOLE, clock=clock) as (_, client):
        client.send(method, "/contacts", repeatable=False)
    assert sum(clock.slept) == pytest.approx(40, abs=0.01)


def test_a_429_with_a_date_waits_until_then_by_the_servers_clock() -> None:
    clock = TurnedClock()
    stamps = {"Date": formatdate(1000, usegmt=True), "Retry-After": formatdate(1025, usegmt=True)}
    with serving(reply(429, headers=stamps), WHOLE, clock=clock) as (_, client):
        client.get("/contacts")
    assert sum(clock.slept) == pytest.approx(25, abs=0.01)


def test_a_429_without_a_word_cools_down() -> None:
    clock = TurnedClock()
    with serving(reply(429), WHOLE, clock=clock) as (_, client):
        client.get("/contacts")
    assert sum(clock.slept) == pytest.approx(5, abs=0.01)


def test_a_429_that_asks_for_an_hour_is_told_with_its_wait() -> None:
    error, server = told(reply(429, headers={"Retry-After": "3600"}))
    assert isinstance(error, RateLimitError)
    assert error.retry_after_s == pytest.approx(3600)
    assert str(error).startswith("relm contacts: the CRM asks to wait 3600 s")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "body",
    [b'{"error": {"code": "spend_cap_reached", "message": "no"}}', b'{"message": "Monthly quota used"}'],
)
def test_a_used_up_quota_told_with_429_stops_at_once(body: bytes) -> None:
    error, server = told(reply(429, body))
    assert type(error) is QuotaError
    assert len(server.requests) == 1


def test_a_wait_told_with_503_is_obeyed_in_full() -> None:
    clock = TurnedClock()
    with serving(reply(503, headers={"Retry-After": "100"}), WHOLE, clock=clock) as (_, client):
        client.get("/contacts")
    assert sum(clock.slept) == pytest.approx(100, abs=0.01)


def test_attempts_on_a_failing_server_back_off() -> None:
    clock = TurnedClock()
    told(reply(500), clock=clock)
    assert clock.slept == sorted(clock.slept)
    assert len(clock.slept) == 4


def test_threads_share_one_client_and_one_budget() -> None:
    with serving(WHOLE) as (server, client):
        threads = [threading.Thread(target=client.get, args=("/contacts",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert client.budget.snapshot().requests == len(server.requests) == 8
