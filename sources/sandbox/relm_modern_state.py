"""The workspace of Relm's modern contract: versions, soft deletes, and records as the API shows them."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sources.sandbox.relm_modern_rules import FIELDS, OBJECT, PREFIX, RECORDS
from sources.sandbox.relm_modern_switches import RelmModernSwitches
from sources.sandbox.store import Clock, Origin, Tenant
from sources.sandbox.table import Fields, Record

_FIRST = {"version": 1, "deleted": False}


class Workspace(Tenant):
    """Hold one mode of one workspace; deleted records stay, flagged, until they are erased."""

    def __init__(self, name: str, now: Clock, switches: RelmModernSwitches, *, ids_from: int = 0) -> None:
        self.s = switches
        self.made = ids_from
        super().__init__(
            name,
            make_id=self._make_id,
            blanks=_blanks(),
            keys={"contacts": self._email_key},
            now=now,
            step=timedelta(microseconds=10 ** (6 - switches.fraction_digits)),
            lag=timedelta(seconds=switches.list_lag_s),
        )

    def update(
        self,
        resource: str,
        record: Record,
        fields: Mapping[str, Any],
        origin: Origin,
        *,
        is_replacing: bool = False,
        also: Mapping[str, Any] | None = None,
    ) -> Record:
        risen = {"version": record.fields["version"] + 1} if resource in OBJECT else {}
        also = {**(also or {}), **risen}
        return super().update(resource, record, fields, origin, is_replacing=is_replacing, also=also)

    def remove(self, resource: str, record: Record, origin: Origin) -> None:
        if resource not in OBJECT:
            super().remove(resource, record, origin)
            return
        with self.lock:
            flagged = {**record.fields, "deleted": True, "version": record.fields["version"] + 1}
            self._delay(record, record.fields)
            self.tables[resource].change(record, flagged, self.clock())
            self._book("delete", resource, record.id, {}, origin)
            self._announce(resource, record.id, "deleted", origin, record.updated_at)

    def restore(self, resource: str, record: Record, origin: Origin) -> Record:
        """Bring a deleted record back, booked as an update."""
        return self.update(resource, record, {"deleted": False}, origin)

    def erase(
        self, *, created_before: datetime | None = None, deleted_before: datetime | None = None
    ) -> None:
        """Take away for good what was created, or deleted, before a moment; nothing is booked."""
        for resource in RECORDS:
            for record in list(self.tables[resource]):
                is_old = created_before is not None and record.created_at <= created_before
                is_long_gone = deleted_before is not None and record.updated_at <= deleted_before
                if is_old or (is_long_gone and record.fields["deleted"]):
                    self.tables[resource].remove(record)

    def shown(self, resource: str, record: Record, mode: str) -> Fields:
        """Return a record of the four objects as the API shows it."""
        fields = {name: record.fields[name] for name in FIELDS[resource]}
        custom = fields.pop("custom_fields")
        stands = self._standing(fields) if resource == "deals" else {}
        return {
            "id": record.id,
            "object": OBJECT[resource],
            **fields,
            **stands,
            "custom_fields": custom,
            "version": record.fields["version"],
            "mode": mode,
            "created_at": self.stamp(record.created_at),
            "updated_at": self.stamp(record.updated_at),
            "deleted": record.fields["deleted"],
        }

    def stamp(self, moment: datetime) -> str:
        """Return a time as the API writes it."""
        text = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
        digits = self.s.fraction_digits
        return text[: 20 + digits if digits else 19] + "Z"

    def _standing(self, deal: Fields) -> Fields:
        rows = (record.fields for record in self.tables["pipelines"])
        pipeline = next((row for row in rows if row["key"] == deal["pipeline"]), None)
        stages = pipeline["stages"] if pipeline else []
        stage = next((stage for stage in stages if stage["key"] == deal["stage"]), None)
        return {
            "pipeline_name": pipeline["name"] if pipeline else None,
            "stage_label": stage["label"] if stage else None,
            "stage_type": stage["type"] if stage else None,
        }

    def _make_id(self, resource: str) -> str:
        self.made += 1
        return f"{PREFIX[resource]}_{self.made:010X}"

    def _email_key(self, fields: Fields) -> str | None:
        email = fields.get("email")
        if not isinstance(email, str) or not email.strip():
            return None
        if fields.get("deleted") and self.s.deleted_email == "free":
            return None
        return email.strip().casefold() if self.s.email_match == "folded" else email


def _blanks() -> dict[str, Fields]:
    made: dict[str, Fields] = {
        resource: {name: {} if kind == "object" else None for name, kind in fields.items()} | _FIRST
        for resource, fields in FIELDS.items()
    }
    made["companies"]["name"] = ""
    made["deals"] |= {"title": "", "currency": "USD"}
    made["activities"]["type"] = "note"
    made["pipelines"] = {"key": "", "name": "", "is_default": False, "stages": []}
    made["enums"] = {"group": "", "value": "", "label": ""}
    keys = {"object": "", "key": "", "label": "", "data_type": "text", "enum_group": None, "required": False}
    made["fields"] = dict(keys)
    made["types"] = {"key": "", "label": ""}
    return made
