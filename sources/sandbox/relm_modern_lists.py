"""How Relm's modern contract lists: a fixed set of exact filters, `q`, and a keyset over (created_at, id)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sources.sandbox.exchange import Request, Response, encode
from sources.sandbox.relm_lists import Cursor, invalid_cursor
from sources.sandbox.relm_modern_problems import bad_request
from sources.sandbox.relm_modern_switches import RelmModernSwitches
from sources.sandbox.table import Fields, Record

CONTROLS = ("limit", "cursor", "include_deleted")
FILTERS: dict[str, tuple[str, ...]] = {
    "contacts": ("q", "email", "company_id", "type"),
    "companies": ("q", "domain"),
    "deals": ("q", "pipeline", "pipeline_id", "stage", "company_id", "primary_contact_id"),
    "activities": ("contact_id", "deal_id", "type"),
}
SEARCHED: dict[str, tuple[str, ...]] = {
    "contacts": ("first_name", "last_name", "email", "phone", "linkedin_url"),
    "companies": ("name", "domain"),
    "deals": ("title",),
}
_TRUTH = {"true": True, "1": True, "false": False, "0": False}

KeyOfPipeline = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Listing:
    """Hold what a list request asks for."""

    resource: str
    filters: dict[str, str]
    limit: int
    cursor: Cursor | None
    includes_deleted: bool
    folds_email: bool

    @classmethod
    def of(cls, request: Request, resource: str, switches: RelmModernSwitches, now: datetime) -> "Listing":
        """Return what a request asks for; raises `Refusal` 400 for what it cannot take."""
        query = dict(reversed(request.query))
        filters = {name: value for name, value in query.items() if name not in CONTROLS}
        for name in filters:
            if name not in FILTERS[resource]:
                valid = (*FILTERS[resource], *CONTROLS)
                raise bad_request(f"{name} is not a filter of {resource}", field=name, valid=valid)
        cursor = Cursor.read(query["cursor"]) if query.get("cursor") else None
        if cursor and switches.cursor_ttl_s is not None:
            _check_age(cursor, switches.cursor_ttl_s, now)
        return cls(
            resource,
            filters,
            limit_of(query.get("limit"), default=switches.default_limit, most=switches.max_limit),
            cursor,
            _truth(query.get("include_deleted", "false")),
            switches.email_match == "folded",
        )

    def is_wanted(self, record: Record, pipeline_key: KeyOfPipeline) -> bool:
        """Say whether a record is in the list."""
        if record.fields["deleted"] and not self.includes_deleted:
            return False
        return all(self._meets(record.fields, name, pipeline_key) for name in self.filters)

    def _meets(self, fields: Fields, name: str, pipeline_key: KeyOfPipeline) -> bool:
        value = self.filters[name]
        if name == "q":
            return is_found(self.resource, fields, value)
        if name in ("pipeline", "pipeline_id"):
            return bool(fields["pipeline"] == pipeline_key(value))
        if name == "email" and self.folds_email:
            return (fields["email"] or "").strip().casefold() == value.strip().casefold()
        return bool(fields[name] == value)


def limit_of(text: str | None, *, default: int, most: int) -> int:
    """Return a page size, cut to the largest; raises `Refusal` 400 for what is none."""
    if text is None:
        return default
    if not text.isdecimal() or int(text) < 1:
        raise bad_request("limit must be a positive whole number", field="limit")
    return min(int(text), most)


def is_found(resource: str, fields: Fields, text: str) -> bool:
    """Say whether a record holds a text where `q` looks; first and last name count as one."""
    held: list[Any] = [fields[name] for name in SEARCHED[resource]]
    if resource == "contacts":
        held.append(f"{fields['first_name'] or ''} {fields['last_name'] or ''}")
    return any(text.casefold() in value.casefold() for value in held if value)


def page(rows: Iterable[bytes], next_cursor: str | None, *, has_more: bool) -> Response:
    """Return the list envelope around rendered records."""
    more = b"true" if has_more else b"false"
    data, after = b",".join(rows), encode(next_cursor)
    return Response(
        200, b'{"object":"list","data":[%b],"has_more":%b,"next_cursor":%b}' % (data, more, after)
    )


def _check_age(cursor: Cursor, ttl_s: float, now: datetime) -> None:
    if now.timestamp() - cursor.issued_at > ttl_s:
        raise invalid_cursor()


def _truth(text: str) -> bool:
    if text.lower() not in _TRUTH:
        raise bad_request("include_deleted must be true or false", field="include_deleted")
    return _TRUTH[text.lower()]
