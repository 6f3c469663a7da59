"""Vivre (invrsys.com): bearer keys of one workspace, offset lists of contacts, three creates, one update.

Deals and activities are written and not read, unless a switch says so. Webhooks are registered by hand in the
product and deliveries are not sent.
"""

from collections.abc import Mapping
from hashlib import sha256
from itertools import count
from typing import Any

from sources.sandbox.exchange import Refusal, Request, Response, encode, reply
from sources.sandbox.limits import Allowance, RateLimit
from sources.sandbox.people import World
from sources.sandbox.simulator import Grant, Simulator, is_missing, route
from sources.sandbox.store import Clock, Operation, Tenant
from sources.sandbox.table import Fields, Record
from sources.sandbox.vivre_lists import Lists, envelope
from sources.sandbox.vivre_people import fill
from sources.sandbox.vivre_rules import CREATABLE, FIELDS, Envelope, Rules, VivreSwitches, blanks, show

_API = "/vivre/v1"
_PREFIX = {"contacts": "cnt", "deals": "dl", "activities": "act"}
_LISTED = {f"{_API}/{resource}" for resource in FIELDS}
_LEVELS = {"read": {"read"}, "write": {"write"}, "admin": {"read", "write"}}


class Vivre(Simulator):
    """Answer as Vivre's API does."""

    name = "vivre"
    base_path = _API
    key_prefix = "vv_live_"
    scopes = frozenset({"read", "write"})
    switches = VivreSwitches
    people_offset = 0.06

    def __init__(self, *, seed: int, now: Clock, switches: VivreSwitches) -> None:
        super().__init__(seed=seed, now=now, switches=switches)
        self.s = switches
        self.numbers = {"contacts": count(1_001), "deals": count(71), "activities": count(501)}
        self.tenant = Tenant(
            self.name,
            make_id=self._make_id,
            blanks=blanks(),
            keys={"contacts": self._email_key},
            now=now,
        )
        self.rules = Rules(self.tenant, switches)
        self.lists = Lists(self.tenant, switches)
        self.rates: dict[str, RateLimit] = {}
        self.rate = None

    @property
    def workspace_id(self) -> str:
        """Return the id that `X-Workspace-ID` must name."""
        return f"ws_{sha256(f'{self.seed} {self.tenant.name}'.encode()).hexdigest()[:8]}"

    def environment(self) -> dict[str, str]:
        return {"WORKSPACE_ID": self.workspace_id}

    def populate(self, world: World) -> None:
        fill(self.tenant, world)

    def handle(self, request: Request) -> Response:
        with self.tenant.lock:
            self.rate = self._rate_of(request)
            return super().handle(request)

    def key_of(self, request: Request) -> str:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        return key.strip() if scheme.lower() == "bearer" else ""

    def permit(self, grant: Grant, request: Request) -> None:
        self._check_workspace(request)
        held = set().union(*(_LEVELS.get(scope, set()) for scope in grant.scopes))
        if self.s.write_reads and "write" in held:
            held.add("read")
        needed = "read" if request.method == "GET" else "write"
        if needed not in held:
            raise Refusal(self.s.permission_status, "forbidden", f"The key lacks the permission {needed}")

    def refusal(self, status: int, code: str, message: str, errors: Mapping[str, Any]) -> Response:
        if self.s.error_body == "text":
            return Response(status, message.encode(), {}, "text/plain; charset=utf-8")
        if self.s.error_body == "errors":
            return reply({"message": message, "errors": errors}, status)
        return reply({"error": {"code": code, "message": message}}, status)

    def rate_headers(self, allowance: Allowance) -> dict[str, str]:
        return allowance.headers() if self.s.rate_headers else {}

    def tells_retry_after(self) -> bool:
        return self.s.retry_after

    def is_list(self, request: Request) -> bool:
        return request.method == "GET" and request.path in _LISTED

    # Reading

    @route("GET", _API + r"/(?P<resource>contacts|deals|activities)")
    def list_records(self, request: Request, resource: str) -> Response:
        is_there = {"deals": self.s.deals_listed, "activities": self.s.activities_listed}
        self._check_there(is_there.get(resource, True))
        page = self.lists.page(request, resource, self.now())
        return Response(200, envelope([self._body(resource, record) for record in page.records], page))

    @route("GET", _API + r"/(?P<resource>contacts|deals)/(?P<id>[^/]+)")
    def read(self, request: Request, resource: str, id: str) -> Response:
        self._check_there(resource == "contacts" or self.s.deal_by_id)
        return self._single(resource, self._record(resource, id), 200)

    # Writing

    @route("POST", _API + "/contacts")
    def create_contact(self, request: Request) -> Response:
        sent = request.json_object()
        twins = self.tenant.tables["contacts"].with_key(sent)
        if twins and self.s.existing_email == "refused":
            problem = "A contact with this email already exists"
            raise Refusal(400, "validation", problem, errors={"email": [problem]})
        if twins and self.s.existing_email == "merged":
            record = self._update("contacts", twins[0], request, writable=CREATABLE["contacts"], op="create")
            return self._created("contacts", record)
        return self._created("contacts", self._insert("contacts", request, {"ai_score": self.s.new_score}))

    @route("POST", _API + "/deals")
    def create_deal(self, request: Request) -> Response:
        record = self._insert("deals", request, {})
        self._follow_win(record)
        return self._created("deals", record)

    @route("POST", _API + "/activities")
    def log_activity(self, request: Request) -> Response:
        record = self._insert("activities", request, {})
        contact = self.tenant.tables["contacts"].records.get(record.fields["contact_id"])
        if contact and self.s.activity_moves_score:
            score = min(100, (contact.fields["ai_score"] or 0) + 1)
            self._set_by_itself(contact, {"ai_score": score})
        return self._created("activities", record)

    @route("PATCH", _API + r"/deals/(?P<id>[^/]+)(?:/.*)?")
    @route("PUT", _API + r"/deals/(?P<id>[^/]+)(?:/.*)?")
    @route("POST", _API + r"/deals/(?P<id>[^/]+)(?:/.*)?")
    def update_deal(self, request: Request, id: str) -> Response:
        line = f"{request.method} {request.path.removeprefix(_API)}"
        self._check_there(line == self.s.deal_update.replace("{id}", id))
        record = self._record("deals", id)
        self._update("deals", record, request, writable=self.s.deal_update_fields)
        self._follow_win(record)
        return self._single("deals", record, 200)

    @route("PATCH", _API + r"/contacts/(?P<id>[^/]+)")
    @route("PUT", _API + r"/contacts/(?P<id>[^/]+)")
    def update_contact(self, request: Request, id: str) -> Response:
        self._check_there(request.method in self.s.contact_update)
        record = self._record("contacts", id)
        twins = self.tenant.tables["contacts"].with_key(request.json_object())
        if self.s.existing_email == "refused" and any(twin is not record for twin in twins):
            raise Refusal(400, "validation", "Another contact has this email", errors={"email": ["is taken"]})
        is_whole = request.method == "PUT" and self.s.put == "replaces"
        self._update("contacts", record, request, writable=CREATABLE["contacts"], is_whole=is_whole)
        return self._single("contacts", record, 200)

    # What the above is made of

    def _make_id(self, resource: str) -> str:
        return f"{_PREFIX[resource]}_{next(self.numbers[resource])}"

    def _email_key(self, fields: Fields) -> str | None:
        email = fields.get("email")
        if not isinstance(email, str) or not email.strip():
            return None
        return email.strip().casefold() if self.s.email_match == "folded" else email

    def _rate_of(self, request: Request) -> RateLimit | None:
        if not self.s.rate_limit:
            return None
        whose = self.key_of(request) if self.s.rate_scope == "key" else ""
        return self.rates.setdefault(whose, RateLimit(self.s.rate_limit, self.s.rate_window_s))

    def _check_workspace(self, request: Request) -> None:
        named = request.headers.get("x-workspace-id")
        is_refused = {
            "ignored": False,
            "checked": named not in (None, self.workspace_id),
            "required": named != self.workspace_id,
        }
        if is_refused[self.s.workspace_header]:
            raise Refusal(self.s.workspace_status, "workspace", "X-Workspace-ID is not this key's workspace")

    def _check_there(self, is_there: bool) -> None:
        if not is_there:
            raise Refusal(self.s.absent_status, "not_found", "There is nothing at this path")

    def _record(self, resource: str, id: str) -> Record:
        return self.tenant.tables[resource].records.get(id) or is_missing("record")

    def _insert(self, resource: str, request: Request, also: Fields) -> Record:
        sent = request.json_object()
        known = self.rules.known(resource, sent, writable=CREATABLE[resource])
        self.rules.complete(resource, known)
        return self.tenant.insert(resource, known, self.origin(request, sent=sent), also=also)

    def _update(
        self,
        resource: str,
        record: Record,
        request: Request,
        *,
        writable: tuple[str, ...],
        is_whole: bool = False,
        op: Operation = "update",
    ) -> Record:
        sent = request.json_object()
        known = self.rules.known(resource, sent, writable=writable)
        start = self.tenant.blanks[resource] if is_whole else record.fields
        self.rules.complete(resource, {**start, **known})
        also = self.rules.closed(record.fields, known, self.now()) if resource == "deals" else {}
        if is_whole:
            also["ai_score"] = record.fields["ai_score"]
        origin = self.origin(request, op=op, sent=sent)
        return self.tenant.update(resource, record, known, origin, is_replacing=is_whole, also=also)

    def _follow_win(self, deal: Record) -> None:
        contact = self.tenant.tables["contacts"].records.get(deal.fields["contact_id"])
        if contact and self.s.won_moves_contact and deal.fields["stage"] == "won":
            self._set_by_itself(contact, {"stage": "won"})

    def _set_by_itself(self, contact: Record, fields: Fields) -> None:
        """Change a contact as the CRM does on its own: the ledger holds only what clients wrote."""
        self.tenant.tables["contacts"].change(contact, contact.fields | fields, self.tenant.clock())

    def _body(self, resource: str, record: Record) -> bytes:
        if record.body is None:
            record.body = encode(show(resource, record, self.s))
        return record.body

    def _single(self, resource: str, record: Record, status: int) -> Response:
        shown = show(resource, record, self.s, is_by_id=True)
        return reply({"data": shown} if self.s.single == "data" else shown, status)

    def _created(self, resource: str, record: Record) -> Response:
        shown = show(resource, record, self.s, is_by_id=True)
        bodies: dict[Envelope, Any] = {
            "data": {"data": shown},
            "bare": shown,
            "id": {"id": record.id},
            "empty": {},
        }
        return reply(bodies[self.s.created], self.s.create_status)


SIMULATOR = Vivre
