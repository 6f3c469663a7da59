"""Looks at Reevo v1: what its searches show of a contact, an account or an opportunity that was just sent.

Searches find parts of texts, cap their pages silently and carry no time stamps.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from sources.core.bodies import encode_json
from sources.core.client import Client
from sources.core.connector import Connection
from sources.core.errors import GoneError
from sources.core.lanes import one_by_one, record_in
from sources.core.looking import address_key, claim, is_certain, sight_of
from sources.core.rows import Row, Sight

PREFIX = "/api/v1/public"
ACCOUNTS, OPPORTUNITIES = f"{PREFIX}/accounts", f"{PREFIX}/opportunities"
_PAGE = 100
_HIDDEN = frozenset({"additional_contact_emails", "closed_reason_names", "closed_reason_custom_detail"})


def account_at(client: Client, domain: str) -> Mapping[str, Any] | None:
    """Find the account with exactly this domain."""
    found = _search(client, ACCOUNTS, {"domain_name": domain})
    return next((each for each in found if str(each.get("domain_name") or "").lower() == domain), None)


@one_by_one
def account(client: Client, connection: Connection, row: Row, since: datetime) -> Sight | None:
    """Look for an account by its domain; one without stays open."""
    if not row.fields.get("domain_name"):
        return None
    return sight_of(account_at(client, row.key), is_absent=is_certain(client, since))


@one_by_one
def opportunity(client: Client, connection: Connection, row: Row, since: datetime) -> Sight | None:
    """Look for an opportunity by name and account; of several that show the same none is taken."""
    asked = {name: row.fields.get(name) for name in ("display_name", "account_id")}
    found = list(_search(client, OPPORTUNITIES, {name: each for name, each in asked.items() if each}))
    record, twin = claim([row, row], found, mark="display_name", hidden=_HIDDEN)
    if twin is not None:
        return None
    return sight_of(record, is_absent=not found and is_certain(client, since))


@one_by_one
def contact(client: Client, connection: Connection, row: Row, since: datetime) -> Sight | None:
    """Look a contact up by its address, where the retrieval shows contacts as one object."""
    path = f"{PREFIX}/account_and_contact_retrieval"
    try:
        answer = client.get(path, {"contact_email": row.key}, resource="look")
    except GoneError:
        if row.action == "create":  # as expected, or no such retrieval: either way nobody is known
            return None
        raise
    body = record_in(answer.json())
    found = body.get("contact")
    if not isinstance(found, Mapping) or address_key(str(found.get("email") or "")) != row.key:
        return None
    return sight_of(found, is_absent=False)


def _search(client: Client, path: str, body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Give what a search finds; only an empty page, or one that comes again, ends it."""
    offset, firsts = 0, set[str]()
    while True:
        sent = encode_json({**body, "limit": _PAGE, "offset": offset})
        page = client.send("POST", f"{path}/search", body=sent, repeatable=True, resource="look").json()
        page = page.get("data") if isinstance(page, Mapping) else page
        if not isinstance(page, list) or not page or str(page[0]) in firsts:
            return
        firsts.add(str(page[0]))
        yield from (each for each in page if isinstance(each, Mapping))
        offset += len(page)
