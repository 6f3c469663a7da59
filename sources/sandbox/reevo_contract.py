"""What v1 and v2 of Reevo do alike: keys, permissions, quota, and writing to the one workspace."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from sources.sandbox.exchange import Refusal, Request, Response, reply
from sources.sandbox.limits import Allowance, RateLimit
from sources.sandbox.people import World
from sources.sandbox.reevo_people import fill
from sources.sandbox.reevo_rules import (
    ATTRIBUTES,
    DEFAULTS,
    PERMISSIONS,
    TYPE_OF,
    Attribute,
    lacking,
)
from sources.sandbox.reevo_state import Workspace, folded
from sources.sandbox.reevo_switches import ReevoSwitches
from sources.sandbox.simulator import Grant, Simulator
from sources.sandbox.store import Clock, Operation
from sources.sandbox.table import Fields, Record

_ITEM_LISTS = {"contact_emails": "email", "contact_phone_numbers": "phone_number"}


class Contract(Simulator):
    """Answer for one contract; the second shares the state of the first."""

    name = "reevo"
    key_prefix = ""
    scopes = PERMISSIONS
    switches = ReevoSwitches
    people_offset = 0.1

    def __init__(
        self, *, seed: int, now: Clock, switches: ReevoSwitches, beside: "Contract | None" = None
    ) -> None:
        super().__init__(seed=seed, now=now, switches=switches)
        self.s = switches
        self.space: Workspace = beside.space if beside else Workspace(self.name, now, switches)
        self.tenant = self.space
        self.spent: list[str] = beside.spent if beside else []
        self.grants = beside.grants if beside else []
        self.rate = beside.rate if beside else _rate(switches)

    def populate(self, world: World) -> None:
        fill(self.space, world)

    @abstractmethod
    def needed(self, request: Request) -> tuple[str, ...]:
        """Return the permissions a request takes."""

    def permit(self, grant: Grant, request: Request) -> None:
        self.spent.append(request.id)
        if self.s.quota is not None and len(self.spent) > self.s.quota:
            raise Refusal(429, "quota", "The organisation's quota of public requests is used up")
        if missing := lacking(grant.scopes, self.needed(request)):
            names = ", ".join(missing)
            raise Refusal(self.s.permission_status, "forbidden", f"The API key lacks permissions: {names}")

    def tells_retry_after(self) -> bool:
        return self.s.retry_after

    def rate_headers(self, allowance: Allowance) -> dict[str, str]:
        return allowance.headers() if self.s.rate_headers else {}

    def stray(self, request: Request) -> Refusal | None:
        """Return the refusal of a path or method that is not served; no key is looked at before."""
        verbs = [verb for verb, pattern, _ in self._routes if pattern.fullmatch(request.path)]
        if request.method in verbs:
            return None
        return Refusal(405, "method_not_allowed", "") if verbs else Refusal(404, "not_found", "")

    def _judge(self, request: Request, allowance: Allowance | None) -> Response:
        if refusal := self.stray(request):
            return self.refused(refusal)
        return super()._judge(request, allowance)

    def _grant(self, request: Request) -> Grant:
        try:
            return super()._grant(request)
        except Refusal as refusal:
            if any(grant.key == self.key_of(request) for grant in self.grants):
                raise Refusal(self.s.expired_status, "unauthorized", "API key has expired") from refusal
            raise

    # What is known of records

    def attributes(self, record_type: str) -> dict[str, Attribute]:
        """Return the attributes of a record type, those made by the organisation among them."""
        known = {**ATTRIBUTES[record_type], **self.custom(record_type)}
        if record_type == "account" and self.s.account_name == "name":
            known["name"] = known.pop("display_name")
        return known

    def kept_name(self, record_type: str, name: str) -> str:
        """Return the name by which an attribute's value is kept."""
        return "display_name" if record_type == "account" and name == "name" else name

    def custom(self, record_type: str) -> dict[str, Attribute]:
        """Return the custom fields of a record type by API name."""
        rows = (record.fields for record in self.tenant.tables["fields"])
        return {
            row["api_name"]: Attribute(
                row["value_type"],
                row["is_array"],
                is_required=row["is_required"],
                is_unique=row["is_unique"],
                is_custom=True,
                options=tuple(row["options"]),
            )
            for row in rows
            if row["record_type"] == record_type
        }

    def user(self, email: Any) -> Record | None:
        """Return the user with an address."""
        users = self.tenant.tables["users"]
        return next((user for user in users if folded(user.fields["email"]) == folded(email)), None)

    def user_email(self, id: Any) -> str | None:
        """Return the address of a user."""
        user = self.tenant.tables["users"].records.get(id)
        return None if user is None else str(user.fields["email"])

    def contacts_at(self, email: Any) -> list[Record]:
        """Return the contacts with an address, whichever of theirs it is."""
        return self.space.contacts.holding(folded(email) or "")

    def accounts_at(self, domain: Any) -> list[Record]:
        """Return the accounts with a domain."""
        return self.space.accounts.holding(folded(domain) or "")

    # Writing

    def insert(
        self, resource: str, fields: Fields, request: Request, sent: Fields, *, op: Operation = "create"
    ) -> Record:
        """Add a record, booked with what was sent."""
        origin = self.origin(request, op=op, sent=sent)
        return self.tenant.insert(resource, self._ready(resource, fields), origin)

    def update(
        self,
        resource: str,
        record: Record,
        fields: Fields,
        request: Request,
        sent: Fields,
        *,
        op: Operation = "update",
    ) -> Record:
        """Change a record, booked with what was sent."""
        ready = self._ready(resource, fields)
        is_same = all(record.fields.get(name) == value for name, value in ready.items())
        if is_same and not self.s.same_values_touch:
            return record
        return self.tenant.update(resource, record, ready, self.origin(request, op=op, sent=sent))

    def link(self, kind: str, ends: tuple[str, str], request: Request, **fields: Any) -> Record:
        """Make or change the edge between two records; the first primary edge demotes the others."""
        edge = next((edge for edge, other in self.space.edges_of(kind, ends[0]) if other == ends[1]), None)
        if fields.get("is_primary"):
            for other, _ in self.space.edges_of(kind, ends[0]):
                other.fields = {**other.fields, "is_primary": other is edge}
        if edge:
            self.tenant.update("edges", edge, fields, self.origin(request))
        else:
            new = {"kind": kind, "from_id": ends[0], "to_id": ends[1], **fields}
            edge = self.tenant.insert("edges", new, self.origin(request))
        if self.s.relationships_touch:
            self.touch_ends(edge)
        return edge

    def manual_activity(self, meta: Fields, links: Fields) -> Fields:
        """Return what is kept of an activity logged by hand."""
        meta = {"category": "OTHER", **{name: value for name, value in meta.items() if value is not None}}
        kinds = {"type": "MANUAL", "sub_type": meta["category"], "status": "COMPLETED"}
        names = ("account_id", "contact_ids", "opportunity_id", "sequence_id")
        linked = {name: links[name] for name in names if links.get(name) is not None}
        return {**kinds, "display_name": meta["subject"], "metadata": meta, **linked}

    def touch_ends(self, edge: Record) -> None:
        """Stamp the records at both ends of an edge."""
        for end in ("from_id", "to_id"):
            for resource in TYPE_OF:
                if edge.fields[end] in self.tenant.tables[resource].records:
                    self.space.touch(resource, edge.fields[end])

    def _ready(self, resource: str, fields: Mapping[str, Any]) -> Fields:
        """Return fields as they are kept: bent by the echo, defaults for null, items with id and primary."""
        kept = self.s.echo.fields(fields)
        for name, default in DEFAULTS.get(resource, {}).items():
            if name in kept and kept[name] is None:
                kept[name] = default
        for name, inner in _ITEM_LISTS.items():
            if kept.get(name):
                kept[name] = self._items(inner, kept[name])
        return kept

    def _items(self, inner: str, items: list[Fields]) -> list[Fields]:
        first = next((place for place, item in enumerate(items) if item.get("is_primary")), 0)
        return [
            self.space.item(inner, item[inner], is_primary=place == first, labels=item.get("labels"))
            | ({"id": item["id"]} if "id" in item else {})
            for place, item in enumerate(items)
        ]


def _rate(switches: ReevoSwitches) -> RateLimit | None:
    limit, counts = switches.rate_limit, switches.refused_requests_count
    return RateLimit(limit, switches.rate_window_s, switches.rate_window, counts) if limit else None


def pathless(status: int) -> Response:
    """Return the answer to a path or a method that the service does not know."""
    return reply({"detail": "Not Found" if status == 404 else "Method Not Allowed"}, status)
