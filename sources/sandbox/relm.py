"""Relm (relmcrm.com), the classic contract: bearer keys, list envelope with cursors, contact batches.

Webhook endpoints can be registered; deliveries are not sent. The modern contract is another simulator's work.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from hashlib import sha256
from typing import Any

from sources.sandbox.exchange import Refusal, Request, Response, encode, reply
from sources.sandbox.idempotency import FirstAnswers
from sources.sandbox.limits import RateLimit
from sources.sandbox.people import World
from sources.sandbox.relm_lists import Listing, batch_answer, page
from sources.sandbox.relm_people import fill
from sources.sandbox.relm_rules import (
    OBJECT,
    PREFIX,
    RECORDS,
    TABLE_OF,
    RelmSwitches,
    Rules,
    blanks,
    check_definition,
    invalid,
)
from sources.sandbox.simulator import Simulator, is_missing, route
from sources.sandbox.store import Clock, Operation, Tenant
from sources.sandbox.table import Fields, Record

_RESOURCE = r"/v1/(?P<resource>contacts|companies|deals|activities)"
_LISTED = {"/v1/associations": "associations", "/v1/schema/fields": "fields", "/v1/webhooks": "webhooks"}
_LISTED |= {f"/v1/{resource}": resource for resource in RECORDS}


class Relm(Simulator):
    """Answer as Relm's classic API does."""

    name = "relm"
    key_prefix = "sk_live_"
    switches = RelmSwitches

    def __init__(self, *, seed: int, now: Clock, switches: RelmSwitches) -> None:
        super().__init__(seed=seed, now=now, switches=switches)
        self.s = switches
        self.made = 0
        self.tenant = Tenant(
            self.name,
            make_id=self._make_id,
            blanks=blanks(),
            keys={"contacts": self._email_key},
            now=now,
            step=timedelta(microseconds=10 ** (6 - switches.fraction_digits)),
            lag=timedelta(seconds=switches.list_lag_s),
        )
        self.rules = Rules(self.tenant, switches)
        self.first_answers = FirstAnswers(switches.idempotency_window_s, switches.idempotency_path_counts)
        limit, window_s = switches.rate_limit, switches.rate_window_s
        counts = switches.refused_requests_count
        self.rate = RateLimit(limit, window_s, switches.rate_window, counts) if limit else None

    @cached_property
    def test_mode(self) -> "Relm":
        """Return the workspace's other mode, which `sk_test_` keys reach; it starts empty."""
        return _TestMode(seed=self.seed, now=self.now, switches=self.s)

    def handle(self, request: Request) -> Response:
        is_test = self.key_of(request).startswith(_TestMode.key_prefix)
        return self.test_mode.handle(request) if is_test else super().handle(request)

    def populate(self, world: World) -> None:
        fill(self.tenant, world)

    def key_of(self, request: Request) -> str:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        return key.strip() if scheme.lower() == "bearer" else ""

    def refusal(self, status: int, code: str, message: str, errors: Mapping[str, Any]) -> Response:
        return reply({"error": {"code": code, "message": message, **errors}}, status)

    def common_headers(self) -> dict[str, str]:
        return {"Relm-Version": "2026-01-15"}

    def tells_retry_after(self) -> bool:
        return self.s.retry_after

    def is_list(self, request: Request) -> bool:
        return request.method == "GET" and request.path in _LISTED

    # Idempotency: any POST, 24 hours, bodies compared byte by byte.

    def respond(self, request: Request) -> Response:
        key = request.headers.get("idempotency-key")
        if request.method != "POST" or not key:
            return self.dispatch(request)
        if len(key) > 255:
            raise Refusal(400, "invalid_request", "Idempotency-Key is longer than 255 characters")
        if first := self.first_answers.given(key, request, self.now()):
            return first
        try:
            answer = self.dispatch(request)
        except Refusal as refusal:
            answer = self.refused(refusal)
        if answer.status < 400 or self.s.replays == "all":
            self.first_answers.keep(key, request, answer, self.now())
        return answer

    # Records

    @route("GET", _RESOURCE)
    @route("GET", "/v1/(?P<resource>associations|webhooks)")
    def list_records(self, request: Request, resource: str) -> Response:
        listing = Listing.of(request, resource, self.s, self.now())
        rows: list[bytes] = []
        last: Record | None = None
        for record in self._wanted(resource, listing):
            if len(rows) == listing.limit:
                return page(rows, listing.next_cursor(last or record, request, self.now()))
            rows.append(self._body(resource, record))
            last = record
        return page(rows, None)

    @route("GET", "/v1/schema/fields")
    def list_fields(self, request: Request) -> Response:
        return self.list_records(request, "fields")

    @route("POST", _RESOURCE)
    def create(self, request: Request, resource: str) -> Response:
        sent = request.json_object()
        twins = self.tenant.tables[resource].with_key(sent) if resource == "contacts" else []
        if twins and self.s.duplicate_create == "existing":
            return self._single(resource, twins[0], 200)
        if twins and self.s.duplicate_create == "conflict":
            raise Refusal(409, "conflict", "A contact with this email exists")
        return self._single(resource, self._insert(resource, sent, request), self.s.create_status)

    @route("GET", _RESOURCE + "/(?P<id>[^/]+)")
    def read(self, request: Request, resource: str, id: str) -> Response:
        return self._single(resource, self._record(resource, id), 200)

    @route("PATCH", _RESOURCE + "/(?P<id>[^/]+)")
    def patch(self, request: Request, resource: str, id: str) -> Response:
        record = self._record(resource, id)
        sent = request.json_object()
        twins = self.tenant.tables[resource].with_key(sent) if "email" in sent else []
        if self.s.duplicate_create == "conflict" and any(twin is not record for twin in twins):
            raise Refusal(409, "conflict", "A contact with this email exists")
        return self._single(resource, self._update(resource, record, sent, request), 200)

    @route("DELETE", _RESOURCE + "/(?P<id>[^/]+)")
    @route("DELETE", "/v1/(?P<resource>associations|webhooks)/(?P<id>[^/]+)")
    def delete(self, request: Request, resource: str, id: str) -> Response:
        if id not in self.tenant.tables[resource].records and self.s.second_delete < 400:
            return Response(self.s.second_delete)
        self.tenant.remove(resource, self._record(resource, id), self.origin(request))
        self._cut_edges(OBJECT[resource], id)
        if self.s.delete_answer == "empty":
            return Response(204)
        return reply({"id": id, "object": OBJECT[resource], "deleted": True})

    @route("DELETE", "/v1/schema/fields/(?P<id>[^/]+)")
    def delete_field(self, request: Request, id: str) -> Response:
        return self.delete(request, "fields", id)

    # Batch

    @route("POST", "/v1/contacts/batch")
    def batch(self, request: Request) -> Response:
        sent = request.json_object()
        rows, is_upsert = sent.get("contacts"), sent.get("dedup_on") == ["email"]
        if not isinstance(rows, list) or sent.get("dedup_on") not in (None, [], ["email"]):
            raise invalid('contacts must be a list, and dedup_on ["email"] where given')
        if len(rows) > self.s.batch_max:
            message = f"A batch holds at most {self.s.batch_max} contacts"
            raise Refusal(self.s.batch_over_max_status, "batch_too_large", message)
        if self.s.batch_atomic:
            self._check_all(rows, is_upsert)
        results = [self._row(index, row, is_upsert, request) for index, row in enumerate(rows)]
        return batch_answer(results, self.s)

    def _row(self, index: int, row: Any, is_upsert: bool, request: Request) -> dict[str, Any]:
        try:
            twins = self._twins(row, is_upsert)
            if twins:
                is_whole = self.s.dedup_update == "replaces"
                record = self._update("contacts", twins[0], row, request, is_whole=is_whole, op="upsert")
            else:
                record = self._insert("contacts", row, request, op="upsert" if is_upsert else "create")
        except Refusal as refusal:
            error = {"code": refusal.code, "message": refusal.message}
            return {"index": index, "status": "failed", "id": None, "error": error}
        status = "updated" if twins else "created"
        return {"index": index, "status": status, "id": record.id, "error": None}

    def _twins(self, row: Any, is_upsert: bool) -> list[Record]:
        if not isinstance(row, dict):
            raise invalid("A contact must be an object")
        twins = self.tenant.tables["contacts"].with_key(row)
        if twins and not is_upsert and self.s.duplicate_create == "conflict":
            raise Refusal(409, "conflict", "A contact with this email exists")
        return twins if is_upsert else []

    def _check_all(self, rows: list[Any], is_upsert: bool) -> None:
        for index, row in enumerate(rows):
            try:
                twins = self._twins(row, is_upsert)
                start = twins[0].fields if twins else self.tenant.blanks["contacts"]
                self._result("contacts", start, row)
            except Refusal as refusal:
                where = f"contacts[{index}]: {refusal.message}" if self.s.batch_atomic_names_row else ""
                raise Refusal(422, refusal.code, where or "The batch was refused") from refusal

    # Search, registry, associations, webhook endpoints

    @route("GET", "/v1/search")
    def search(self, request: Request) -> Response:
        if not (text := (request.param("q") or "").casefold()):
            raise Refusal(400, "invalid_request", "q is required")
        found = [
            self._body(resource, record)
            for resource in RECORDS
            for record in self.tenant.tables[resource]
            if text in encode(record.fields).decode().casefold()
        ]
        return page(found[: self.s.default_limit], None)

    @route("POST", "/v1/schema/fields")
    def create_field(self, request: Request) -> Response:
        sent = request.json_object()
        check_definition(sent)
        if sent["key"] in self.rules.registry(sent["object_type"]):
            raise Refusal(409, "conflict", "This object has a field with this key")
        return self._single("fields", self._insert("fields", sent, request), self.s.create_status)

    @route("POST", "/v1/associations")
    def associate(self, request: Request) -> Response:
        sent = request.json_object()
        for end in ("from", "to"):
            table = TABLE_OF.get(str(sent.get(f"{end}_type")))
            if table not in RECORDS or sent.get(f"{end}_id") not in self.tenant.tables[table].records:
                raise invalid(f"{end}_type and {end}_id name no record")
        if self.s.duplicate_edge == "conflict" and self._has_edge(sent):
            raise Refusal(409, "conflict", "These records are associated with this label")
        return self._single("associations", self._insert("associations", sent, request), self.s.create_status)

    @route("POST", "/v1/webhooks")
    def create_webhook(self, request: Request) -> Response:
        sent = request.json_object()
        if not isinstance(sent.get("url"), str) or not isinstance(sent.get("event_types"), list):
            raise invalid("url and event_types are required")
        record = self._insert("webhooks", sent, request)
        record.fields["secret"] = "whsec_" + sha256(f"{self.seed} {record.id}".encode()).hexdigest()[:24]
        shown = {**self.show("webhooks", record), "secret": record.fields["secret"]}
        return reply(shown, self.s.create_status)

    @route("PATCH", "/v1/webhooks/(?P<id>[^/]+)")
    def patch_webhook(self, request: Request, id: str) -> Response:
        record = self._record("webhooks", id)
        return self._single("webhooks", self._update("webhooks", record, request.json_object(), request), 200)

    @route("POST", "/v1/webhooks/(?P<id>[^/]+)/replay/(?P<delivery_id>[^/]+)")
    def replay(self, request: Request, id: str, delivery_id: str) -> Response:
        self._record("webhooks", id)
        is_missing("delivery")

    # What the above is made of

    def show(self, resource: str, record: Record) -> Fields:
        """Return a record as the API shows it."""
        shown = {"id": record.id, "object": OBJECT[resource], **record.fields}
        shown.pop("secret", None)
        if self.s.updated_at == "shown":
            shown["created_at"] = self._stamp(record.created_at)
            shown["updated_at"] = self._stamp(record.updated_at)
        return shown

    def _make_id(self, resource: str) -> str:
        self.made += 1
        return f"{PREFIX[resource]}_{self.made:08x}"

    def _email_key(self, fields: Fields) -> str | None:
        email = fields.get("email")
        if not isinstance(email, str) or not email.strip():
            return None
        return email.strip().casefold() if self.s.email_match == "folded" else email

    def _stamp(self, moment: datetime) -> str:
        text = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
        digits = self.s.fraction_digits
        return text[: 20 + digits if digits else 19] + "Z"

    def _wanted(self, resource: str, listing: Listing) -> Iterator[Record]:
        table, now = self.tenant.tables[resource], self.now()
        stamp = listing.cursor.stamp if listing.cursor else None
        for record in table.after(stamp, is_descending=self.s.order == "created_desc"):
            seen = self.tenant.listed(record, now)
            if seen and (not listing.filters or listing.is_wanted(self._filtered(resource, seen))):
                yield seen

    def _filtered(self, resource: str, record: Record) -> Fields:
        """Return what filters look at: time stamps may be filterable without being shown."""
        created_at, updated_at = self._stamp(record.created_at), self._stamp(record.updated_at)
        return {"id": record.id, **record.fields, "created_at": created_at, "updated_at": updated_at}

    def _body(self, resource: str, record: Record) -> bytes:
        if record.body is None:
            record.body = encode(self.show(resource, record))
        return record.body

    def _single(self, resource: str, record: Record, status: int) -> Response:
        body = self._body(resource, record)
        return Response(status, b'{"data":%b}' % body if self.s.single == "data" else body)

    def _record(self, resource: str, id: str) -> Record:
        return self.tenant.tables[resource].records.get(id) or is_missing(OBJECT[resource])

    def _insert(self, resource: str, sent: Fields, request: Request, *, op: Operation = "create") -> Record:
        fields = self._result(resource, self.tenant.blanks[resource], sent)
        kept = {name: value for name, value in fields.items() if name in sent}
        return self.tenant.insert(resource, kept, self.origin(request, op=op, sent=sent))

    def _update(
        self,
        resource: str,
        record: Record,
        sent: Fields,
        request: Request,
        *,
        is_whole: bool = False,
        op: Operation = "update",
    ) -> Record:
        start = self.tenant.blanks[resource] if is_whole else record.fields
        result = self._result(resource, start, sent)
        kept = {name: value for name, value in result.items() if name in sent}
        origin = self.origin(request, op=op, sent=sent)
        return self.tenant.update(resource, record, kept, origin, is_replacing=is_whole)

    def _result(self, resource: str, start: Mapping[str, Any], sent: Fields) -> Fields:
        known = self.rules.known(resource, sent)
        if self.s.metadata_write == "merges" and "metadata" in known:
            known["metadata"] = {**(start.get("metadata") or {}), **known["metadata"]}
        result = {**start, **known}
        if resource in RECORDS:
            self.rules.checked(resource, result, sent)
        return result

    def _has_edge(self, sent: Fields) -> bool:
        names = ("from_type", "from_id", "to_type", "to_id", "label")
        edges = self.tenant.tables["associations"]
        return any(all(edge.fields[name] == sent.get(name) for name in names) for edge in edges)

    def _cut_edges(self, object_type: str, id: str) -> None:
        edges = self.tenant.tables["associations"]
        for edge in list(edges):
            ends = {(edge.fields[f"{end}_type"], edge.fields[f"{end}_id"]) for end in ("from", "to")}
            if (object_type, id) in ends:
                edges.remove(edge)


class _TestMode(Relm):
    key_prefix = "sk_test_"

    def handle(self, request: Request) -> Response:
        return Simulator.handle(self, request)


SIMULATOR = Relm
