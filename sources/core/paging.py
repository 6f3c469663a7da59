"""Walk the pages of a list: by cursor, by offset, or one object; pages, never rows.

A walk knows whether it ended as documented, and that is what deletions may rest on. How an answer is
fetched is an argument; retries, pace and keys are the client's.

Offset lists move while they are read. Each request therefore asks for a few rows of the page before, and
is used only if those reappear; otherwise the walk steps back, doubling, until they do. Relative order of
rows that stay is all this needs, so pages may be fetched ahead and out of order.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import msgspec

from sources.core.answers import Decodable, Part, split
from sources.core.connector import CursorPages, OffsetPages, Paging
from sources.core.errors import ProtocolError, RefusedError


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a walk, repeated with the place in the list added."""

    path: str
    params: Sequence[tuple[str, str]] | Mapping[str, str] = ()
    method: str = "GET"
    body: Mapping[str, Any] | None = None

    def at(self, *, in_body: bool, **place: str | int) -> "Request":
        """Give the request for one place; every original parameter is kept."""
        if in_body:
            return replace(self, body={**(self.body or {}), **place})
        pairs = self.params.items() if isinstance(self.params, Mapping) else self.params
        kept = tuple(pair for pair in pairs if pair[0] not in place)
        return replace(self, params=(*kept, *((name, str(value)) for name, value in place.items())))


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of one answer, as sent, with their ids as text.

    `token` asks for the page after this one, None where there is certainly none. `total` is the count
    that the answer states.
    """

    rows: list[msgspec.Raw]
    ids: list[str]
    token: str | None
    number: int
    total: int | None = None


Fetch = Callable[[Request], Decodable]


def walk(
    fetch: Fetch,
    request: Request,
    paging: Paging,
    *,
    id_field: str = "id",
    start: str | None = None,
    in_flight: int = 1,
) -> "Walk":
    """Walk a list from its first page, or from the token `start` of an earlier walk.

    With `in_flight` 1 a request goes out only when its page is asked for. With more, an offset list is
    fetched that many pages ahead and a cursor list one, in threads; pages come in order all the same.
    """
    if isinstance(paging, CursorPages):
        ahead = _Ahead(fetch, min(in_flight, 2))
        return _CursorWalk(ahead, request, paging, id_field=id_field, start=start)
    if isinstance(paging, OffsetPages):
        return _OffsetWalk(_Ahead(fetch, in_flight), request, paging, id_field=id_field, start=start)
    return _OneWalk(_Ahead(fetch, 1), request, paging, id_field=id_field)


class Walk:
    """Iterate the pages of one list, once.

    After the last page `complete` tells whether the list ended as documented with nothing missed on the
    way. `repairs` counts places where rows had moved and were read again, `restarts` returns to page one
    after a refused token. Errors of a request come unchanged, after the pages read before it.
    """

    def __init__(self, ahead: "_Ahead", request: Request, paging: Paging, *, id_field: str) -> None:
        self.complete = False
        self.repairs = 0
        self.restarts = 0
        self.pages = 0
        self._ahead = ahead
        self._request = request
        self._split = partial(split, paging=paging, id_field=id_field)

    def __iter__(self) -> Iterator[Page]:
        try:
            yield from self._steps()
        finally:
            self._ahead.close()

    def _steps(self) -> Iterator[Page]:
        raise NotImplementedError

    def _page(self, part: Part, token: str | None) -> Page:
        self.pages += 1
        return Page(part.rows, part.ids, token, self.pages, part.total)


# -- one object ----------------------------------------------------------------------------------


class _OneWalk(Walk):
    def _steps(self) -> Iterator[Page]:
        part = self._split(self._ahead.ask(self._request).result())
        yield self._page(part, None)
        self.complete = True


# -- cursor --------------------------------------------------------------------------------------


class _CursorWalk(Walk):
    def __init__(
        self, ahead: "_Ahead", request: Request, paging: CursorPages, *, id_field: str, start: str | None
    ) -> None:
        super().__init__(ahead, request, paging, id_field=id_field)
        self._paging = paging
        self._start = start
        self._used = {start}

    def _steps(self) -> Iterator[Page]:
        cursor = self._start
        coming = self._ask(cursor)
        while True:
            try:
                answer = coming.result()
            except RefusedError:
                if cursor is None or self.restarts:
                    raise
                self.restarts += 1
                self._used = {None}
                cursor, coming = None, self._ask(None)
                continue
            part = self._split(answer)
            cursor = self._next(part)
            if cursor is None:
                yield self._page(part, None)
                self.complete = part.is_end_documented
                return
            coming = self._ask(cursor)
            yield self._page(part, cursor)

    def _ask(self, cursor: str | None) -> "_Coming":
        place: dict[str, Any] = {self._paging.limit_param: self._paging.limit}
        if cursor is not None:
            place[self._paging.param] = cursor
        return self._ahead.ask(self._request.at(in_body=self._paging.in_body, **place))

    def _next(self, part: Part) -> str | None:
        if part.has_more is False:
            return None
        if not part.next:
            if part.has_more:
                raise ProtocolError("the answer promises more pages but gives no cursor")
            return None
        if part.next in self._used:
            raise ProtocolError("a cursor came back a second time", hint="The list would never end.")
        self._used.add(part.next)
        return part.next


# -- offset --------------------------------------------------------------------------------------

_SAME_HEADS = 5
_SPARE_REQUESTS = 200
_REQUESTS_PER_PAGE = 20
_REREADS = 2
_PAGES_KNOWN = 8
_EAGER = 4  # pages fetched ahead whatever comes of it


class _OffsetWalk(Walk):
    """Walk by offset; see the module's docstring for why pages overlap.

    `_position` is where the list goes on after the last page used, `_last` the last rows read, without a gap,
    `_size` the most rows that an answer held (a server may cap the limit silently), `_overlap` how many
    rows are asked for again. An end is believed after a look a whole page back that shows nothing new
    (or the stated total), and an empty array behind it; `_slack` is how far behind, after rows inserted
    in front have pushed known ones there.
    """

    def __init__(
        self, ahead: "_Ahead", request: Request, paging: OffsetPages, *, id_field: str, start: str | None
    ) -> None:
        super().__init__(ahead, request, paging, id_field=id_field)
        self._paging = paging
        self._queue: deque[tuple[int, _Coming]] = deque()
        self._last: dict[str, msgspec.Raw] = {}
        self._size = 0
        self._overlap = max(1, paging.overlap)
        self._window = 1
        self._is_late = False
        self._slack = 0
        self._is_mending = False
        self._highest = -1
        self._heads: Counter[str] = Counter()
        self._asked = 0
        self._unique: set[str] = set()
        self._totals: list[int] = []
        self._rereads = 0
        self._position = self._place(start)
        self._is_resumed = self._position > 0

    def _steps(self) -> Iterator[Page]:
        while True:
            yield from self._read_to_end()
            if self._is_counted():
                self.complete = True
                return
            if self._rereads == _REREADS:
                return
            self._rereads += 1
            self.repairs += 1
            self._position, self._last = 0, {}

    def _place(self, token: str | None) -> int:
        """Turn a token into an offset, one page back: the list may have moved since."""
        if token is None:
            return 0
        if not token.isdecimal():
            self.restarts += 1
            return 0
        return max(0, int(token) - self._paging.limit)

    def _read_to_end(self) -> Iterator[Page]:
        reach, is_probe = self._step(), False
        while True:
            offset = self._position + self._slack if is_probe else max(0, self._position - reach)
            is_ahead = not is_probe and reach == self._step() and self._size > 1
            part = self._read(offset, is_ahead=is_ahead)
            if not part.ids and (is_probe or offset == 0):
                return
            if is_probe:
                is_probe = False  # rows stand there after all: come to them with an overlap
                is_pushed = self._last.keys() >= set(part.ids)
                self._slack = max(1, 2 * self._slack) if is_pushed else 0
            elif self._joins(part, offset):
                fresh = self._fresh(part)
                has_new = any(row_id not in self._last for row_id in part.ids)
                self._use(part, offset)
                self._slack = 0 if has_new else self._slack
                if fresh.rows:
                    yield self._page(fresh, str(self._position))
                was_wide = offset == 0 or reach >= self._look_back()
                is_short = len(part.ids) < (self._size if self._highest else self._paging.limit)
                is_probe = self._is_last(part) or (is_short and was_wide and not has_new)
                reach = self._look_back() if is_short else self._step()
            else:
                reach = self._step_back(reach)

    def _read(self, offset: int, *, is_ahead: bool) -> Part:
        """Read the page at an offset, from those on their way if it is the next of them."""
        if not self._queue or self._queue[0][0] != offset:
            self._drop_queue()
            self._queue.append((offset, self._ask(offset)))
        while is_ahead and len(self._queue) < self._window:
            following = self._queue[-1][0] + self._size - self._step()
            if self._totals and following >= self._totals[-1]:
                break
            self._queue.append((following, self._ask(following)))
        _, coming = self._queue.popleft()
        self._is_late = not coming.done()
        part = self._split(coming.result())
        if part.total is not None:
            self._totals.append(part.total)
        return part

    def _ask(self, offset: int) -> "_Coming":
        self._asked += 1
        stride = max(1, self._size - self._step())
        if self._asked > _SPARE_REQUESTS + _REQUESTS_PER_PAGE * (1 + self._highest // stride):
            raise ProtocolError("the list moves faster than it can be read")
        place = {self._paging.limit_param: self._paging.limit, self._paging.offset_param: offset}
        return self._ahead.ask(self._request.at(in_body=self._paging.in_body, **place))

    def _next_window(self) -> int:
        """Widen the window where pages are waited for, by far less than was read: the end may be near."""
        most = max(_EAGER, self.pages // 3) if self._is_late else max(_EAGER, self._window)
        return min(self._ahead.in_flight, self._window + 2, most)

    def _drop_queue(self) -> None:
        for _, coming in self._queue:
            coming.cancel()
        self._queue.clear()

    def _step(self) -> int:
        """Give how many rows of the last page the next request asks for again."""
        return max(1, min(self._overlap, self._size // 2))

    def _look_back(self) -> int:
        """Give how far back to look at the end: a page, but for room for rows pushed by inserts in front."""
        return max(1, self._size - 1 - self._step(), self._step())

    def _joins(self, part: Part, offset: int) -> bool:
        """Tell whether no row can lie between the last page and this one.

        Its first rows must be among the last rows read, in their order, and at least half of those that
        followed them must be here too: a row that was moved to the end proves nothing.
        """
        if offset == 0 or not self._last:
            return offset == 0 or bool(part.ids)
        known = list(self._last)
        needed = min(2, self._step(), len(known))
        if len(part.ids) < needed or not self._last.keys() >= set(part.ids[:needed]):
            return False
        head = [known.index(row_id) for row_id in part.ids[:needed]]
        if head != sorted(head):
            return False
        expected = known[head[0] :][: len(part.ids)]
        return 2 * len(set(part.ids).intersection(expected)) >= len(expected)

    def _step_back(self, reach: int) -> int:
        if not self._is_mending:
            self.repairs += 1
        self._is_mending = True
        self._window = max(1, self._window // 2)
        self._overlap = min(2 * self._overlap, max(self._overlap, self._size // 2))
        return max(2 * reach, self._step())

    def _fresh(self, part: Part) -> Part:
        """Leave out the rows that came just so in the page before."""
        pairs = [pair for pair in zip(part.ids, part.rows, strict=True) if self._last.get(pair[0]) != pair[1]]
        return part._replace(ids=[row_id for row_id, _ in pairs], rows=[row for _, row in pairs])

    def _use(self, part: Part, offset: int) -> None:
        behind = {} if self._is_mending else self._behind(part)
        self._is_mending = False
        self._position = offset + len(part.ids) + len(behind)
        self._last = {**self._before(part, offset), **dict(zip(part.ids, part.rows, strict=True)), **behind}
        self._window = self._next_window() if len(part.ids) >= self._size > 0 else 1
        self._size = max(self._size, len(part.ids))
        if self._paging.total:
            self._unique.update(part.ids)
        if offset > self._highest:
            self._highest = offset
            self._heads[part.ids[0]] += 1
            if self._heads[part.ids[0]] > _SAME_HEADS:
                raise ProtocolError("page after page begins with the same row", hint="The offset is ignored.")

    def _before(self, part: Part, offset: int) -> dict[str, msgspec.Raw]:
        """Give the last rows read that stand before a page."""
        if offset == 0 or part.ids[0] not in self._last:
            return {}
        known = list(self._last.items())
        place = list(self._last).index(part.ids[0])
        most = _PAGES_KNOWN * self._size
        page = set(part.ids)
        near = known[max(0, place - most - len(page)) : place]
        return dict([pair for pair in near if pair[0] not in page][-most:])

    def _behind(self, part: Part) -> dict[str, msgspec.Raw]:
        """Give the last rows read that stand behind a page, pushed there by rows inserted in front."""
        if len(part.ids) < self._size or not self._last.keys() >= set(part.ids):
            return {}
        places = {row_id: place for place, row_id in enumerate(self._last)}
        return dict(list(self._last.items())[max(places[row_id] for row_id in part.ids) + 1 :])

    def _is_last(self, part: Part) -> bool:
        return part.total is not None and self._position >= part.total

    def _is_counted(self) -> bool:
        """Tell whether as many rows were seen as the list says it has; always so where it says nothing."""
        if not self._totals or self._is_resumed:
            return True
        return len(self._unique) >= min(self._totals[0], self._totals[-1])


# -- requests ahead ------------------------------------------------------------------------------


class _Coming(Protocol):
    """An answer on its way."""

    def result(self) -> Any: ...

    def done(self) -> bool: ...

    def cancel(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class _OnDemand:
    """An answer that is fetched when it is wanted."""

    fetch: Fetch
    request: Request

    def result(self) -> Decodable:
        return self.fetch(self.request)

    def done(self) -> bool:
        return False

    def cancel(self) -> bool:
        return True


class _Ahead:
    """Send requests from a few threads, or on demand where only one may be in flight."""

    def __init__(self, fetch: Fetch, in_flight: int) -> None:
        self.in_flight = in_flight
        self._fetch = fetch
        self._pool = ThreadPoolExecutor(in_flight, "roundtrip-page") if in_flight > 1 else None

    def ask(self, request: Request) -> _Coming:
        if self._pool is None:
            return _OnDemand(self._fetch, request)
        return self._pool.submit(self._fetch, request)

    def close(self) -> None:
        """Send nothing more; what is in flight is not waited for."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
