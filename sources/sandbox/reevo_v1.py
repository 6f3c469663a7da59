"""Reevo's v1 (`/api/v1/public`): flat JSON, mostly writes, searches with limit and offset, no time stamps."""

from collections.abc import Mapping
from typing import Any

from sources.sandbox import reevo_bodies as bodies
from sources.sandbox.exchange import Refusal, Request, Response, reply
from sources.sandbox.reevo_contract import pathless
from sources.sandbox.reevo_profiles import API, is_closed
from sources.sandbox.reevo_rules import CLOSED_REASONS, FREE_MAIL, domain_of, stage_named
from sources.sandbox.reevo_searches import Searches
from sources.sandbox.reevo_state import folded
from sources.sandbox.simulator import Grant, route
from sources.sandbox.table import Fields, Record

_BY_ID = r"/(?P<id>[^/]+)"
_ERRORS = {
    "unauthorized": "UnauthorizedError",
    "forbidden": "ForbiddenError",
    "missing": "NotFoundError",
    "conflict": "ConflictError",
    "rule": "BadRequestError",
    "rate_limited": "TooManyRequestsError",
    "quota": "QuotaExceededError",
}
_NEEDED = {
    "account_contact": ("accounts.write", "contacts.write"),
    "account_and_contact_retrieval": ("accounts.read", "contacts.read"),
    "tasks": ("tasks.write",),
    "manual_activities": ("activities.write",),
    "users": ("users.read",),
    "mailboxes": ("mailboxes.read",),
    "sequence_enrollments": ("sequence_enrollments.write",),
}


class PublicV1(Searches):
    """Answer as Reevo's v1 does."""

    def key_of(self, request: Request) -> str:
        return request.headers.get("x-api-key", "")

    def refusal(self, status: int, code: str, message: str, errors: Mapping[str, Any]) -> Response:
        if code in ("not_found", "method_not_allowed"):
            return pathless(status)
        if code == "validation":
            return reply(errors, status)
        body = {"error_response_type": "GENERIC", "error": _ERRORS.get(code, "InternalServerError")}
        return reply({**body, "message": message, "details": None}, status)

    def is_list(self, request: Request) -> bool:
        return request.path.endswith("/search")

    def needed(self, request: Request) -> tuple[str, ...]:
        name, _, rest = request.path.removeprefix(f"{API}/").partition("/")
        if name in _NEEDED:
            return _NEEDED[name]
        is_reading = request.method == "GET" or rest == "search"
        return (f"{name}.{'read' if is_reading else 'write'}",)

    def stray(self, request: Request) -> Refusal | None:
        if request.path == f"{API}/contacts/search" and not self.s.contacts_search:
            return Refusal(405, "method_not_allowed", "")
        return super().stray(request)

    def _grant(self, request: Request) -> Grant:
        details = []
        if "x-api-key" not in request.headers:
            details.append(bodies.missing(("header", "x-api-key"), None))
        if self.s.payload_type == "required" and request.param("payload_type") != "json":
            details.append(bodies.missing(("query", "payload_type"), None))
        if details:
            raise bodies.unprocessable(details)
        return super()._grant(request)

    # Accounts and contacts

    @route("POST", f"{API}/account_contact")
    def upsert(self, request: Request) -> Response:
        sent = bodies.read(request, "account_contact")
        contact_fields, company_fields = self.kept_contact(sent), self.kept_company(sent)
        account = self._upserted_account(sent, company_fields, request)
        contact = self._upserted_contact(sent, contact_fields, request)
        if account and account not in self.related("contact_account", "accounts", contact.id):
            self.link("contact_account", (contact.id, account.id), request, is_primary=True)
        if self.s.upsert_answer == "empty":
            return reply({}, self.s.create_status)
        if self.s.upsert_answer == "ids":
            ids = {"contact_id": contact.id, "account_id": account.id if account else None}
            return reply(ids, self.s.create_status)
        shown = {"account": account and self.profile("accounts", account)}
        return self.answer(shown | {"contact": self.profile("contacts", contact)}, self.s.create_status)

    @route("POST", f"{API}/accounts")
    def create_account(self, request: Request) -> Response:
        sent = bodies.read(request, "accounts")
        kept = self.kept_account(sent)
        domain = domain_of(sent.get("domain_name"))
        if self.s.duplicates == "refused" and self.accounts_at(domain):
            raise Refusal(409, "conflict", "There is an account with this domain")
        return self.created("accounts", self.insert("accounts", kept, request, sent))

    @route("PATCH", f"{API}/accounts{_BY_ID}")
    def patch_account(self, request: Request, id: str) -> Response:
        record = self.record("accounts", bodies.path_id(id, "account_id"))
        sent = bodies.read(request, "accounts.patch")
        kept = self.kept_account({name: value for name, value in sent.items() if name != "domain_name"})
        return self.single("accounts", self.update("accounts", record, kept, request, sent))

    @route("GET", API + r"/(?P<resource>accounts|contacts|opportunities)" + _BY_ID)
    def read(self, request: Request, resource: str, id: str) -> Response:
        name = {"accounts": "account_id", "contacts": "contact_id"}.get(resource, "opportunity_id")
        found = self.tenant.tables[resource].records.get(bodies.path_id(id, name))
        if found is None and self.s.missing_record == "null":
            return reply(None)
        return self.single(resource, found or self.record(resource, id))

    # Opportunities

    @route("POST", f"{API}/opportunities")
    def create_opportunity(self, request: Request) -> Response:
        sent = bodies.read(request, "opportunities")
        kept = self.kept_opportunity(sent)
        self.record("accounts", sent["account_id"])
        record = self.insert("opportunities", kept, request, sent)
        self._link_people(record, sent, request)
        return self.created("opportunities", record)

    @route("PATCH", f"{API}/opportunities{_BY_ID}")
    def patch_opportunity(self, request: Request, id: str) -> Response:
        record = self.record("opportunities", bodies.path_id(id, "opportunity_id"))
        sent = bodies.read(request, "opportunities.patch")
        kept = self.kept_opportunity(sent)
        if kept.get("account_id"):
            self.record("accounts", kept["account_id"])
        if self.s.additional_contacts == "adds" and "additional_contact_emails" in kept:
            before = record.fields["additional_contact_emails"]
            both = [*before, *(kept["additional_contact_emails"] or [])]
            kept["additional_contact_emails"] = list(dict.fromkeys(both))
        self.update("opportunities", record, kept, request, sent)
        self._link_people(record, sent, request)
        return self.single("opportunities", record)

    @route("POST", f"{API}/opportunities{_BY_ID}/shift_stage")
    def shift_stage(self, request: Request, id: str) -> Response:
        record = self.record("opportunities", bodies.path_id(id, "opportunity_id"))
        sent = bodies.read(request, "shift_stage")
        stage = stage_named("opportunity_stage", sent["target_stage_name"])
        if stage is None:
            raise self.broken("There is no stage of this name")
        reasons = sent.get("closed_reason_names") or []
        if is_closed(stage.api_name) and not reasons:
            raise self.broken("closed_reason_names is needed for a closed stage")
        if not set(reasons) <= set(CLOSED_REASONS):
            raise self.broken("There is no such closed reason")
        detail = sent.get("closed_reason_custom_detail")
        fields = {"closed_reason_names": reasons, "closed_reason_custom_detail": detail}
        shifted = {"stage": stage.api_name, **fields}
        return self.single("opportunities", self.update("opportunities", record, shifted, request, sent))

    # Write-only: tasks, activities, enrolments

    @route("POST", f"{API}/tasks")
    def create_task(self, request: Request) -> Response:
        sent = bodies.read(request, "tasks")
        kept = {name: value for name, value in sent.items() if value is not None}
        kept["owner_user_id"] = self.owner(kept.pop("owner_email"))
        if sent.get("account_id"):
            self.record("accounts", sent["account_id"])
        record = self.insert("tasks", kept, request, sent)
        ends = [
            ("task_contact", person.id)
            for email in sent.get("contact_emails") or []
            for person in self.contacts_at(email)
        ]
        ends += [("task_account", sent["account_id"])] if sent.get("account_id") else []
        for kind, id in ends:
            self.link(kind, (record.id, id), request)
        return self.created("tasks", record)

    @route("POST", f"{API}/manual_activities")
    def create_activity(self, request: Request) -> Response:
        sent = bodies.read(request, "manual_activities")
        meta = bodies.checked(sent["metadata"], "manual_activities.metadata", ("body", "metadata"))
        for resource, ids in (
            ("accounts", [sent.get("account_id")]),
            ("contacts", sent.get("contact_ids") or []),
            ("opportunities", [sent.get("pipeline_id")]),
            ("sequences", [sent.get("sequence_id")]),
        ):
            for id in ids:
                if id is not None:
                    self.record(resource, id)
        kept = self.manual_activity(meta, {**sent, "opportunity_id": sent.get("pipeline_id")})
        return self.created("activities", self.insert("activities", kept, request, sent))

    @route("POST", f"{API}/sequence_enrollments")
    def enroll(self, request: Request) -> Response:
        sent = bodies.read(request, "sequence_enrollments")
        contacts = self.contacts_at(sent["contact_email"])
        if not contacts:
            raise Refusal(404, "missing", "There is no contact with this e-mail address")
        self.record("sequences", sent["sequence_id"])
        enrolled = {row.fields["contact_id"] for row in self.tenant.tables["enrollments"]}
        if contacts[0].id in enrolled:
            raise Refusal(409, "conflict", "The contact is in a sequence")
        box = self._mailbox(sent.get("mailbox_email"), contacts[0])
        kept = {"contact_id": contacts[0].id, "sequence_id": sent["sequence_id"], "mailbox_id": box.id}
        return self.created("enrollments", self.insert("enrollments", kept, request, sent))

    # What the above is made of

    def _upserted_account(self, sent: Fields, kept: Fields, request: Request) -> Record | None:
        domain = self._company_domain(sent)
        found = self._matching_account(domain, sent.get("company"))
        if found:
            return self.update("accounts", found, kept, request, sent, op="upsert") if kept else found
        name = sent.get("company") or domain
        if not name:
            return None
        domains = {"domains": [{"domain_name": domain, "is_primary": True}]} if domain else {}
        return self.insert("accounts", {"display_name": name, **kept, **domains}, request, sent, op="upsert")

    def _company_domain(self, sent: Fields) -> str | None:
        if domain := domain_of(sent.get("account_website")):
            return domain
        domain = str(sent["email"]).rpartition("@")[2].strip().lower()
        return None if domain in FREE_MAIL and not self.s.free_mail_accounts else domain

    def _matching_account(self, domain: str | None, name: str | None) -> Record | None:
        by_domain = self.accounts_at(domain) if domain else []
        if by_domain and self.s.account_match == "domain":
            return by_domain[0]
        if not name or (domain and self.s.account_match == "domain"):
            return None
        accounts = self.tenant.tables["accounts"]
        return next((row for row in accounts if row.fields["display_name"] == name), None)

    def _upserted_contact(self, sent: Fields, kept: Fields, request: Request) -> Record:
        found = self.contacts_at(sent["email"])
        if found:
            return self.update("contacts", found[0], kept, request, sent, op="upsert")
        kept["primary_email"] = sent["email"]
        return self.insert("contacts", kept, request, sent, op="upsert")

    def _link_people(self, record: Record, sent: Fields, request: Request) -> None:
        """Join an opportunity to the contacts that its addresses name."""
        emails = [sent.get("primary_contact_email"), *(sent.get("additional_contact_emails") or [])]
        linked = {id for _, id in self.space.edges_of("contact_opportunity", record.id)}
        for place, email in enumerate(emails):
            for person in self.contacts_at(email):
                if person.id not in linked:
                    self.link("contact_opportunity", (person.id, record.id), request, is_primary=not place)

    def _mailbox(self, email: str | None, contact: Record) -> Record:
        boxes = list(self.tenant.tables["mailboxes"])
        if email:
            fits = [box for box in boxes if folded(box.fields["email"]) == folded(email)]
        else:
            fits = [box for box in boxes if box.fields["owner_user_id"] == contact.fields["owner_user_id"]]
        if not fits:
            raise self.broken("There is no mailbox to send from")
        return fits[0]
