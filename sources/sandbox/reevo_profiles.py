"""How Reevo's v1 shows accounts, contacts and opportunities, and what its bodies become when kept."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from sources.sandbox.exchange import Refusal, Response, reply
from sources.sandbox.reevo_contract import Contract
from sources.sandbox.reevo_rules import (
    PIPELINE,
    TYPE_OF,
    domain_of,
    opportunity_state,
    primary,
    stage_named,
)
from sources.sandbox.reevo_values import from_text, to_text
from sources.sandbox.table import Fields, Record

API = "/api/v1/public"
_URLS = ("linkedin_url", "facebook_url", "zoominfo_url", "x_url")
_CONTACT = ("first_name", "last_name", "middle_name", "title", "department")
_RENAMED = {"name": "display_name", "company": "display_name", "account_website": "official_website"}


class Profiles(Contract):
    """Turn kept records into v1's profiles, and v1's bodies into fields to keep."""

    def profile(self, resource: str, record: Record) -> Fields:
        """Return a record as v1 shows it."""
        made: Fields = {"id": record.id, **_PROFILES[resource](self, record)}
        if resource in ("accounts", "contacts", "opportunities"):
            made["owner_email"] = self.user_email(record.fields["owner_user_id"])
            made["custom_fields"] = self._custom_shown(resource, record)
        return made

    def account(self, record: Record) -> Fields:
        """Return the profile of an account, as in the vendor's example."""
        held = record.fields
        stage = held["current_stage_id"]
        return {
            "name": held["display_name"],
            "status": stage.upper() if stage else None,
            "official_website": held["official_website"],
            "domain_name": primary(held["domains"], "domain_name"),
            **{name: held[name] for name in _URLS},
        }

    def contact(self, record: Record) -> Fields:
        """Return the profile of a contact, with links to accounts and opportunities."""
        held = record.fields
        accounts = self.related("contact_account", "accounts", record.id)
        deals = self.related("contact_opportunity", "opportunities", record.id)
        return {
            "email": held["primary_email"],
            "phone_number": held["primary_phone_number"],
            **{name: held[name] for name in (*_CONTACT, *_URLS)},
            "accounts": [{"id": row.id, "name": row.fields["display_name"]} for row in accounts],
            "opportunities": [{"id": row.id, "display_name": row.fields["display_name"]} for row in deals],
        }

    def opportunity(self, record: Record) -> Fields:
        """Return the profile of an opportunity."""
        held = record.fields
        stage = stage_named("opportunity_stage", held["stage"])
        names = (
            "display_name account_id status pipeline_name primary_contact_email additional_contact_emails"
            " next_step_details next_step_due_at"
        ).split()
        return {
            **{name: held[name] for name in names},
            "stage_name": stage.display_value if stage else None,
            "amount": self._amount(held["amount"]),
        }

    def related(self, kind: str, resource: str, id: str) -> list[Record]:
        """Return the records at the other ends of a record's edges, the primary one first."""
        edges = sorted(self.space.edges_of(kind, id), key=lambda pair: not pair[0].fields["is_primary"])
        records = self.tenant.tables[resource].records
        return [records[other] for _, other in edges if other in records]

    def kept_account(self, sent: Fields) -> Fields:
        """Return what is kept of an account's body."""
        kept = self._renamed(sent, (*_URLS, "official_website", "name"))
        if domain := domain_of(sent.get("domain_name")):
            kept["domains"] = [{"domain_name": domain, "is_primary": True}]
        return kept | self._owned(sent, "owner_email") | self._custom("accounts", sent, "custom_fields")

    def kept_company(self, sent: Fields) -> Fields:
        """Return what is kept of the account's half of an account_contact body."""
        urls = {f"account_{name}": name for name in _URLS}
        kept = self._renamed(sent, ("company", "account_website", *urls), urls)
        kept |= self._owned(sent, "account_owner_email")
        return kept | self._custom("accounts", sent, "account_custom_fields")

    def kept_contact(self, sent: Fields) -> Fields:
        """Return what is kept of the contact's half of an account_contact body."""
        urls = {f"contact_{name}": name for name in _URLS}
        kept = self._renamed(sent, (*_CONTACT, "phone_number", *urls), urls)
        if "phone_number" in kept:
            kept["primary_phone_number"] = kept.pop("phone_number")
        kept |= self._owned(sent, "contact_owner_email")
        return kept | self._custom("contacts", sent, "contact_custom_fields")

    def kept_opportunity(self, sent: Fields) -> Fields:
        """Return what is kept of an opportunity's body."""
        names = (
            "display_name account_id amount primary_contact_email additional_contact_emails"
            " next_step_details next_step_due_at"
        ).split()
        kept = self._renamed(sent, names)
        if kept.get("amount") is not None:
            kept["amount"] = f"{Decimal(str(kept['amount'])):f}"
        if sent.get("pipeline_name") not in (None, PIPELINE) and self.s.unknown_pipeline == "refused":
            raise self.broken("There is no pipeline of this name")
        kept |= self._owned(sent, "owner_email") | self._custom("opportunities", sent, "custom_fields")
        return kept

    def broken(self, message: str) -> Refusal:
        """Return the refusal of a body that is well-formed and cannot stand."""
        return Refusal(self.s.rule_status, "rule", message)

    def record(self, resource: str, id: str) -> Record:
        """Return a record; raises `Refusal` 404."""
        found = self.tenant.tables[resource].records.get(id)
        if found is None:
            raise Refusal(404, "missing", f"There is no such record among {resource}")
        return found

    def answer(self, shown: Any, status: int) -> Response:
        """Return an answer, flat or wrapped as the switch says."""
        return reply({"data": shown} if self.s.single == "data" else shown, status)

    def single(self, resource: str, record: Record) -> Response:
        """Return the answer that shows one record."""
        return self.answer(self.profile(resource, record), 200)

    def created(self, resource: str, record: Record) -> Response:
        """Return the answer to a create, as much of the record as the switch lets it tell."""
        if self.s.create_answer == "empty":
            return reply({}, self.s.create_status)
        shown = self.profile(resource, record) if self.s.create_answer == "full" else {"id": record.id}
        return self.answer(shown, self.s.create_status)

    def owner(self, email: str) -> str | None:
        """Return the id of an owner; for a stranger, as the switch says, None or `Refusal`."""
        user = self.user(email)
        if user is None and self.s.unknown_owner == "refused":
            raise self.broken("There is no user with this e-mail address")
        return user.id if user else None

    def _owned(self, sent: Fields, name: str) -> Fields:
        if sent.get(name) is None:
            return {"owner_user_id": None} if name in sent and self.s.null_clears_v1 else {}
        owner = self.owner(sent[name])
        return {"owner_user_id": owner} if owner else {}

    def _renamed(self, sent: Fields, names: Any, renamed: Mapping[str, str] = _RENAMED) -> Fields:
        """Return the sent fields under the names they are kept by; null is not set, or clears."""
        taken = {name: sent[name] for name in names if name in sent}
        if not self.s.null_clears_v1:
            taken = {name: value for name, value in taken.items() if value is not None}
        both = {**_RENAMED, **renamed}
        return {both.get(name, name): value for name, value in taken.items()}

    def _custom(self, resource: str, sent: Fields, name: str) -> Fields:
        known = self.custom(TYPE_OF[resource])
        by_id = {row.id: row.fields["api_name"] for row in self.tenant.tables["fields"]}
        kept: Fields = {}
        for given, value in (sent.get(name) or {}).items():
            field = by_id.get(given, given)
            if field not in known:
                if self.s.unknown_custom_field == "refused":
                    raise self.broken(f"There is no custom field {given}")
            elif value is not None or self.s.null_clears_v1:
                kept[field] = self._converted(field, known[field], value)
        return kept

    def _converted(self, field: str, attribute: Any, value: Any) -> Any:
        try:
            return from_text(field, attribute, value)
        except Refusal as refusal:
            raise self.broken(refusal.message) from refusal

    def _custom_shown(self, resource: str, record: Record) -> Fields | None:
        held = ((name, record.fields.get(name)) for name in self.custom(TYPE_OF[resource]))
        return {name: to_text(value) for name, value in held if value not in (None, [])} or None

    def _amount(self, amount: str | None) -> Any:
        if amount is None or self.s.amounts == "string":
            return amount
        return int(amount) if "." not in amount else float(amount)


def is_closed(stage: str) -> bool:
    """Say whether a stage ends an opportunity."""
    return opportunity_state(stage)["outcome"] != "OPEN"


_PROFILES: dict[str, Callable[[Profiles, Record], Fields]] = {
    "accounts": Profiles.account,
    "contacts": Profiles.contact,
    "opportunities": Profiles.opportunity,
    "tasks": lambda self, record: {"title": record.fields["title"], "status": record.fields["status"]},
    "activities": lambda self, record: {"metadata": record.fields["metadata"]},
    "users": lambda self, record: record.fields,
    "mailboxes": lambda self, record: {
        "email": record.fields["email"],
        "owner_user_email": self.user_email(record.fields["owner_user_id"]),
    },
    "enrollments": lambda self, record: record.fields,
}
