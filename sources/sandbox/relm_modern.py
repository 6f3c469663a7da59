"""Relm, the modern contract: versions, soft deletes, problem documents, one batch for four objects, a quota.

Webhooks, automations and sign-in by OAuth are left out. Served where a workspace is asked for by name:
`Sandbox(also={"relm_modern": "relm_modern"})`.
"""

from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from threading import local
from typing import Any

from sources.sandbox.exchange import Refusal, Request, Response, encode, reply
from sources.sandbox.idempotency import FirstAnswers
from sources.sandbox.limits import Allowance, RateLimit
from sources.sandbox.people import World
from sources.sandbox.relm_lists import Cursor
from sources.sandbox.relm_modern_batch import Operation, Result, batch_answer, operations_of
from sources.sandbox.relm_modern_lists import SEARCHED, Listing, is_found, limit_of, page
from sources.sandbox.relm_modern_people import fill, set_up
from sources.sandbox.relm_modern_problems import PROBLEM, bad_request, conflict, problem, with_classic_error
from sources.sandbox.relm_modern_quota import Quota
from sources.sandbox.relm_modern_rules import OBJECT, RECORDS, Rules
from sources.sandbox.relm_modern_setup import Setup
from sources.sandbox.relm_modern_state import Workspace
from sources.sandbox.relm_modern_switches import RelmModernSwitches
from sources.sandbox.simulator import Grant, Simulator, is_missing, route
from sources.sandbox.store import Clock
from sources.sandbox.table import Fields, Record

_RESOURCE = r"/v1/(?P<resource>contacts|companies|deals|activities)"
_ONE = _RESOURCE + r"/(?P<id>[^/]+)"
_LISTED = {f"/v1/{resource}" for resource in RECORDS}


class RelmModern(Setup):
    """Answer as Relm's modern API does."""

    name = "relm_modern"
    dialect_of = "relm"
    base_path = "/v1"
    key_prefix = "relm_live_"
    mode = "live"
    ids_from = 0
    switches = RelmModernSwitches

    def __init__(self, *, seed: int, now: Clock, switches: RelmModernSwitches) -> None:
        super().__init__(seed=seed, now=now, switches=switches)
        self.s = switches
        self.tenant = Workspace(self.name, now, switches, ids_from=self.ids_from)
        set_up(self.tenant, now())
        self.rules = Rules(self.tenant, switches)
        self.first_answers = FirstAnswers(switches.idempotency_window_s, switches.idempotency_path_counts)
        self.repeats: dict[str, int] = {}
        self.quota = Quota(
            plan=switches.plan,
            now=now,
            given=switches.quota,
            used=switches.quota_used,
            cap_usd=switches.overage_cap_usd,
            usd_per_request=switches.overage_usd,
        )
        self.rate = RateLimit(switches.rate_limit, switches.rate_window_s) if switches.rate_limit else None
        # Of the request a thread serves: an error names it, also one that a fault makes.
        self._served = local()

    @cached_property
    def test_mode(self) -> "RelmModern":
        """Return the workspace's other mode, which `relm_test_` keys reach; it starts without records."""
        return _TestMode(seed=self.seed, now=self.now, switches=self.s)

    def part(self, request: Request) -> Simulator:
        is_test = self.key_of(request).startswith(_TestMode.key_prefix)
        chosen = self.test_mode if is_test else self
        chosen._served.request_id = request.id  # noqa: SLF001 - the other mode is this class too
        return chosen

    def handle(self, request: Request) -> Response:
        with self.tenant.lock:
            self.erase()
            return super().handle(request)

    def erase(self) -> None:
        """Take away what the CRM no longer keeps."""
        if self.s.restore_window_s is not None:
            self.tenant.erase(deleted_before=self.now() - timedelta(seconds=self.s.restore_window_s))

    def populate(self, world: World) -> None:
        fill(self.tenant, world)

    def key_of(self, request: Request) -> str:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        return key.strip() if scheme.lower() == "bearer" else ""

    def permit(self, grant: Grant, request: Request) -> None:
        if not (self.s.usage_is_free and request.path == "/v1/usage"):
            self.take(1)

    def take(self, requests: int) -> None:
        """Count requests against the month; raises `Refusal` 429."""
        self.quota.take(requests)

    def refusal(self, status: int, code: str, message: str, errors: Mapping[str, Any]) -> Response:
        made = self._problem(Refusal(status, code, message, errors=errors))
        is_both = self.s.classic_errors == "always" or (self.s.classic_errors == "401" and status == 401)
        return reply(with_classic_error(made) if is_both else made, status, content_type=PROBLEM)

    def common_headers(self) -> dict[str, str]:
        return self.quota.headers(self.s.quota_members)

    def rate_headers(self, allowance: Allowance) -> dict[str, str]:
        values = allowance.headers().values()
        return {f"X-RateLimit-{name}": value for name, value in zip(self.s.rate_members, values, strict=True)}

    def tells_retry_after(self) -> bool:
        return self.s.retry_after

    def is_list(self, request: Request) -> bool:
        return request.method == "GET" and request.path in _LISTED

    # Idempotency: the four creates only.

    def respond(self, request: Request) -> Response:
        key = request.headers.get("idempotency-key")
        if not key or request.method != "POST" or request.path not in _LISTED:
            return self.dispatch(request)
        if first := self.first_answers.given(key, request, self.now()):
            return self._repeated(key, first)
        try:
            answer = self.dispatch(request)
        except Refusal as refusal:
            answer = self.refused(refusal)
        if answer.status < 400 or self.s.replays == "all":
            self.first_answers.keep(key, request, answer, self.now())
        return answer

    # Records

    @route("GET", _RESOURCE)
    def list_records(self, request: Request, resource: str) -> Response:
        listing = Listing.of(request, resource, self.s, self.now())
        stamp = listing.cursor.stamp if listing.cursor else None
        rows: list[bytes] = []
        last: Record | None = None
        for record in self.tenant.tables[resource].after(stamp, is_descending=self.s.order == "created_desc"):
            seen = self.tenant.listed(record, self.now())
            if seen is None or not listing.is_wanted(seen, self._pipeline_key):
                continue
            if len(rows) == listing.limit:
                return page(rows, self._cursor(last or record), has_more=True)
            rows.append(self._body(resource, seen))
            last = seen
        is_given = last is not None and self.s.last_cursor == "given"
        return page(rows, self._cursor(last) if last and is_given else None, has_more=False)

    @route("POST", _RESOURCE)
    def create(self, request: Request, resource: str) -> Response:
        is_new, record = self._create(resource, request.json_object(), request)
        return self._single(resource, record, self._create_status(is_new))

    @route("GET", _ONE)
    def read(self, request: Request, resource: str, id: str) -> Response:
        record = self._record(resource, id, shows_deleted=self.s.deleted_by_id == "shown")
        return self._single(resource, record)

    @route("PATCH", _ONE)
    def patch(self, request: Request, resource: str, id: str) -> Response:
        record = self._record(resource, id)
        self._check_version(request.headers.get("if-match"), record)
        return self._single(resource, self._update(resource, record, request.json_object(), request))

    @route("DELETE", _ONE)
    def delete(self, request: Request, resource: str, id: str) -> Response:
        self.tenant.remove(resource, self._record(resource, id), self.origin(request))
        return reply({"id": id, "object": OBJECT[resource], "deleted": True})

    @route("POST", _ONE + "/restore")
    def restore(self, request: Request, resource: str, id: str) -> Response:
        record = self._record(resource, id, shows_deleted=True)
        if record.fields["deleted"]:
            if resource == "contacts":
                self._check_twins({**record.fields, "deleted": False}, record)
            self.tenant.restore(resource, record, self.origin(request))
        return self._single(resource, record)

    # Batch and search

    @route("POST", "/v1/batch")
    def batch(self, request: Request) -> Response:
        sent = operations_of(request, self.s.batch_max)
        # Each operation counts as one request; the batch itself was counted as one already.
        self.take(max(0, len(sent) - 1))
        if self.s.batch_atomic:
            self._check_all(sent)
        return batch_answer([self._result(each, request) for each in sent], self.s)

    @route("GET", "/v1/search")
    def search(self, request: Request) -> Response:
        if not (text := request.param("q")):
            raise bad_request("q is required", field="q")
        limit = limit_of(request.param("limit"), default=10, most=100)
        found = [
            self._found(resource, record)
            for resource in SEARCHED
            for record in self.tenant.tables[resource]
            if not record.fields["deleted"] and is_found(resource, record.fields, text)
        ]
        shown = {"object": "search", "query": text, "has_more": len(found) > limit, "results": found[:limit]}
        return reply(shown)

    # What the above is made of

    def _problem(self, refusal: Refusal) -> dict[str, Any]:
        request_id = getattr(self._served, "request_id", "")
        return problem(refusal.status, refusal.code, refusal.message, refusal.errors, request_id=request_id)

    def _repeated(self, key: str, first: Response) -> Response:
        self.repeats[key] = self.repeats.get(key, 0) + 1
        if self.repeats[key] <= self.s.repeats_in_progress:
            raise Refusal(409, "idempotency_in_progress", "The first request with this key is still running")
        return first

    def _result(self, sent: Any, request: Request) -> Result:
        try:
            return self._carried_out(Operation.read(sent), request)
        except Refusal as refusal:
            return Result("failed", refusal.status, self._problem(refusal))

    def _carried_out(self, operation: Operation, request: Request) -> Result:
        resource = operation.resource
        if operation.method == "create":
            is_new, record = self._create(resource, operation.content, request)
            shown = self.tenant.shown(resource, record, self.mode)
            return Result("created" if is_new else "existing", self._create_status(is_new), shown)
        record = self._record(resource, operation.id)
        if operation.method == "update":
            self._update(resource, record, operation.content, request)
            return Result("updated", 200, self.tenant.shown(resource, record, self.mode))
        self.tenant.remove(resource, record, self.origin(request))
        return Result("deleted", 200, {"id": record.id, "object": OBJECT[resource], "deleted": True})

    def _check_all(self, sent: list[Any]) -> None:
        """Raise the first operation's refusal as that of the whole batch."""
        for operation in map(Operation.read, sent):
            is_create = operation.method == "create"
            record = None if is_create else self._record(operation.resource, operation.id)
            if operation.method != "delete":
                self._written(operation.resource, record, operation.content)

    def _create(self, resource: str, sent: Fields, request: Request) -> tuple[bool, Record]:
        """Return a new record, or the one there is, and whether it is new."""
        known, also = self._written(resource, None, sent)
        if twins := self.tenant.tables[resource].with_key(known):
            return False, twins[0]
        return True, self.tenant.insert(resource, known, self.origin(request, sent=sent), also=also)

    def _create_status(self, is_new: bool) -> int:
        return self.s.create_status if is_new else self.s.existing_status

    def _update(self, resource: str, record: Record, sent: Fields, request: Request) -> Record:
        known, also = self._written(resource, record, sent)
        return self.tenant.update(resource, record, known, self.origin(request, sent=sent), also=also)

    def _written(self, resource: str, record: Record | None, sent: Fields) -> tuple[Fields, Fields]:
        """Return what a write sets and what the CRM sets with it, once the record it makes can stand."""
        known = self.rules.known(resource, sent)
        start = record.fields if record else self.tenant.blanks[resource]
        if self.s.custom_write == "merges" and "custom_fields" in known:
            known["custom_fields"] = {**start["custom_fields"], **known["custom_fields"]}
        self.rules.complete(resource, {**start, **known}, known)
        if resource == "contacts" and "email" in known:
            self._check_twins(known, record)
        if resource == "deals" and (record is None or {"pipeline", "stage"} & known.keys()):
            return known, self.rules.placed(start, known)
        if resource == "activities" and record is None and "occurred_at" not in known:
            return known, {"occurred_at": self.tenant.stamp(self.now())}
        return known, {}

    def _check_twins(self, fields: Fields, record: Record | None) -> None:
        twins = [twin for twin in self.tenant.tables["contacts"].with_key(fields) if twin is not record]
        if not twins or (record is None and self.s.duplicate_create == "existing"):
            return
        refusal = conflict("A contact with this email exists", field="email")
        if self.s.conflict_member:
            refusal.errors[self.s.conflict_member] = self.tenant.shown("contacts", twins[0], self.mode)
        raise refusal

    def _check_version(self, given: str | None, record: Record) -> None:
        if given is None:
            return
        is_quoted = len(given) > 2 and given.startswith('"') and given.endswith('"')
        number = given.strip('"')
        if self.s.if_match != "either" and is_quoted != (self.s.if_match == "quoted"):
            raise bad_request("If-Match is not written as a version", field="If-Match")
        if not number.isdecimal():
            raise bad_request("If-Match must be an integer version", field="If-Match")
        if int(number) != record.fields["version"]:
            raise Refusal(412, "version_conflict", f"The record is at version {record.fields['version']}")

    def _record(self, resource: str, id: str, *, shows_deleted: bool = False) -> Record:
        record = self.tenant.tables[resource].records.get(id)
        if record is None or (record.fields["deleted"] and not shows_deleted):
            is_missing(OBJECT[resource])
        return record

    def _body(self, resource: str, record: Record) -> bytes:
        if record.body is None:
            record.body = encode(self.tenant.shown(resource, record, self.mode))
        return record.body

    def _single(self, resource: str, record: Record, status: int = 200) -> Response:
        return Response(status, self._body(resource, record))

    def _cursor(self, last: Record) -> str:
        # Without a lifetime the same page gives the same cursor.
        issued_at = 0.0 if self.s.cursor_ttl_s is None else self.now().timestamp()
        return Cursor((last.created_at, last.id), issued_at, "").text()

    def _pipeline_key(self, named: str) -> str | None:
        rows = ((record.id, record.fields["key"]) for record in self.tenant.tables["pipelines"])
        return next((key for id, key in rows if named in (id, key)), None)

    def _found(self, resource: str, record: Record) -> Fields:
        names = {"contacts": ("first_name", "last_name"), "companies": ("name",), "deals": ("title",)}
        title = " ".join(record.fields[name] for name in names[resource] if record.fields[name])
        return {"type": OBJECT[resource], "id": record.id, "title": title}


class _TestMode(RelmModern):
    """Hold the other mode: free of charge, and its records live for some days only."""

    key_prefix = "relm_test_"
    mode = "test"
    ids_from = 0x80_0000_0000

    def take(self, requests: int) -> None:
        return

    def erase(self) -> None:
        super().erase()
        self.tenant.erase(created_before=self.now() - timedelta(days=self.s.test_mode_days))


SIMULATOR = RelmModern
