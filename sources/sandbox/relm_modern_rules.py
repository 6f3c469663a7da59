"""What Relm's modern contract accepts: the fields of its four objects, value sets, custom fields, references.

Nothing is dropped silently: what is not known is refused with the options there are.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sources.sandbox.exchange import Refusal
from sources.sandbox.relm_modern_problems import invalid, invalid_reference, unknown_field, unknown_value
from sources.sandbox.relm_modern_switches import RelmModernSwitches
from sources.sandbox.relm_rules import is_date, is_number, is_time
from sources.sandbox.store import Tenant
from sources.sandbox.table import Fields

OBJECT = {"contacts": "contact", "companies": "company", "deals": "deal", "activities": "activity"}
TABLE_OF = {name: resource for resource, name in OBJECT.items()}
RECORDS = tuple(OBJECT)
PREFIX = {
    "contacts": "con",
    "companies": "cmp",
    "deals": "deal",
    "activities": "act",
    "pipelines": "pl",
    "enums": "enum",
    "fields": "fld",
    "types": "typ",
}

# Field -> what it takes. A reference names the resource it points at, `enum` the field's own value set.
FIELDS: dict[str, dict[str, str]] = {
    "contacts": {
        "first_name": "text",
        "last_name": "text",
        "email": "email",
        "phone": "text",
        "linkedin_url": "text",
        "type": "enum",
        "company_id": "companies",
        "custom_fields": "object",
    },
    "companies": {"name": "text", "domain": "text", "custom_fields": "object"},
    "deals": {
        "title": "text",
        "value_cents": "integer",
        "currency": "text",
        "pipeline": "pipeline",
        "stage": "stage",
        "company_id": "companies",
        "primary_contact_id": "contacts",
        "close_date": "date",
        "custom_fields": "object",
    },
    "activities": {
        "type": "enum",
        "body": "text",
        "contact_id": "contacts",
        "deal_id": "deals",
        "occurred_at": "time",
        "custom_fields": "object",
    },
}
NEEDED = {"companies": "name", "deals": "title"}
_NEVER_NULL = frozenset({"name", "title", "currency", "occurred_at", "custom_fields"})
_IDENTIFIERS = ("first_name", "last_name", "email", "phone", "linkedin_url", "company_id")

_TAKES: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "email": lambda value: isinstance(value, str) and _is_address(value),
    "url": lambda value: isinstance(value, str) and value.startswith(("http://", "https://")),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": is_number,
    "currency": is_number,
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "date": is_date,
    "time": is_time,
    "reference": lambda value: isinstance(value, str),
    "select": lambda value: isinstance(value, str),
    "multiselect": lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
}
DATA_TYPES = tuple(sorted(set(_TAKES) - {"integer", "object", "time"}))


@dataclass(frozen=True, slots=True)
class Rules:
    """Judge what is to be written against the fields, the workspace's set-up and the other records."""

    tenant: Tenant
    switches: RelmModernSwitches

    def known(self, resource: str, sent: Mapping[str, Any]) -> Fields:
        """Return the sent fields as the CRM keeps them; raises `Refusal` 422."""
        fields = FIELDS[resource]
        for name in sent:
            if name not in fields:
                raise unknown_field(name, fields)
        taken = {name: value for name, value in sent.items() if not self._is_ignored(value)}
        for name, value in taken.items():
            self._check(resource, name, fields[name], value)
        return self.switches.echo.fields(taken)

    def placed(self, start: Mapping[str, Any], known: Fields) -> Fields:
        """Return the pipeline and stage keys a deal comes to stand in; raises `Refusal` 422."""
        named = known.get("pipeline") or start.get("pipeline")
        pipeline = self.pipeline(named) if named else self.default_pipeline()
        stages = [stage["key"] for stage in pipeline["stages"]]
        stage = known.get("stage") or start.get("stage") or (stages[0] if stages else None)
        if stage not in stages:
            raise unknown_value("stage", stage, stages)
        return {"pipeline": pipeline["key"], "stage": stage}

    def complete(self, resource: str, result: Mapping[str, Any], sent: Mapping[str, Any]) -> None:
        """Raise `Refusal` 422 when a record as it would become lacks what it must have."""
        needed = NEEDED.get(resource)
        if needed and not (sent if self.switches.patch_needs_name else result).get(needed):
            raise invalid(f"{needed} is required", field=needed)
        if resource == "contacts" and not _is_identified(result):
            raise _unidentified("A contact needs a name, email, phone, LinkedIn URL, company or custom field")
        if resource == "activities" and not (result.get("contact_id") or result.get("deal_id")):
            raise invalid("An activity hangs on a contact or a deal", field="contact_id")
        for key, definition in self.registry(OBJECT[resource]).items():
            if definition["required"] and result["custom_fields"].get(key) in (None, ""):
                raise invalid("This field is required", field=f"custom_fields.{key}")

    def registry(self, object_type: str) -> dict[str, Fields]:
        """Return the custom field definitions of an object by key."""
        rows = (record.fields for record in self.tenant.tables["fields"])
        return {row["key"]: row for row in rows if row["object"] == object_type}

    def values(self, group: str) -> list[str]:
        """Return the values of an enum group."""
        rows = (record.fields for record in self.tenant.tables["enums"])
        return [row["value"] for row in rows if row["group"] == group]

    def pipeline(self, named: Any) -> Fields:
        """Return a pipeline by key or id; raises `Refusal` 422."""
        for record in self.tenant.tables["pipelines"]:
            if named in (record.id, record.fields["key"]):
                return record.fields
        keys = [record.fields["key"] for record in self.tenant.tables["pipelines"]]
        raise unknown_value("pipeline", named, keys)

    def default_pipeline(self) -> Fields:
        """Return the pipeline of deals that name none."""
        rows = [record.fields for record in self.tenant.tables["pipelines"]]
        return next((row for row in rows if row["is_default"]), rows[0])

    def _is_ignored(self, value: Any) -> bool:
        return value is None and self.switches.null == "ignored"

    def _check(self, resource: str, name: str, kind: str, value: Any) -> None:
        if value is None:
            if self.switches.null == "refused" or name in _NEVER_NULL:
                raise invalid(f"{name} must not be null", field=name)
        elif kind in OBJECT:
            self._check_reference(name, kind, value)
        elif kind == "enum":
            _check_value(name, value, self.values(f"{OBJECT[resource]}.{name}"))
        elif kind in _TAKES and not _TAKES[kind](value):
            raise invalid(f"{name} must be {kind}", field=name)
        elif kind == "object":
            self._check_custom(OBJECT[resource], value)

    def _check_reference(self, name: str, resource: str, id: Any) -> None:
        record = self.tenant.tables[resource].records.get(id) if isinstance(id, str) else None
        if record is None or record.fields["deleted"]:
            raise invalid_reference(name, OBJECT[resource])

    def _check_custom(self, object_type: str, held: Mapping[str, Any]) -> None:
        registry = self.registry(object_type)
        for key, value in held.items():
            name = f"custom_fields.{key}"
            definition = registry.get(key)
            if definition is None:
                if self.switches.unknown_custom == "refused":
                    raise unknown_field(name, [f"custom_fields.{known}" for known in registry])
            elif value is not None:
                self._check_defined(name, definition, value)

    def _check_defined(self, name: str, definition: Mapping[str, Any], value: Any) -> None:
        kind = definition["data_type"]
        if not _TAKES[kind](value):
            raise invalid(f"{name} must be {kind}", field=name)
        if definition["enum_group"]:
            for each in value if isinstance(value, list) else [value]:
                _check_value(name, each, self.values(definition["enum_group"]))


def _check_value(name: str, value: Any, options: Iterable[str]) -> None:
    if value not in (known := list(options)):
        raise unknown_value(name, value, known)


def _is_identified(result: Mapping[str, Any]) -> bool:
    held = [result.get(name) for name in _IDENTIFIERS] + list(result["custom_fields"].values())
    return any(value not in (None, "") for value in held)


def _unidentified(detail: str) -> Refusal:
    return Refusal(422, "identifier_required", detail)


def _is_address(text: str) -> bool:
    name, at, domain = text.strip().rpartition("@")
    return bool(name and at and "." in domain and " " not in text.strip())
