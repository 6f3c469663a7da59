"""One pass over a resource: the walks of its variants joined, with what is known of its completeness."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec

from sources.core.client import Answer
from sources.core.connector import Resource, Scope, Since
from sources.core.errors import ConnectorError, GoneError, ProtocolError, RefusedError
from sources.core.paging import Page, Request, Walk, walk
from sources.core.sessions import Session

_IN_FLIGHT = 32  # pages of an offset list at most; the budget and the waits for answers decide how many
_FAR_FUTURE = datetime(2999, 1, 1, tzinfo=UTC)


class Pass:
    """Iterate the pages of one resource.

    `since` narrows the pass to rows changed at or after that moment, where the strategy can. `scopes` are
    those a resource with a `fan_out` is asked for, one by one. `token` resumes an earlier pass that was cut;
    where its scope is no more, the pass begins anew.
    After the last page `complete` tells whether the pass ended as the vendor documents; a pass that was
    resumed saw only its own part. `token` is where to go on after the last page given, None after the end.
    It stays at the last page of a walk until the end of that walk is proven, so that whoever resumes there
    finds out about it again.
    A scope that the CRM does not know any more ends alone and is counted in `refused`: what it holds was not
    seen, so such a pass proves no absence. Where no scope is known, the list itself is not there.
    """

    def __init__(
        self,
        session: Session,
        resource: Resource,
        *,
        since: datetime | None = None,
        token: str | None = None,
        scopes: Sequence[Scope] = (),
    ) -> None:
        self.session = session
        self.resource = resource
        self.since = since
        self.token = token
        self.resumed = token is not None
        self.complete = False
        self.pages = 0
        self.repairs = 0
        self._refused: list[GoneError] = []
        self._requests = self._compose(scopes)

    @property
    def refused(self) -> int:
        """Count the scopes that the CRM did not know."""
        return len(self._refused)

    def __iter__(self) -> Iterator[Page]:
        labels = list(self._requests)
        first, start = self._place(labels)
        complete = True
        for number in range(first, len(labels)):
            steps, refused = self._walk(self._requests[labels[number]], start), self.refused
            for page in self._placed(steps):
                self.pages += 1
                if complete and page.token:
                    self.token = f"{labels[number]}|{page.token}"
                yield page
            complete = complete and (steps.complete or self.refused > refused)
            if complete and number + 1 < len(labels):
                self.token = f"{labels[number + 1]}|"
            self.repairs += steps.repairs
            self.resumed = self.resumed and not (steps.restarts and number == 0)
            start = None
        self.token = None
        if labels and self.refused == len(labels):
            raise self._refused[0]
        self.complete = complete

    def _place(self, labels: list[str]) -> tuple[int, str | None]:
        """Find the walk to begin with, and its page token."""
        label, _, start = (self.token or "").partition("|")
        if label in labels:
            return labels.index(label), start or None
        self.resumed = False
        return 0, None

    def _placed(self, steps: Walk) -> Iterator[Page]:
        """Name the place in the errors of a walk, which does not know it; a refused scope ends alone."""
        try:
            yield from steps
        except ConnectorError as error:
            error.connection = error.connection or self.session.connection.name
            error.resource = error.resource or self.resource.name
            if not (isinstance(error, GoneError) and self.resource.fan_out):
                raise
            self._refused.append(error)

    def _compose(self, scopes: Sequence[Scope]) -> dict[str, Request]:
        """Make the first request of each walk, by a label that names it in tokens: per scope and variant."""
        resource = self.resource
        asked: Sequence[Scope | None] = scopes if resource.fan_out else (None,)
        return {
            f"{scope.label if scope else ''}#{number}": self._request(scope, variant)
            for scope in asked
            for number, variant in enumerate(resource.variants)
        }

    def _request(self, scope: Scope | None, variant: tuple[tuple[str, str], ...]) -> Request:
        resource = self.resource
        params, body = _narrowed(resource, None if scope and scope.is_new else self.since)
        own: tuple[tuple[str, str], ...] = ()
        if scope and scope.fan_out.in_body:
            body = {**body, scope.fan_out.param: scope.value}
        elif scope:
            own = ((scope.fan_out.param, scope.value),)
        return Request(
            resource.path,
            params=(*variant, *own, *params),
            method=resource.method,
            body={**resource.body, **body} if resource.body is not None else None,
        )

    def _walk(self, request: Request, start: str | None) -> Walk:
        resource = self.resource
        paging, key = resource.paging, resource.key
        return walk(self._fetch, request, paging, id_field=key, start=start, in_flight=_IN_FLIGHT)

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
    try:
        return [msgspec.json.decode(row) for row in first.rows] if first else []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ProtocolError(
            "a row is not JSON", connection=session.connection.name, resource=resource.name
        ) from None


def is_gone(session: Session, resource: Resource, record_id: str) -> bool:
    """Ask for one record; only a 404 or 410 says that it is gone."""
    assert resource.one is not None
    try:
        session.client.get(resource.one.format(id=quote(record_id, safe="")), resource=resource.name)
    except GoneError:
        return True
    return False
