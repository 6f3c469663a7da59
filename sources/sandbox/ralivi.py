"""Ralivi (ralivi.com): read-only, bearer keys, cursor lists without any filter by time.

The host is the public web site too, so that what lies beside the API answers with its pages.
"""

from collections.abc import Mapping
from datetime import timedelta
from html import escape
from random import Random
from string import ascii_letters, digits
from typing import Any

from sources.sandbox.exchange import Refusal, Request, Response, encode, reply
from sources.sandbox.limits import Allowance, RateLimit
from sources.sandbox.people import World
from sources.sandbox.ralivi_lists import Lists
from sources.sandbox.ralivi_people import fill
from sources.sandbox.ralivi_rules import RECORDS, RaliviSwitches, Shape, blanks
from sources.sandbox.simulator import Grant, Simulator, route
from sources.sandbox.store import Clock, Tenant
from sources.sandbox.table import Fields, Record

_API = "/api/v1"
_LISTED = {f"{_API}/{resource}" for resource in RECORDS}


class Ralivi(Simulator):
    """Answer as Ralivi's API does."""

    name = "ralivi"
    base_path = _API
    key_prefix = "rlv_live_"
    switches = RaliviSwitches
    people_offset = 0.1

    def __init__(self, *, seed: int, now: Clock, switches: RaliviSwitches) -> None:
        super().__init__(seed=seed, now=now, switches=switches)
        self.s = switches
        self.rng = Random(f"{seed} ralivi ids")
        self.tenant = Tenant(
            self.name,
            make_id=self._make_id,
            blanks=blanks(),
            now=now,
            step=timedelta(milliseconds=switches.stamp_step_ms),
            lag=timedelta(seconds=switches.list_lag_s),
            silent=frozenset(switches.silent_fields),
        )
        self.lists = Lists(self.tenant, switches)
        self.shape = Shape(self.tenant, switches)
        self.rate = RateLimit(switches.rate_limit, switches.rate_window_s) if switches.rate_limit else None

    def populate(self, world: World) -> None:
        fill(self.tenant, world, self.s)

    def key_of(self, request: Request) -> str:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        return key.strip() if scheme.lower() == "bearer" else ""

    def permit(self, grant: Grant, request: Request) -> None:
        if self.s.plan_lapse_status is not None:
            raise Refusal(self.s.plan_lapse_status, "plan_required", "API access needs an active paid plan")

    def refusal(self, status: int, code: str, message: str, errors: Mapping[str, Any]) -> Response:
        form = "html" if status == 404 and self.s.html_404 else self.s.error_body
        if form == "json":
            return reply({"error": message}, status)
        if form == "html":
            page = f"<!doctype html><title>Ralivi</title><h1>{status}</h1><p>{escape(message)}</p>"
            return Response(status, page.encode(), {}, "text/html; charset=utf-8")
        return Response(status, message.encode() if form == "text" else b"", {}, "text/plain; charset=utf-8")

    def rate_headers(self, allowance: Allowance) -> dict[str, str]:
        return {}

    def tells_retry_after(self) -> bool:
        return self.s.retry_after

    def is_list(self, request: Request) -> bool:
        return request.method == "GET" and request.path in _LISTED

    @route("GET", _API + r"/(?P<resource>contacts|deals|tasks|activities)")
    def list_records(self, request: Request, resource: str) -> Response:
        page = self.lists.page(request, resource, self.now())
        rows = b",".join(self._body(resource, record) for record in page.records)
        after = encode(page.next_cursor)
        return Response(200, b'{"data":[%b],"count":%d,"nextCursor":%b}' % (rows, len(page.records), after))

    @route("GET", _API + "/organizations")
    def organization(self, request: Request) -> Response:
        """Answer with the account's own organisation: one object, no list."""
        own = next(iter(self.tenant.tables["organizations"]))
        return reply({"data": self.show("organizations", own)})

    def show(self, resource: str, record: Record) -> Fields:
        """Return a record as the API shows it."""
        return self.shape.show(resource, record)

    def _make_id(self, resource: str) -> str:
        return "".join(self.rng.choices(ascii_letters + digits, k=20))

    def _body(self, resource: str, record: Record) -> bytes:
        # A reference that is nulled depends on other records, so it may not be kept rendered.
        if self.s.dangling == "nulled":
            return encode(self.show(resource, record))
        if record.body is None:
            record.body = encode(self.show(resource, record))
        return record.body


SIMULATOR = Ralivi
