"""Paging: what a walk hands over, when it is complete, and that a moving list loses nothing."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources.core.connector import CursorPages, OffsetPages, OneObject
from sources.core.errors import GoneError, ProtocolError, RefusedError, UnavailableError
from sources.core.paging import Page, Request, Walk, walk

PATH = Request("/contacts", params=(("stage", "won"),))


@dataclass(frozen=True)
class Answer:
    body: bytes

    def json(self, type: Any = Any) -> Any:  # noqa: A002
        try:
            return msgspec.json.decode(self.body, type=type)
        except msgspec.MsgspecError as error:
            raise ProtocolError("the answer has another shape") from error


def answer(value: Any) -> Answer:
    return Answer(msgspec.json.encode(value))


def answers(*values: Any) -> tuple[Callable[[Request], Answer], list[Request]]:
    """Answer requests in turn; an exception is raised instead."""
    asked: list[Request] = []

    def fetch(request: Request) -> Answer:
        asked.append(request)
        value = values[len(asked) - 1]
        if isinstance(value, Exception):
            raise value
        return answer(value)

    return fetch, asked


def cursor_page(*ids: str, then: str | None, **more: Any) -> dict[str, Any]:
    return {"data": [{"id": row_id} for row_id in ids], "next_cursor": then, **more}


def ids(pages: Sequence[Page]) -> list[str]:
    return [row_id for page in pages for row_id in page.ids]


def param(request: Request, name: str) -> str | None:
    return dict(request.params).get(name)


# -- cursor --------------------------------------------------------------------------------------


def test_a_cursor_list_ends_complete_at_a_null_cursor() -> None:
    fetch, asked = answers(cursor_page("a", "b", then="x"), cursor_page("c", then=None))
    steps = walk(fetch, PATH, CursorPages(limit=2))
    pages = list(steps)
    assert ids(pages) == ["a", "b", "c"]
    assert steps.complete
    assert [page.token for page in pages] == ["x", None]
    assert asked[1].params == (("stage", "won"), ("limit", "2"), ("cursor", "x"))


def test_rows_are_handed_over_byte_for_byte() -> None:
    body = b'{"data": [ {"id":7, "n":1.50,"s":"\\u00e9"} ], "next_cursor": null}'
    page = next(iter(walk(lambda request: Answer(body), PATH, CursorPages(limit=2))))
    assert [bytes(row) for row in page.rows] == [b'{"id":7, "n":1.50,"s":"\\u00e9"}']
    assert page.ids == ["7"]


def test_has_more_false_ends_a_list_whatever_the_cursor() -> None:
    fetch, asked = answers(cursor_page("a", then="x", has_more=False))
    steps = walk(fetch, PATH, CursorPages(limit=2, has_more="has_more"))
    assert ids(list(steps)) == ["a"]
    assert steps.complete
    assert len(asked) == 1


def test_has_more_without_a_cursor_breaks_the_protocol() -> None:
    fetch, _ = answers(cursor_page("a", then=None, has_more=True))
    with pytest.raises(ProtocolError, match="no cursor"):
        list(walk(fetch, PATH, CursorPages(limit=2, has_more="has_more")))


@pytest.mark.parametrize(
    ("body", "paging"),
    [
        ({"data": [{"id": "a"}]}, CursorPages(limit=2)),
        ({"data": [{"id": "a"}], "next_cursor": ""}, CursorPages(limit=2)),
        (cursor_page("a", then=None), CursorPages(limit=2, has_more="has_more")),
    ],
)
def test_an_undocumented_end_is_not_complete(body: Any, paging: CursorPages) -> None:
    steps = walk(answers(body)[0], PATH, paging)
    assert ids(list(steps)) == ["a"]
    assert not steps.complete


def test_a_short_or_empty_page_does_not_end_a_cursor_list() -> None:
    fetch, _ = answers(cursor_page(then="x"), cursor_page("a", then="y"), cursor_page("b", "c", then=None))
    assert ids(list(walk(fetch, PATH, CursorPages(limit=9)))) == ["a", "b", "c"]


@pytest.mark.parametrize("second", ["x", "y"])
def test_a_cursor_that_comes_back_breaks_the_protocol(second: str) -> None:
    fetch, _ = answers(cursor_page("a", then="x"), cursor_page("b", then=second), cursor_page("c", then="x"))
    with pytest.raises(ProtocolError, match="second time"):
        list(walk(fetch, PATH, CursorPages(limit=1)))


def test_a_cursor_may_stand_under_meta() -> None:
    first = {"data": [{"id": "a"}], "meta": {"next_cursor": "x"}}
    last = {"data": [{"id": "b"}], "meta": {"next_cursor": None}}
    steps = walk(answers(first, last)[0], PATH, CursorPages(limit=1))
    assert ids(list(steps)) == ["a", "b"]
    assert steps.complete


def test_a_query_carries_the_cursor_in_its_body() -> None:
    fetch, asked = answers(cursor_page("a", then="x"), cursor_page("b", then=None))
    query = Request("/contacts/_query", method="POST", body={"filter": {"a": 1}})
    list(walk(fetch, query, CursorPages(limit=1, in_body=True)))
    assert asked[1].body == {"filter": {"a": 1}, "limit": 1, "cursor": "x"}
    assert query.body == {"filter": {"a": 1}}


def test_a_walk_goes_on_from_a_token() -> None:
    fetch, asked = answers(cursor_page("b", then=None))
    steps = walk(fetch, PATH, CursorPages(limit=1), start="x")
    assert ids(list(steps)) == ["b"]
    assert param(asked[0], "cursor") == "x"
    assert steps.restarts == 0


@pytest.mark.parametrize("refusal", [RefusedError("bad cursor"), GoneError("expired")])
def test_a_refused_token_starts_again_at_page_one(refusal: Exception) -> None:
    fetch, asked = answers(refusal, cursor_page("a", then="x"), cursor_page("b", then=None))
    steps = walk(fetch, PATH, CursorPages(limit=1), start="old")
    assert ids(list(steps)) == ["a", "b"]
    assert (steps.restarts, steps.complete) == (1, True)
    assert param(asked[1], "cursor") is None


def test_a_cursor_refused_on_the_way_starts_again_once() -> None:
    one, refusal = cursor_page("a", then="x"), RefusedError("bad cursor")
    steps = walk(answers(one, refusal, one, cursor_page("b", then=None))[0], PATH, CursorPages(limit=1))
    assert ids(list(steps)) == ["a", "a", "b"]
    with pytest.raises(RefusedError):
        list(walk(answers(one, refusal, one, refusal)[0], PATH, CursorPages(limit=1)))


def test_a_refused_first_page_is_not_asked_again() -> None:
    fetch, asked = answers(RefusedError("no"))
    with pytest.raises(RefusedError):
        list(walk(fetch, PATH, CursorPages(limit=1)))
    assert len(asked) == 1


@pytest.mark.parametrize("in_flight", [1, 4])
def test_an_error_comes_after_the_pages_before_it(in_flight: int) -> None:
    fetch, _ = answers(cursor_page("a", then="x"), cursor_page("b", then="y"), UnavailableError("down"))
    steps = walk(fetch, PATH, CursorPages(limit=1), in_flight=in_flight)
    seen: list[Page] = []
    with pytest.raises(UnavailableError, match="down"):
        seen.extend(iter_into(steps, seen))
    assert ids(seen) == ["a", "b"]
    assert not steps.complete


def iter_into(steps: Walk, seen: list[Page]) -> list[Page]:
    for page in steps:
        seen.append(page)
    return []


def test_the_next_page_is_fetched_while_the_last_is_handled() -> None:
    second = threading.Event()

    def fetch(request: Request) -> Answer:
        if param(request, "cursor") is None:
            return answer(cursor_page("a", then="x"))
        second.set()
        return answer(cursor_page("b", then=None))

    pages = iter(walk(fetch, PATH, CursorPages(limit=1), in_flight=2))
    next(pages)
    assert second.wait(timeout=10)
    assert next(pages).ids == ["b"]


def test_one_in_flight_asks_for_no_page_that_nobody_wants() -> None:
    fetch, asked = answers(cursor_page("a", then="x"))
    next(iter(walk(fetch, PATH, CursorPages(limit=1))))
    assert len(asked) == 1


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"rows": []},
        {"data": {}, "next_cursor": None},
        {"data": ["a"], "next_cursor": None},
        {"data": [{"name": "a"}], "next_cursor": None},
        {"data": [{"id": None}], "next_cursor": None},
        {"data": [{"id": ""}], "next_cursor": None},
        {"data": [], "next_cursor": ["x"]},
    ],
)
def test_an_answer_of_another_shape_breaks_the_protocol(body: Any) -> None:
    with pytest.raises(ProtocolError):
        list(walk(answers(body)[0], PATH, CursorPages(limit=1)))


# -- one object ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("data", "body"), [("data", {"data": {"key": 5}}), (None, {"key": 5})])
def test_one_object_is_one_page_of_one_row(data: str | None, body: Any) -> None:
    steps = walk(answers(body)[0], PATH, OneObject(data), id_field="key")
    pages = list(steps)
    assert ids(pages) == ["5"]
    assert msgspec.json.decode(pages[0].rows[0]) == {"key": 5}
    assert (pages[0].token, steps.complete) == (None, True)


def test_no_object_where_one_is_promised_breaks_the_protocol() -> None:
    with pytest.raises(ProtocolError):
        list(walk(answers({"data": None})[0], PATH, OneObject()))


# -- offset --------------------------------------------------------------------------------------


class MovingList:
    """A list served by offset that changes before each request, by a script of changes."""

    def __init__(self, size: int, *, cap: int = 1000, script: Sequence[Any] = (), total: bool = False) -> None:
        self.rows = [f"r{number}" for number in range(size)]
        self.steady = set(self.rows)
        self.cap = cap
        self.total = total
        self.asked: list[int] = []
        self._script = list(reversed(script))
        self._lock = threading.Lock()
        self._born = 0

    def fetch(self, request: Request) -> Answer:
        with self._lock:
            for change in self._script.pop() if self._script else ():
                self._change(*change)
            offset, limit = int(param(request, "offset") or 0), int(param(request, "limit") or 0)
            self.asked.append(offset)
            rows = [{"id": row_id} for row_id in self.rows[offset : offset + min(limit, self.cap)]]
            return answer({"data": rows, "total": len(self.rows)} if self.total else rows)

    def _change(self, kind: str, place: float) -> None:
        at = int(place * len(self.rows))
        if kind in {"front", "append"}:
            self._born += 1
            self.rows.insert(0 if kind == "front" else len(self.rows), f"new{self._born}")
        elif self.rows and kind == "delete":
            self.steady.discard(self.rows.pop(at))
        elif self.rows and kind == "touch":
            self.rows.append(self.rows.pop(at))


def read(server: MovingList, limit: int, **options: Any) -> tuple[Walk, list[str]]:
    paging = OffsetPages(limit, data="data", total="total") if server.total else OffsetPages(limit)
    steps = walk(server.fetch, Request("/contacts"), paging, **options)
    return steps, ids(list(steps))


changes = st.tuples(
    st.sampled_from(["front", "append", "delete", "touch"]), st.floats(0, 1, exclude_max=True)
)
one_change_a_request = st.lists(st.lists(changes, min_size=1, max_size=1), max_size=80)
bursts = st.lists(st.lists(changes, max_size=12), max_size=40)


@given(
    st.integers(0, 60), st.integers(2, 20), st.integers(2, 20), st.sampled_from([1, 4]), st.booleans()
)
def test_a_list_at_rest_is_read_once_and_complete(
    size: int, limit: int, cap: int, in_flight: int, total: bool
) -> None:
    server = MovingList(size, cap=cap, total=total)
    steps, seen = read(server, limit, in_flight=in_flight)
    assert seen == server.rows
    assert (steps.complete, steps.repairs) == (True, 0)


@settings(max_examples=400)
@given(st.integers(0, 60), st.integers(3, 20), st.integers(3, 20), one_change_a_request, st.booleans())
def test_no_row_is_missed_when_the_list_moves_before_each_request(
    size: int, limit: int, cap: int, script: Any, total: bool
) -> None:
    server = MovingList(size, cap=cap, script=script, total=total)
    steps, seen = read(server, limit)
    assert server.steady <= set(seen)
    assert steps.complete or total


@settings(max_examples=200)
@given(st.integers(20, 120), st.integers(8, 20), one_change_a_request, st.sampled_from([2, 4, 8]))
def test_no_row_is_missed_when_pages_of_a_moving_list_are_fetched_ahead(
    size: int, limit: int, script: Any, in_flight: int
) -> None:
    server = MovingList(size, script=script)
    steps, seen = read(server, limit, in_flight=in_flight)
    assert server.steady <= set(seen)
    assert steps.complete
