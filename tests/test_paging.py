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
        iter_into(steps, seen)
    assert ids(seen) == ["a", "b"]
    assert not steps.complete


def iter_into(steps: Walk, seen: list[Page]) -> None:
    """Keep the pages that come before an error."""
    for page in steps:
        seen.append(page)  # noqa: PERF402


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


@pytest.mark.parametrize(
    ("body", "held"),
    [
        ({"one": {"id": 5}, "else": {"id": 9}}, ["5"]),
        ({"one": None}, []),
        ({"one": [{"id": 5}, {"id": "6"}]}, ["5", "6"]),
        ({"many": [{"id": 5}, {"id": "6"}]}, ["5", "6"]),
        ({"many": []}, []),
        ({"one": None, "many": None}, []),
    ],
)
def test_where_the_number_is_left_open_none_one_and_several_are_taken(body: Any, held: list[str]) -> None:
    (page,) = walk(answers(body)[0], PATH, OneObject("one", several="many"))
    assert page.ids == held
    assert [str(msgspec.json.decode(row)["id"]) for row in page.rows] == held


@pytest.mark.parametrize("body", [{}, {"else": []}, {"one": "Ada"}, {"one": {"name": "Ada"}}])
def test_a_place_for_records_that_holds_none_of_these_breaks_the_protocol(body: Any) -> None:
    with pytest.raises(ProtocolError):
        list(walk(answers(body)[0], PATH, OneObject("one", several="many")))


def test_no_object_where_one_is_promised_breaks_the_protocol() -> None:
    with pytest.raises(ProtocolError):
        list(walk(answers({"data": None})[0], PATH, OneObject()))


# -- offset --------------------------------------------------------------------------------------


class MovingList:
    """A list served by offset that changes before each request, by a script of changes."""

    def __init__(
        self,
        size: int,
        *,
        cap: int = 1000,
        script: Sequence[Any] = (),
        total: bool = False,
        cuts: Sequence[int] = (),
    ) -> None:
        self.rows = [f"r{number}" for number in range(size)]
        self.steady = set(self.rows)
        self.cap = cap
        self.total = total
        self.asked: list[int] = []
        self._script = list(reversed(script))
        self._lock = threading.Lock()
        self._born = 0
        self._cuts = list(cuts)

    def fetch(self, request: Request) -> Answer:
        with self._lock:
            for change in self._script.pop() if self._script else ():
                self._change(*change)
            offset, limit = int(param(request, "offset") or 0), int(param(request, "limit") or 0)
            self.asked.append(offset)
            limit = min(limit, self.cap, self._cuts.pop() if self._cuts else limit)
            rows = [{"id": row_id} for row_id in self.rows[offset : offset + limit]]
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


@given(st.integers(0, 60), st.integers(2, 20), st.integers(2, 20), st.sampled_from([1, 4]), st.booleans())
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


@given(st.integers(400, 900), bursts, st.sampled_from([1, 4]))
def test_bursts_of_changes_lose_nothing_on_pages_of_real_size(size: int, script: Any, in_flight: int) -> None:
    server = MovingList(size, script=script)
    steps, seen = read(server, 100, in_flight=in_flight)
    assert server.steady <= set(seen)
    assert steps.complete


@given(st.integers(0, 80), st.lists(st.integers(1, 10), max_size=60), one_change_a_request)
def test_pages_cut_short_at_will_do_not_end_a_moving_list(size: int, cuts: list[int], script: Any) -> None:
    server = MovingList(size, cuts=cuts, script=script)
    _, seen = read(server, 10)
    assert server.steady <= set(seen)


def test_rows_deleted_from_read_pages_make_the_walk_step_back() -> None:
    burst = [("delete", 0.0)] * 30
    server = MovingList(100, script=[[], [], burst])
    steps, seen = read(server, 20)
    assert server.steady <= set(seen)
    assert steps.repairs >= 1


def test_an_overlap_costs_few_requests() -> None:
    server = MovingList(10_000)
    read(server, 100)
    assert len(server.asked) <= 1.1 * 100 + 3


def test_only_an_empty_array_ends_an_offset_list() -> None:
    server = MovingList(25, cap=10)
    steps, seen = read(server, 200)
    assert seen == server.rows
    assert steps.complete
    assert server.asked[-1] == 25


def test_a_total_below_the_list_does_not_cut_it() -> None:
    def fetch(request: Request) -> Answer:
        offset = int(param(request, "offset") or 0)
        return answer(
            {"data": [{"id": number} for number in range(offset, min(offset + 10, 40))], "total": 20}
        )

    steps = walk(fetch, PATH, OffsetPages(10, data="data", total="total"))
    assert len(set(ids(list(steps)))) == 40


def test_fewer_rows_than_the_total_are_read_again_and_never_complete() -> None:
    fetched: list[int] = []

    def fetch(request: Request) -> Answer:
        offset = int(param(request, "offset") or 0)
        fetched.append(offset)
        return answer(
            {"data": [{"id": number} for number in range(offset, min(offset + 10, 15))], "total": 20}
        )

    steps = walk(fetch, PATH, OffsetPages(10, data="data", total="total"))
    assert set(ids(list(steps))) == {str(number) for number in range(15)}
    assert not steps.complete
    assert fetched.count(0) == 3
    assert steps.repairs == 2


def test_an_offset_that_is_ignored_breaks_the_protocol() -> None:
    with pytest.raises(ProtocolError, match="same row"):
        list(walk(lambda request: answer([{"id": 1}, {"id": 2}]), PATH, OffsetPages(2)))


def test_a_list_that_never_rests_breaks_the_protocol() -> None:
    born = iter(range(1_000_000))
    with pytest.raises(ProtocolError, match="faster"):
        list(walk(lambda request: answer([{"id": next(born)}]), PATH, OffsetPages(2)))


@given(st.integers(1, 60), st.integers(0, 5), st.integers(0, 10))
def test_a_walk_by_offset_goes_on_from_any_token(size: int, pages: int, deleted: int) -> None:
    server = MovingList(size)
    steps = iter(walk(server.fetch, PATH, OffsetPages(12)))
    seen = [page for page, _ in zip(steps, range(pages), strict=False)]
    for _ in range(min(deleted, size)):
        server.steady.discard(server.rows.pop(0))
    _, rest = read(server, 12, start=seen[-1].token if seen else None)
    assert server.steady <= {*ids(seen), *rest}


def test_a_token_that_is_no_offset_starts_at_the_front() -> None:
    server = MovingList(5)
    steps, seen = read(server, 10, start="x1")
    assert seen == server.rows
    assert (steps.restarts, steps.complete) == (1, True)


def test_pages_are_in_flight_together_and_handed_over_in_order() -> None:
    server, together = MovingList(400), threading.Barrier(3)

    def fetch(request: Request) -> Answer:
        if 100 <= int(param(request, "offset") or 0) < 115:
            together.wait(timeout=10)  # breaks unless three requests are out at once
        return server.fetch(request)

    steps = walk(fetch, PATH, OffsetPages(10), in_flight=3)
    assert ids(list(steps)) == server.rows


@pytest.mark.parametrize("in_flight", [1, 4])
def test_an_error_at_an_offset_comes_after_the_pages_before_it(in_flight: int) -> None:
    server = MovingList(100)

    def fetch(request: Request) -> Answer:
        if int(param(request, "offset") or 0) >= 50:
            raise UnavailableError("down")
        return server.fetch(request)

    steps = walk(fetch, PATH, OffsetPages(10), in_flight=in_flight)
    seen: list[Page] = []
    with pytest.raises(UnavailableError, match="down"):
        iter_into(steps, seen)
    assert ids(seen) == server.rows[: len(ids(seen))]
    assert len(ids(seen)) >= 50
    assert not steps.complete


def test_an_offset_query_carries_its_place_in_the_body() -> None:
    fetch, asked = answers([])
    list(walk(fetch, Request("/q", method="POST", body={"a": 1}), OffsetPages(5, in_body=True)))
    assert asked[0].body == {"a": 1, "limit": 5, "offset": 0}
    assert asked[0].params == ()


def test_a_changed_row_of_the_overlap_is_handed_over_again() -> None:
    fetch, _ = answers(
        [{"id": 1}, {"id": 2}],
        [{"id": 2, "name": "new"}, {"id": 3}],
        [{"id": 3}],
        [],
    )
    assert ids(list(walk(fetch, PATH, OffsetPages(2)))) == ["1", "2", "2", "3"]
