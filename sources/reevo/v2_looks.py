"""Looks at Reevo v2: records with their envelopes taken off, and what queries show of a new one."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sources.core.bodies import encode_json, moment_of
from sources.core.client import Client
from sources.core.connector import Connection, Writable
from sources.core.lanes import Look, look_by_id, one_by_one, record_in
from sources.core.looking import claim, is_certain, sight_of
from sources.core.rows import Row, Sight

PREFIX = "/api/v2"
_PAGE = 100
_SCOPES = ("opportunity_id", "account_id", "contact_ids")
_UNSHOWN = frozenset({*_SCOPES, "sequence_id"})


def plain(record: Mapping[str, Any], row: Row) -> dict[str, Any]:
    """Take the envelopes off a record's attributes; they stand at the top, and all under `attributes` too.

    A stage has an id, an API name and a display name: the one that the row names is shown.
    """
    attributes = record.get("attributes") or {}
    values = {name: _value(each, row.fields.get(name)) for name, each in attributes.items()}
    domains = values.get("domains") or [{}]
    domain = domains[0].get("domain_name") if isinstance(domains[0], Mapping) else None
    metadata = record.get("metadata") or {}
    subject = metadata.get("subject") if isinstance(metadata, Mapping) else None
    return {**record, "domain_name": domain, "metadata.subject": subject, **values, "attributes": values}


def _value(envelope: Any, sent: Any) -> Any:
    """Give a value as the mirror has it: a reference's id, a stage's name, an amount's number."""
    if isinstance(envelope, list):
        return [_value(each, None) for each in envelope]
    value = envelope.get("value") if isinstance(envelope, Mapping) else envelope
    if not isinstance(value, Mapping):
        return value
    if sent is not None and sent in (value.get("id"), value.get("api_name")):
        return sent
    names = ("related_record_id", "display_value", "amount")
    return next((value[name] for name in names if name in value), value)


@one_by_one
def contact(client: Client, connection: Connection, row: Row, since: datetime) -> Sight | None:
    """Look a contact up by its primary address."""
    found = _query(client, "contact", [_is("primary_email", row.key)])
    if found is None or len(found) > 1:
        return None
    return sight_of(plain(found[0], row) if found else None, is_absent=is_certain(client, since))


def by_id(folder: str) -> Look:
    """Make the look at records that have ids; no query for domains is documented."""
    return look_by_id(folder, read=lambda body, row: plain(record_in(body), row))


def created(record_type: str, mark: str, fields: Mapping[str, Writable]) -> Look:
    """Make the look for a new record: by the sync's own key where the CRM holds it, else by what was sent."""
    hidden = frozenset(name for name, writable in fields.items() if not writable.readable)

    def look(client: Client, connection: Connection, row: Row, since: datetime) -> Sight | None:
        own = str(connection.options.get("own_key_field") or "")
        if own:
            found = _query(client, record_type, [_is(own, row.key)])
            record = plain(found[0], row) if found and len(found) == 1 else None
            return sight_of(record, is_absent=found == [] and is_certain(client, since))
        named = [_is(mark, str(row.fields.get(mark))), _since("updated_at", since)]
        fresh = _made_since(_query(client, record_type, named), row, since)
        return _claimed(row, fresh, mark=mark, hidden=hidden, is_absent=is_certain(client, since))

    return one_by_one(look)


@one_by_one
def activity(client: Client, connection: Connection, row: Row, since: datetime) -> Sight | None:
    """Look for an activity among those of a record that it hangs on."""
    scope = next((name for name in _SCOPES if row.fields.get(name)), None)
    if scope is None:
        return None
    value = row.fields[scope]
    asked = {"contact_id": value[0]} if isinstance(value, list) else {scope: value}
    found = _page(client, "activity", {**asked, "created_from": _text(since), "limit": _PAGE})
    fresh = _made_since(found, row, since)
    is_absent = is_certain(client, since)
    return _claimed(row, fresh, mark="metadata.subject", hidden=_UNSHOWN, is_absent=is_absent)


def _made_since(
    found: list[Mapping[str, Any]] | None, row: Row, since: datetime
) -> list[dict[str, Any]] | None:
    return None if found is None else [plain(each, row) for each in found if _is_new(each, since)]


def _is_new(record: Mapping[str, Any], since: datetime) -> bool:
    created_at = moment_of(record.get("created_at"))
    return created_at is None or created_at >= since


def _claimed(
    row: Row, fresh: list[dict[str, Any]] | None, *, mark: str, hidden: frozenset[str], is_absent: bool
) -> Sight | None:
    """Take the one record that shows what was sent; of several that do so none is taken."""
    if fresh is None:
        return None
    record, twin = claim([row, row], fresh, mark=mark, hidden=hidden)
    return None if twin is not None else sight_of(record, is_absent=is_absent and not fresh)


def _query(client: Client, record_type: str, filters: list[dict[str, Any]]) -> list[Mapping[str, Any]] | None:
    return _page(client, record_type, {"filters": filters, "limit": _PAGE})


def _page(client: Client, record_type: str, body: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """Ask for one page; None where it is not all there is."""
    path = f"{PREFIX}/{record_type}/_query"
    answer = client.send("POST", path, body=encode_json(body), repeatable=True, resource="look").json()
    rows = answer.get("data") if isinstance(answer, Mapping) else None
    if not isinstance(rows, list) or len(rows) >= _PAGE:
        return None
    return [each for each in rows if isinstance(each, Mapping)]


def _is(field: str, value: str) -> dict[str, Any]:
    return {"field": field, "operator": "eq", "value": value}


def _since(field: str, moment: datetime) -> dict[str, Any]:
    return {"field": field, "operator": "gte", "value": _text(moment)}


def _text(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
