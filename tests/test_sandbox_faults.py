"""Every fault is really produced: on the socket, and in what was applied or was not."""

import http.client
import json
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import Any

import pytest

from sources.sandbox import Sandbox
from sources.sandbox.exchange import Request
from sources.sandbox.faults import (
    ACTIONS,
    Action,
    ApplyThenDrop,
    ApplyThenStatus,
    Drip,
    ExpireCursor,
    Garbage,
    HalfBody,
    Hang,
    Html,
    NotHttp,
    Redirect,
    Reset,
    ResetAfterHeaders,
    RevokeKey,
    SamePage,
    Status,
    TooMany,
    WrongShape,
)

LIST = "/v1/contacts?limit=5"
NEW = {"email": "new@pier.example"}


@pytest.fixture
def box() -> Iterator[Sandbox]:
    """Run a sandbox with a few people."""
    with Sandbox(records=20) as running:
        yield running


class Answer:
    """Hold what came back, read to the end."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    def json(self) -> Any:
        return json.loads(self.body)


def ask(box: Sandbox, path: str, body: dict[str, Any] | None = None) -> Answer:
    """Send one request to Relm on a connection of its own: a POST where there is a body."""
    connection = http.client.HTTPConnection("127.0.0.1", box.port, timeout=5)
    headers = {"Authorization": f"Bearer {box.key('relm')}"}
    try:
        content = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", f"/relm{path}", content, headers)
        return Answer(connection.getresponse())
    finally:
        connection.close()


@pytest.mark.parametrize("code", [500, 502, 503, 403])
def test_a_status_is_answered_in_the_crms_shape_and_nothing_is_applied(box: Sandbox, code: int) -> None:
    box.faults.add(Status(code))
    answer = ask(box, "/v1/contacts", NEW)
    assert (answer.status, set(answer.json())) == (code, {"error"})
    assert box.tenant("relm").ledger == []


def test_a_status_may_bring_its_own_body_and_headers(box: Sandbox) -> None:
    box.faults.add(Status(503, "busy", {"Retry-After": "9"}, "text/plain"))
    answer = ask(box, LIST)
    assert (answer.body, answer.headers["Retry-After"]) == (b"busy", "9")
    assert answer.headers["Content-Type"] == "text/plain"


def test_429_tells_the_wait_in_seconds_as_a_date_or_not_at_all(box: Sandbox) -> None:
    box.faults.add(TooMany(7))
    box.faults.add(TooMany(7, "date"))
    box.faults.add(TooMany(form="none"))
    answers = [ask(box, LIST) for _ in range(3)]
    told = [answer.headers["Retry-After"] for answer in answers]
    assert {answer.status for answer in answers} == {429}
    assert (told[0], told[2]) == ("7", None)
    wait = parsedate_to_datetime(told[1]) - parsedate_to_datetime(answers[1].headers["Date"])
    assert 6 <= wait.total_seconds() <= 8


def test_a_reset_cuts_before_anything_is_applied(box: Sandbox) -> None:
    box.faults.add(Reset())
    with pytest.raises(ConnectionResetError):
        ask(box, "/v1/contacts", NEW)
    assert box.tenant("relm").ledger == []
    assert box.requests[-1].status == 0


def test_a_reset_after_headers_leaves_no_body(box: Sandbox) -> None:
    box.faults.add(ResetAfterHeaders())
    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        ask(box, LIST)


def test_half_a_body_is_shorter_than_promised(box: Sandbox) -> None:
    box.faults.add(HalfBody())
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(box, LIST)
    assert len(caught.value.partial) > 0


def test_a_hang_outlasts_a_time_out(box: Sandbox) -> None:
    box.faults.add(Hang(30))
    connection = http.client.HTTPConnection("127.0.0.1", box.port, timeout=0.1)
    connection.request("GET", f"/relm{LIST}")
    with pytest.raises(TimeoutError):
        connection.getresponse()
    connection.close()


def test_a_hang_after_applying_has_applied(box: Sandbox) -> None:
    box.faults.add(Hang(0.05, "after"))
    started = monotonic()
    assert ask(box, "/v1/contacts", NEW).status == 201
    assert monotonic() - started >= 0.05


def test_a_slow_drip_ends_with_the_whole_body(box: Sandbox) -> None:
    whole = ask(box, LIST).body
    box.faults.add(Drip(pieces=5, gap_s=0.01))
    started = monotonic()
    assert ask(box, LIST).body == whole
    assert monotonic() - started >= 0.05


def test_garbage_claims_to_be_json(box: Sandbox) -> None:
    box.faults.add(Garbage())
    answer = ask(box, LIST)
    assert answer.headers["Content-Type"] == "application/json"
    with pytest.raises(ValueError, match=r".*"):
        answer.json()


def test_bytes_that_are_no_http(box: Sandbox) -> None:
    box.faults.add(NotHttp())
    with pytest.raises(http.client.BadStatusLine):
        ask(box, LIST)


def test_html_comes_with_200_and_nothing_applied(box: Sandbox) -> None:
    box.faults.add(Html())
    answer = ask(box, "/v1/contacts", NEW)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert box.tenant("relm").ledger == []


def test_a_wrong_shape_is_json_of_another_kind(box: Sandbox) -> None:
    box.faults.add(WrongShape("[]"))
    assert ask(box, LIST).json() == []


def test_a_redirect_points_elsewhere(box: Sandbox) -> None:
    box.faults.add(Redirect("http://elsewhere.example/v1/contacts"))
    answer = ask(box, LIST)
    assert (answer.status, answer.headers["Location"]) == (302, "http://elsewhere.example/v1/contacts")


def test_apply_then_drop_has_applied_and_says_nothing(box: Sandbox) -> None:
    box.faults.add(ApplyThenDrop())
    with pytest.raises(ConnectionResetError):
        ask(box, "/v1/contacts", NEW)
    assert [write.fields for write in box.tenant("relm").ledger] == [NEW]


def test_apply_then_500_has_applied(box: Sandbox) -> None:
    box.faults.add(ApplyThenStatus(500))
    assert ask(box, "/v1/contacts", NEW).status == 500
    assert len(box.tenant("relm").ledger) == 1


def test_a_key_dies_in_the_middle_of_a_run(box: Sandbox) -> None:
    key = box.key("relm")
    box.faults.add(RevokeKey(), nth=3)
    connection = http.client.HTTPConnection("127.0.0.1", box.port)
    statuses = []
    for _ in range(4):
        connection.request("GET", f"/relm{LIST}", headers={"Authorization": f"Bearer {key}"})
        statuses.append(Answer(connection.getresponse()).status)
    connection.close()
    assert statuses == [200, 200, 401, 401]


def test_an_expired_cursor_is_refused_and_a_fresh_start_is_not(box: Sandbox) -> None:
    cursor = ask(box, LIST).json()["next_cursor"]
    box.faults.add(ExpireCursor(), times=None)
    refused = ask(box, f"{LIST}&cursor={cursor}")
    assert (refused.status, refused.json()["error"]["code"]) == (400, "invalid_cursor")
    assert ask(box, LIST).status == 200


def test_the_same_page_comes_twice(box: Sandbox) -> None:
    box.faults.add(SamePage(), nth=2)
    first = ask(box, LIST).json()
    second = ask(box, f"{LIST}&cursor={first['next_cursor']}").json()
    assert second == first


def test_rows_shift_between_pages_when_somebody_edits(box: Sandbox) -> None:
    def drop_oldest(request: Request) -> None:
        oldest = box.tenant("relm").records("contacts")[0]
        box.tenant("relm").delete("contacts", oldest["id"])

    box.before_list = drop_oldest
    pages = [ask(box, LIST).json()["data"] for _ in range(2)]
    assert pages[0][1]["id"] == pages[1][0]["id"]


# Which requests a rule befalls


def test_a_rule_is_for_a_crm_a_method_and_a_path(box: Sandbox) -> None:
    for elsewhere in ({"crm": "rally"}, {"method": "POST"}, {"path": "^/v1/deals"}, {"path": "cursor="}):
        box.faults.add(Status(500), **elsewhere)  # type: ignore[arg-type]
    assert ask(box, LIST).status == 200
    assert ask(box, "/v1/deals").status == 500


def test_a_rule_hits_from_the_nth_request_on_so_many_times(box: Sandbox) -> None:
    rule = box.faults.add(Status(500), nth=2, times=2)
    assert [ask(box, LIST).status for _ in range(5)] == [200, 500, 500, 200, 200]
    assert (rule.seen, rule.fired) == (5, 2)


def test_a_rule_with_a_chance_falls_the_same_for_the_same_seed() -> None:
    def statuses() -> list[int]:
        with Sandbox(records=1, seed=5) as box:
            box.faults.add(Status(500), times=None, probability=0.5)
            return [ask(box, LIST).status for _ in range(20)]

    first = statuses()
    assert set(first) == {200, 500}
    assert statuses() == first


def test_clearing_ends_all_faults(box: Sandbox) -> None:
    box.faults.add(Status(500), times=None)
    box.faults.clear()
    assert ask(box, LIST).status == 200


def test_every_fault_has_a_name_for_json() -> None:
    own = {each for each in Action.__subclasses__() if each.__module__.startswith("sources.sandbox")}
    assert set(ACTIONS.values()) == own
