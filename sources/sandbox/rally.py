"""Rally CRM (rallycrm.io): X-Api-Key, bare lists with offsets, natural-key upsert, bulk, change feed.

Webhooks can be registered; deliveries are not sent. CSV import, JWT sign-in and key management are left out.
"""

from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256
from random import Random
from typing import Any
from uuid import UUID

from sources.sandbox.exchange import Refusal, Request, Response, encode, reply
from sources.sandbox.limits import RateLimit
from sources.sandbox.people import World
from sources.sandbox.rally_lists import Feed, Lists
from sources.sandbox.rally_people import fill
from sources.sandbox.rally_rules import (
    FIELDS,
    KEPT,
    RECORDS,
    WRITE_ONLY,
    RallySwitches,
    Rules,
    blanks,
    refused,
    stamp,
)
from sources.sandbox.simulator import Grant, Simulator, route
from sources.sandbox.store import Clock, Operation, Tenant
from sources.sandbox.table import Fields, Record

_API = r"/api(?:/v1)?"
_RESOURCE = _API + r"/(?P<resource>contacts|companies|deals|activities|webhooks)"
_KEYED = _API + r"/(?P<resource>contacts|companies|deals)/upsert"
_IMPLIED = {"read": {"read"}, "write": {"read", "write"}, "admin": {"read", "write", "admin"}}


class Rally(Simulator):
    """Answer as Rally's API does."""

    name = "rally"
    base_path = "/api/v1"
    key_prefix = "rk_live_"
    scopes = frozenset({"read", "write"})
    switches = RallySwitches
    people_offset = 0.2

    def __init__(self, *, seed: int, now: Clock, switches: RallySwitches) -> None:
        super().__init__(seed=seed, now=now, switches=switches)
        self.s = switches
        self.rng = Random(f"{seed} rally ids")
        self.tenant = Tenant(
            self.name,
            make_id=self._make_id,
            blanks=blanks(),
            keys={"contacts": self._email_key, "companies": _domain_key, "deals": self._deal_key},
            now=now,
            step=timedelta(microseconds=10 ** (6 - switches.fraction_digits)),
            lag=timedelta(seconds=switches.list_lag_s),
        )
        self.tenant_id = self._make_id("")
        self.rules = Rules(self.tenant, switches)
        self.lists = Lists(self.tenant, switches)
        self.feed = Feed(self.tenant, switches)
        self.bant: dict[str, Any] = {}
        limit, window_s = switches.rate_limit, switches.rate_window_s
        counts = switches.refused_requests_count
        self.rate = RateLimit(limit, window_s, switches.rate_window, counts) if limit else None

    def populate(self, world: World) -> None:
        fill(self.tenant, world)
        self.tenant.write_history(RECORDS)

    def key_of(self, request: Request) -> str:
        return request.headers.get("x-api-key", "")

    def refusal(self, status: int, code: str, message: str, errors: Mapping[str, Any]) -> Response:
        problem = {"type": "about:blank", "title": message, "status": status}
        body = problem | ({"errors": errors} if errors else {})
        return reply(body, status, content_type="application/problem+json")

    def tells_retry_after(self) -> bool:
        return self.s.retry_after

    def is_list(self, request: Request) -> bool:
        last = request.path.rpartition("/")[2]
        return request.method == "GET" and (last in FIELDS or request.path.endswith("/sync/changes"))

    def permit(self, grant: Grant, request: Request) -> None:
        held = set().union(*(_IMPLIED.get(scope, set()) for scope in grant.scopes))
        needed = "read" if request.method == "GET" else "write"
        if "/webhooks" in request.path:
            needed = "admin"
        if needed not in held:
            raise Refusal(403, "forbidden", f"The key lacks the scope {needed}")

    # Reading

    @route("GET", _RESOURCE)
    def list_records(self, request: Request, resource: str) -> Response:
        rows = self.lists.rows(request, resource, self.now())
        wanted = request.param("fields")
        if wanted is None:
            return Response(200, b"[" + b",".join(self._body(resource, row) for row in rows) + b"]")
        names = {*(name.strip() for name in wanted.split(",")), *self.s.fields_always}
        shown = (self.show(resource, row) for row in rows)
        return reply([{name: row[name] for name in row if name in names} for row in shown])

    @route("GET", _RESOURCE + "/(?P<id>[^/]+)")
    def read(self, request: Request, resource: str, id: str) -> Response:
        return self._single(resource, self._record(resource, id), 200)

    @route("GET", _API + "/sync/changes")
    def changes(self, request: Request) -> Response:
        return reply(self.feed.entries(request, self.now()))

    # Writing

    @route("POST", _RESOURCE)
    def create(self, request: Request, resource: str) -> Response:
        sent = request.json_object()
        twins = self.tenant.tables[resource].with_key(sent) if resource == "contacts" else []
        if twins and self.s.create_existing == "conflict":
            raise Refusal(409, "conflict", "A contact with this email already exists")
        if twins and self.s.create_existing == "merges":
            return self._single(resource, self._update(resource, twins[0], sent, request), 200)
        return self._single(resource, self._insert(resource, sent, request), self.s.create_status)

    # Before the route by id, which would take `upsert` for one.
    @route("PUT", _KEYED)
    def upsert(self, request: Request, resource: str) -> Response:
        sent = request.json_object()
        if self.tenant.keys[resource](sent) is None and self._needs_key(resource):
            raise refused("domain" if resource == "companies" else "email", "The field is required.")
        twins = self.tenant.tables[resource].with_key(sent)
        if twins:
            record = self._upserted(resource, twins[0], sent, request)
        else:
            record = self._insert(resource, sent, request, op="upsert")
        if self.s.upsert_reply == "record":
            return self._single(resource, record, 200)
        return reply({"action": "updated" if twins else "created", "id": record.id})

    @route("PUT", _RESOURCE + "/(?P<id>[^/]+)")
    def put(self, request: Request, resource: str, id: str) -> Response:
        record = self._record(resource, id)
        sent = request.json_object()
        twins = self.tenant.tables[resource].with_key(sent) if resource == "contacts" else []
        if self.s.create_existing == "conflict" and any(twin is not record for twin in twins):
            raise Refusal(409, "conflict", "Another contact has this email")
        is_whole = self.s.put == "replaces"
        return self._single(resource, self._update(resource, record, sent, request, is_whole=is_whole), 200)

    @route("POST", _RESOURCE + "/bulk")
    def bulk(self, request: Request, resource: str) -> Response:
        if resource == "webhooks":
            raise Refusal(404, "not_found", "There is nothing at this path")
        rows = self._bulk_rows(request.json(), resource)
        if len(rows) > self.s.bulk_max:
            message = f"At most {self.s.bulk_max} records"
            raise Refusal(self.s.bulk_over_max_status, "too_many", message)
        if self.s.bulk_atomic:
            self._check_bulk(rows, resource)
        result: dict[str, Any] = {"created": 0, "updated": 0, "failed": 0, "createdIds": [], "errors": []}
        for place, row in enumerate(rows):
            self._bulk_row(result, place, row, resource, request)
        return reply(result, self.s.bulk_partial_status if result["failed"] else 200)

    @route("DELETE", _RESOURCE + "/(?P<id>[^/]+)")
    def delete(self, request: Request, resource: str, id: str) -> Response:
        if id not in self.tenant.tables[resource].records:
            if self.s.second_delete < 400:
                return Response(self.s.second_delete)
            raise Refusal(self.s.second_delete, "not_found", "No such record")
        self.tenant.remove(resource, self._record(resource, id), self.origin(request))
        return Response(self.s.delete_status)

    @route("PATCH", _API + "/deals/(?P<id>[^/]+)/stage")
    def move(self, request: Request, id: str) -> Response:
        record = self._record("deals", id)
        sent = {"stageId": request.json_object().get("stageId")}
        return self._single("deals", self._update("deals", record, sent, request), 200)

    @route("GET", _API + "/deals/(?P<id>[^/]+)/bant")
    def read_bant(self, request: Request, id: str) -> Response:
        names = ("budget", "authority", "need", "timeline")
        return reply(self.bant.get(self._record("deals", id).id, dict.fromkeys(names)))

    @route("PUT", _API + "/deals/(?P<id>[^/]+)/bant")
    def put_bant(self, request: Request, id: str) -> Response:
        self.bant[self._record("deals", id).id] = request.json_object()
        return self.read_bant(request, id)

    # What the above is made of

    def show(self, resource: str, record: Record) -> Fields:
        """Return a record as the API shows it."""
        shown = {"id": record.id, "tenantId": self.tenant_id, **record.fields}
        if resource == "contacts":
            shown = {name: value for name, value in shown.items() if name not in WRITE_ONLY}
            shown["fullName"] = f"{shown['firstName']} {shown['lastName']}"
        elif resource == "deals":
            shown |= self._deal_names(record.fields)
        for name in ("value", "annualRevenue"):
            if self.s.decimals == "string" and isinstance(shown.get(name), int | float):
                shown[name] = f"{shown[name]:.2f}"
        has_stamps = {"deals": self.s.has_deal_stamps, "activities": self.s.has_activity_stamps}
        if has_stamps.get(resource, True):
            shown["createdAt"] = stamp(record.created_at, self.s.fraction_digits)
            shown["updatedAt"] = stamp(record.updated_at, self.s.fraction_digits)
        return shown

    def _make_id(self, resource: str) -> str:
        return str(UUID(int=self.rng.getrandbits(128), version=4))

    def _email_key(self, fields: Fields) -> str | None:
        email = fields.get("email")
        if not isinstance(email, str) or not email.strip():
            return None
        return email.strip().casefold() if self.s.email_match == "folded" else email

    def _deal_key(self, fields: Fields) -> str | None:
        name, pipeline_id = fields.get("name"), fields.get("pipelineId")
        if not isinstance(name, str) or not pipeline_id:
            return None
        return f"{pipeline_id} {name.casefold() if self.s.deal_name_match == 'folded' else name}"

    def _needs_key(self, resource: str) -> bool:
        return resource == "contacts" or (
            resource == "companies" and self.s.company_without_domain == "refused"
        )

    def _deal_names(self, fields: Fields) -> Fields:
        tables = self.tenant.tables
        stage = tables["stages"].records.get(fields["stageId"])
        contact = tables["contacts"].records.get(fields["contactId"] or "")
        company = tables["companies"].records.get(fields["companyId"] or "")
        full_name = contact and f"{contact.fields['firstName']} {contact.fields['lastName']}"
        return {
            "stageName": stage.fields["name"] if stage else "",
            "contactName": full_name,
            "companyName": company.fields["name"] if company else None,
            "ownerName": None,
        }

    def _body(self, resource: str, record: Record) -> bytes:
        # A deal shows names of other records, so it may not be kept rendered.
        if resource == "deals":
            return encode(self.show(resource, record))
        if record.body is None:
            record.body = encode(self.show(resource, record))
        return record.body

    def _single(self, resource: str, record: Record, status: int) -> Response:
        return Response(status, self._body(resource, record))

    def _record(self, resource: str, id: str) -> Record:
        if record := self.tenant.tables[resource].records.get(id):
            return record
        was_there = any(change.record_id == id for change in reversed(self.tenant.feed))
        raise Refusal(self.s.gone_status if was_there else 404, "not_found", "No such record")

    def _insert(self, resource: str, sent: Any, request: Request, *, op: Operation = "create") -> Record:
        known = self.rules.known(resource, sent)
        self.rules.checked(resource, {**self.tenant.blanks[resource], **known})
        settled = self._settled(resource, {}, known)
        if resource == "webhooks":
            settled["secret"] = (
                "whsec_" + sha256(f"{self.seed} {self.rng.random()}".encode()).hexdigest()[:24]
            )
        return self.tenant.insert(resource, known, self.origin(request, op=op, sent=sent), also=settled)

    def _update(
        self,
        resource: str,
        record: Record,
        sent: Any,
        request: Request,
        *,
        is_whole: bool = False,
        also: Mapping[str, Any] | None = None,
        op: Operation = "update",
    ) -> Record:
        known = self.rules.known(resource, sent)
        if not self.s.null_clears and not is_whole:
            known = {name: value for name, value in known.items() if value is not None}
        start = self.tenant.blanks[resource] if is_whole else record.fields
        self.rules.checked(resource, {**start, **known})
        kept = {name: record.fields[name] for name in KEPT[resource]} if is_whole else {}
        kept |= self._settled(resource, record.fields, known) | dict(also or {})
        origin = self.origin(request, op=op, sent=sent)
        return self.tenant.update(resource, record, known, origin, is_replacing=is_whole, also=kept)

    def _upserted(self, resource: str, record: Record, sent: Fields, request: Request) -> Record:
        is_whole = self.s.upsert_update == "replaces"
        stage = "lead" if self.s.lifecycle_reset else record.fields.get("lifecycleStage")
        is_silent = resource == "contacts" and "lifecycleStage" not in sent
        also = {"lifecycleStage": stage} if is_silent else {}
        return self._update(resource, record, sent, request, is_whole=is_whole, also=also, op="upsert")

    def _settled(self, resource: str, before: Mapping[str, Any], known: Fields) -> Fields:
        """Return what the CRM itself sets on a deal that enters a stage."""
        stage_id = known.get("stageId")
        if resource != "deals" or stage_id is None or stage_id == before.get("stageId"):
            return {}
        stage = self.tenant.tables["stages"].records.get(stage_id)
        probability = stage.fields["probability"] if stage else None
        settled: Fields = {} if known.get("probability") is not None else {"probability": probability}
        if self.s.status_follows_stage:
            status = "won" if probability == 100 else "lost" if probability == 0 else "open"
            closed_at = None if status == "open" else stamp(self.now())
            settled |= {"status": status, "actualCloseDate": closed_at}
        return settled

    # Bulk

    def _bulk_rows(self, body: Any, resource: str) -> list[Any]:
        if self.s.bulk_body != "array" and isinstance(body, dict) and isinstance(body.get(resource), list):
            rows: list[Any] = body[resource]
            return rows
        if self.s.bulk_body != "object" and isinstance(body, list):
            return body
        raise refused("", "The body is not of the expected shape.")

    def _bulk_row(
        self, result: dict[str, Any], place: int, row: Any, resource: str, request: Request
    ) -> None:
        try:
            twin = self._bulk_twin(row, resource)
            if twin:
                self._upserted(resource, twin, row, request)
                result["updated"] += 1
            else:
                result["createdIds"].append(self._insert(resource, row, request).id)
                result["created"] += 1
        except Refusal as refusal:
            result["failed"] += 1
            result["errors"].append(self._bulk_error(place, refusal))

    def _bulk_twin(self, row: Any, resource: str) -> Record | None:
        if not isinstance(row, dict):
            raise refused("", "A record must be an object.")
        twins = self.tenant.tables[resource].with_key(row)
        if twins and self.s.bulk_existing == "fails":
            raise Refusal(409, "conflict", "A record with this key already exists")
        return twins[0] if twins and self.s.bulk_existing == "updates" else None

    def _bulk_error(self, place: int, refusal: Refusal) -> Any:
        details = "; ".join(message for messages in refusal.errors.values() for message in messages)
        message = details or refusal.message
        if self.s.bulk_errors == "objects":
            return (
                {"index": place, "message": message} if self.s.bulk_errors_name_row else {"message": message}
            )
        return f"Row {place + 1}: {message}" if self.s.bulk_errors_name_row else message

    def _check_bulk(self, rows: list[Any], resource: str) -> None:
        for row in rows:
            self._bulk_twin(row, resource)
            self.rules.checked(resource, {**self.tenant.blanks[resource], **self.rules.known(resource, row)})


def _domain_key(fields: Fields) -> str | None:
    domain = fields.get("domain")
    return domain.strip().casefold() or None if isinstance(domain, str) else None


SIMULATOR = Rally
