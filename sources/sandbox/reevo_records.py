"""How Reevo's v2 shows records, describes their types, and takes attributes to write."""

from collections.abc import Mapping
from typing import Any

from sources.sandbox.exchange import Refusal, Request, Response, encode, reply
from sources.sandbox.reevo_contract import Contract, pathless
from sources.sandbox.reevo_filters import display_name, is_sortable, operators
from sources.sandbox.reevo_rules import (
    CUSTOM_OBJECT,
    RELATIONSHIPS,
    TABLE_OF,
    WRITE_ACTIONS,
    Attribute,
    Relationship,
    fixed_id,
)
from sources.sandbox.reevo_values import is_uuid, read, show
from sources.sandbox.store import Operation
from sources.sandbox.table import Fields, Record

API = "/api/v2"
ORGANIZATION = fixed_id("organization")
_STAMPS = ("id", "organization_id", "created_at", "updated_at")
_NEEDED = {"contact": "contacts", "account": "accounts", "opportunity": "opportunities", "task": "tasks"}


class Records(Contract):
    """Know v2's records; which paths lead to them is left to the routes."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._fields_version = 0

    def key_of(self, request: Request) -> str:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        return key.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")

    def refusal(self, status: int, code: str, message: str, errors: Mapping[str, Any]) -> Response:
        if code in ("not_found", "method_not_allowed"):
            return pathless(status)
        status = self.s.field_status if code.startswith("field_") else status
        error = {"code": code, "message": message, "field": errors.get("field")}
        if self.s.v2_error == "flat":
            return reply(error, status)
        return reply({self.s.v2_error: [error] if self.s.v2_error == "errors" else error}, status)

    def needed(self, request: Request) -> tuple[str, ...]:
        record_type, _, rest = request.path.removeprefix(f"{API}/").partition("/")
        if not self.s.v2_permissions or record_type not in {*_NEEDED, "activity"}:
            return ()
        is_reading = request.method == "GET" or rest == "_query"
        if record_type == "activity":
            return () if is_reading else ("activities.write",)
        return (f"{_NEEDED[record_type]}.{'read' if is_reading else 'write'}",)

    def is_list(self, request: Request) -> bool:
        is_query = request.method == "POST" and request.path.endswith("/_query")
        return is_query or (request.method == "GET" and "/relationship/" in request.path)

    # Records

    def table(self, record_type: str) -> str:
        """Return the table of a record type; raises `Refusal` 404."""
        if record_type not in TABLE_OF:
            raise Refusal(404, "unknown_record_type", "There is no such record type")
        return TABLE_OF[record_type]

    def record(self, record_type: str, id: str) -> Record:
        """Return a record; raises `Refusal` 404."""
        found = self.tenant.tables[self.table(record_type)].records.get(id)
        if found is None:
            raise Refusal(404, "record_not_found", "There is no such record")
        return found

    def show(self, record_type: str, record: Record) -> bytes:
        """Return a record as JSON; rendered anew once the organisation's custom fields have changed."""
        version = self.tenant.tables["fields"].version
        if version != self._fields_version:
            for table in self.tenant.tables.values():
                for kept in table:
                    kept.body = None
            self._fields_version = version
        if record.body is None:
            record.body = encode(self._shown(record_type, record))
        return record.body

    def one(self, record_type: str, record: Record, status: int, **beside: Any) -> Response:
        """Return the answer that shows one record."""
        more = b"".join(b",%b:%b" % (encode(name), encode(value)) for name, value in beside.items())
        return Response(status, b'{"data":%b%b}' % (self.show(record_type, record), more))

    def _shown(self, record_type: str, record: Record) -> Fields:
        stamps = {name: self.space.stamp(getattr(record, name)) for name in ("created_at", "updated_at")}
        fixed = {"id": record.id, "organization_id": ORGANIZATION, **stamps}
        has_stamps = self.s.stamps_in_attributes
        shown: Fields = {}
        for name, attribute in self.attributes(record_type).items():
            if name in _STAMPS and not has_stamps and name.endswith("_at"):
                continue
            value = fixed.get(name) if name in _STAMPS else self._kept(record_type, name, record)
            if value is not None or attribute.is_array or self.s.null_attributes != "left_out":
                shown[name] = show(attribute, value, self.s)
        made = {"id": record.id, "record_type": record_type, **stamps, "attributes": shown}
        return made | ({"metadata": record.fields["metadata"]} if record_type == "activity" else {})

    def _kept(self, record_type: str, name: str, record: Record) -> Any:
        if record_type == "contact" and name == "display_name":
            return display_name(record)
        if name == "is_archived":
            return bool(record.fields.get(name))
        return record.fields.get(self.kept_name(record_type, name))

    def attributes(self, record_type: str) -> dict[str, Attribute]:
        known = super().attributes(record_type)
        if self.s.archived == "flagged" and WRITE_ACTIONS[record_type] >= {"archive"}:
            known["is_archived"] = Attribute("boolean", is_creatable=False, is_updatable=False)
        return known

    # The description of a type

    def schema(self, record_type: str) -> Fields:
        """Return the description of a record type."""
        self.table(record_type)
        known = self.attributes(record_type)
        edges = RELATIONSHIPS[record_type]
        return {
            "api_name": record_type,
            "display_name": record_type.removeprefix("cus_object__").title(),
            "is_custom": record_type == CUSTOM_OBJECT,
            "is_junction": False,
            "supports_custom_fields": record_type not in ("meeting", "activity"),
            "description": None,
            "attributes": [self._described(name, held) for name, held in known.items()],
            "relationships": [_edge_described(name, held) for name, held in edges.items()],
        }

    def _described(self, name: str, held: Attribute) -> Fields:
        filters = list(operators(held))
        if name == "updated_at" and not self.s.updated_at_filter:
            filters = []
        return {
            "api_name": name,
            "display_name": name.removeprefix("cus_field__").replace("_", " ").title(),
            "is_creatable": self._is_open(name, is_allowed=held.is_creatable),
            "is_updatable": self._is_open(name, is_allowed=held.is_updatable),
            "type_info": {"is_array": held.is_array, "value_type": held.value_type},
            "is_required_on_create": held.is_required,
            "is_unique": held.is_unique,
            "is_custom": held.is_custom,
            "is_sortable": is_sortable(name, held, has_id=self.s.id_sortable),
            "is_filterable": bool(filters),
            "filter_operators": filters,
        }

    def _is_open(self, name: str, *, is_allowed: bool) -> bool:
        is_derived = name == "primary_email" and not self.s.primary_email_writable
        return is_allowed and not is_derived

    # Writing attributes

    def sent(self, request: Request) -> Fields:
        """Return the attributes in a body; raises `Refusal` when there are none."""
        attributes = request.json_object().get("attributes")
        if not isinstance(attributes, dict):
            raise field_refusal("field_required_missing", "attributes", "The body needs attributes")
        return attributes

    def kept(self, record_type: str, sent: Fields, *, is_new: bool) -> Fields:
        """Return what is kept of the sent attributes; raises `Refusal` for the first that will not do."""
        known = self.attributes(record_type)
        kept = {}
        for name, value in sent.items():
            held = known.get(name)
            if held is None:
                raise Refusal(
                    self.s.field_status, "unknown_field", "There is no such field", errors={"field": name}
                )
            is_allowed = held.is_creatable if is_new else held.is_updatable
            if not self._is_open(name, is_allowed=is_allowed):
                code = "field_not_creatable" if is_new else "field_not_updatable"
                raise field_refusal(code, name, "This field is kept by Reevo")
            kept[self.kept_name(record_type, name)] = read(name, held, value, self.resolve)
        for name, held in known.items():
            if is_new and held.is_required and kept.get(self.kept_name(record_type, name)) in (None, ""):
                raise field_refusal("field_required_missing", name, "This field is required")
        return kept

    def resolve(self, target: str, sent: Any) -> str:
        """Return the id of the record that a reference means; raises `Refusal` 404 or 409."""
        if isinstance(sent, dict) and isinstance(sent.get("related_record_match"), dict):
            found = self.matching(target, sent["related_record_match"])
            if len(found) > 1:
                raise Refusal(409, "ambiguous_match", "More than one record matches")
            id = found[0].id if found else None
        else:
            id = sent.get("related_record_id") if isinstance(sent, dict) else sent
        if not isinstance(id, str) or id not in self.tenant.tables[TABLE_OF.get(target, "users")].records:
            raise Refusal(404, "target_record_not_found", f"There is no such {target}")
        return id

    def matching(self, record_type: str, match: Fields) -> list[Record]:
        """Return the records with a unique value; raises `Refusal` for what cannot be matched by."""
        if len(match) != 1:
            raise self._no_match("Match by exactly one field")
        name, value = next(iter(match.items()))
        if record_type == "user" and name in ("email", "primary_email"):
            return [user] if (user := self.user(value)) else []
        keys = {"contact": self.s.contact_match, "account": self.s.account_match_keys}.get(record_type, ())
        if name in keys:
            return self._matched(record_type, name, value)
        held = self.attributes(record_type).get(name) if record_type in TABLE_OF else None
        if held is None or not (held.is_unique and held.is_custom):
            raise self._no_match(f"{name} is no unique field")
        wanted = read(name, held, value, self.resolve)
        return [row for row in self.tenant.tables[TABLE_OF[record_type]] if row.fields.get(name) == wanted]

    def _matched(self, record_type: str, name: str, value: Any) -> list[Record]:
        if name == "id":
            found = self.tenant.tables[TABLE_OF[record_type]].records.get(value) if is_uuid(value) else None
            return [found] if found else []
        if name == "domain_name":
            return self.accounts_at(value)
        item = value[0] if isinstance(value, list) and value else value
        return self.contacts_at(item.get("email") if isinstance(item, dict) else item)

    def _no_match(self, message: str) -> Refusal:
        return Refusal(self.s.field_status, "invalid_matching_field", message)

    def check_unique(self, record_type: str, kept: Fields, own_id: str | None) -> None:
        """Raise `Refusal` when another record holds what only one may."""
        for name, held in self.attributes(record_type).items():
            value = kept.get(name)
            if held.is_custom and held.is_unique and value is not None:
                rows = self.tenant.tables[TABLE_OF[record_type]]
                if any(row.fields.get(name) == value and row.id != own_id for row in rows):
                    raise field_refusal("field_value_invalid", name, "Another record has this value")
        if record_type != "contact" or self.s.duplicates == "allowed":
            return
        items = kept.get("contact_emails") or []
        for email in [kept.get("primary_email"), *(item["email"] for item in items)]:
            if email and any(twin.id != own_id for twin in self.contacts_at(email)):
                raise field_refusal("field_value_invalid", "contact_emails", "Another contact has it")

    def written(
        self,
        record_type: str,
        record: Record | None,
        kept: Fields,
        request: Request,
        sent: Fields,
        *,
        op: Operation,
    ) -> Record:
        """Create or change a record under the rules."""
        self.check_unique(record_type, kept, record.id if record else None)
        self._check_criteria(record, kept)
        if record is None:
            return self.insert(TABLE_OF[record_type], kept, request, sent, op=op)
        return self.update(TABLE_OF[record_type], record, kept, request, sent, op=op)

    def _check_criteria(self, record: Record | None, kept: Fields) -> None:
        after = {**(record.fields if record else {}), **kept}
        for stage, needed in self.s.entrance_criteria:
            if kept.get("stage") == stage and after.get(needed) in (None, "", []):
                message = f"The stage needs {needed}"
                raise Refusal(422, "stage_entrance_criteria_not_met", message, errors={"field": needed})


def field_refusal(code: str, name: str, message: str) -> Refusal:
    """Return the refusal of a field; its status is the switch's."""
    return Refusal(422, code, message, errors={"field": name})


def _edge_described(name: str, held: Relationship) -> Fields:
    return {
        "api_name": name,
        "related_object_api_name": held.target,
        "junction_object_api_name": held.kind if held.is_typed else None,
        "is_creatable": True,
        "is_updatable": held.is_typed,
        "is_custom": False,
        "is_array": True,
    }
