"""One pass over a resource: the walks of its variants joined, with what is known of its completeness."""

from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from sources.core.client import Answer
from sources.core.connector import Resource, Since
from sources.core.errors import GoneError, RefusedError
from sources.core.paging import Page, Request, Walk, walk
from sources.core.sessions import Session

_FAR_FUTURE = datetime(2999, 1, 1, tzinfo=UTC)


class Pass:
    """Iterate the pages of one resource.

    `since` narrows the pass to rows changed at or after that moment, where the strategy can. `token`
    resumes an earlier pass that was cut. After the last page `complete` tells whether the pass ended as
    the vendor documents; a pass that was resumed saw only its own part. `token` is where to go on.
    """

    def __init__(
        self, session: Session, resource: Resource, *, since: datetime | None = None, token: str | None = None
    ) -> None:
        self.session = session
        self.resource = resource
        self.since = since
        self.token = token
        self.resumed = token is not None
        self.complete = False
        self.pages = 0
        self.repairs = 0

    def __iter__(self) -> Iterator[Page]:
        first, start = _split_token(self.token)
        complete = True
        for number in range(first, len(self.resource.variants)):
            steps = self._walk(number, start)
            for page in steps:
                self.pages += 1
                self.token = f"{number}|{page.token}" if page.token else f"{number + 1}|"
                yield page
            complete = complete and steps.complete
            self.repairs += steps.repairs
            self.resumed = self.resumed and not steps.restarts
            start = None
        self.complete = complete

    def _walk(self, number: int, start: str | None) -> Walk:
        params = self.resource.variants[number]
        if self.since is not None and isinstance(self.resource.strategy, Since):
            params = (*params, (self.resource.strategy.param, timestamp_text(self.since)))
        request = Request(self.resource.path, params=params, method=self.resource.method, body=self.resource.body)
        return walk(
            self._fetch, request, self.resource.paging, id_field=self.resource.key, start=start, in_flight=4
        )

    def _fetch(self, request: Request) -> Answer:
        client = self.session.client
        if request.method == "GET":
            return client.get(request.path, request.params, resource=self.resource.name)
        body = msgspec.json.encode(request.body)
        return client.send(
            request.method,
            request.path,
            params=request.params,
            body=body,
            repeatable=True,
            resource=self.resource.name,
        )


def timestamp_text(moment: datetime) -> str:
    """Write a moment as ISO 8601 in UTC with whole seconds, rounded down: `2026-03-01T12:00:00Z`."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def honours_since(session: Session, resource: Resource) -> bool:
    """Probe, by reading only, whether a filter that the vendor does not document works.

    It works if a record carries the change stamp and a stamp in the far future finds nothing
    (Relm fact sheet, A3: an ignored filter shows a full page, an unknown field a refusal).
    """
    if not isinstance(resource.strategy, Since):
        return False
    try:
        rows = _probe_rows(session, resource, ())
        stamp = (resource.strategy.param, timestamp_text(_FAR_FUTURE))
        has_stamp = any(row.get(resource.strategy.updated) for row in rows)
        return has_stamp and not _probe_rows(session, resource, (stamp,))
    except RefusedError:
        return False


def _probe_rows(session: Session, resource: Resource, extra: tuple[tuple[str, str], ...]) -> list[dict[str, object]]:
    steps = walk(
        lambda request: session.client.get(request.path, request.params, resource=resource.name),
        Request(resource.path, params=(*resource.variants[0], *extra)),
        resource.paging,
        id_field=resource.key,
    )
    first = next(iter(steps), None)
    return [msgspec.json.decode(row) for row in first.rows] if first else []


def is_gone(session: Session, resource: Resource, record_id: str) -> bool:
    """Ask for one record; only a 404 or 410 says that it is gone."""
    assert resource.one is not None
    try:
        session.client.get(resource.one.format(id=record_id), resource=resource.name)
    except GoneError:
        return True
    return False


def _split_token(token: str | None) -> tuple[int, str | None]:
    if token is None:
        return 0, None
    number, _, start = token.partition("|")
    return int(number), start or None
