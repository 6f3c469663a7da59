"""One pass over a resource: the walks of its variants joined, with what is known of its completeness."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from sources.core.client import Answer
from sources.core.connector import FanOut, Resource, Since
from sources.core.errors import ConnectorError, GoneError, RefusedError
from sources.core.paging import Page, Request, Walk, walk
from sources.core.sessions import Session

_FAR_FUTURE = datetime(2999, 1, 1, tzinfo=UTC)


class Pass:
    """Iterate the pages of one resource.

    `since` narrows the pass to rows changed at or after that moment, where the strategy can. `values` are
    those a resource with a `fan_out` is asked for, one by one. `token` resumes an earlier pass that was cut.
    After the last page `complete` tells whether the pass ended as the vendor documents; a pass that was
    resumed saw only its own part. `token` is where to go on after the last page given, None after the end.
    """

    def __init__(
        self,
        session: Session,
        resource: Resource,
        *,
        since: datetime | None = None,
        token: str | None = None,
        values: Sequence[tuple[FanOut, str]] = (),
    ) -> None:
        self.session = session
        self.resource = resource
        self.since = since
        self.token = token
        self.resumed = token is not None
        self.complete = False
        self.pages = 0
        self.repairs = 0
        self._requests = self._compose(values)

    def __iter__(self) -> Iterator[Page]:
        first, start = _split_token(self.token)
        complete = True
        for number in range(first, len(self._requests)):
            steps = self._walk(self._requests[number], start)
            for page in self._placed(steps):
                self.pages += 1
                self.token = f"{number}|{page.token}" if page.token else f"{number + 1}|"
                yield page
            complete = complete and steps.complete
            self.repairs += steps.repairs
            self.resumed = self.resumed and not (steps.restarts and number == 0)
            start = None
        self.complete, self.token = complete, None

    def _placed(self, steps: Walk) -> Iterator[Page]:
        """Name the place in the errors of a walk, which knows neither connection nor resource."""
        try:
            yield from steps
        except ConnectorError as error:
            error.connection = error.connection or self.session.connection.name
            error.resource = error.resource or self.resource.name
            raise

    def _compose(self, values: Sequence[tuple[FanOut, str]]) -> list[Request]:
        """List the first request of each walk: one per variant and value, narrowed by `since`."""
        resource = self.resource
        params, body = _narrowed(resource, self.since)
        scopes: list[tuple[tuple[tuple[str, str], ...], dict[str, str]]] = [((), {})]
        if resource.fan_out:
            scopes = [
                ((), {fan_out.param: value}) if fan_out.in_body else (((fan_out.param, value),), {})
                for fan_out, value in values
            ]
        return [
            Request(
                resource.path,
                params=(*variant, *scope, *params),
                method=resource.method,
                body={**resource.body, **body, **extra} if resource.body is not None else None,
            )
            for scope, extra in scopes
            for variant in resource.variants
        ]

    def _walk(self, request: Request, start: str | None) -> Walk:
        resource = self.resource
        return walk(self._fetch, request, resource.paging, id_field=resource.key, start=start, in_flight=4)

    def _fetch(self, request: Request) -> Answer:
        return fetch(self.session, request, self.resource.name)


def fetch(session: Session, request: Request, resource: str) -> Answer:
    """Send a read request; a query by POST changes nothing and may be repeated like a GET."""
    if request.method == "GET":
        return session.client.get(request.path, request.params, resource=resource)
    return session.client.send(
        request.method,
        request.path,
        params=request.params,
        body=msgspec.json.encode(request.body),
        repeatable=True,
        resource=resource,
    )


def _narrowed(
    resource: Resource, since: datetime | None
) -> tuple[tuple[tuple[str, str], ...], Mapping[str, Any]]:
    strategy = resource.strategy
    if since is None or not isinstance(strategy, Since):
        return (), {}
    if strategy.body is not None:
        return (), strategy.body(timestamp_text(since))
    return ((strategy.param, timestamp_text(since)),), {}


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


def _probe_rows(
    session: Session, resource: Resource, extra: tuple[tuple[str, str], ...]
) -> list[dict[str, object]]:
    steps = walk(
        lambda request: fetch(session, request, resource.name),
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
