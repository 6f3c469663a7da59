"""Reevo (reevo.ai): accounts, contacts, opportunities, tasks, activities and notes.

Two public APIs share a host and, it is assumed, their ids: v2 (`sources.reevo.v2`), the only one that lists
contacts and tells what changed, and v1 (`sources.reevo.v1`), the fallback by setting. The same keys serve
both; they travel as Bearer for v2 and in `x-api-key`, which both accept. Neither has bulk writes, an
idempotency key or a published limit, so the pace is our own and records are written one by one: contacts and
accounts matched by address and domain, opportunities, tasks and manual activities by the id once given for
them (`sources.reevo.v2_writes`, `sources.reevo.v1_writes`). v1 can clear no field; v2 cannot tie a contact to
an account while it writes it, v1's `account_contact` does both at once.
Vendor pages: help.reevo.ai, "Public API v2" and "Integrations With Other Tools".
"""

from sources.core.connector import STAGE_OPTIONS, Connection, Connector, Contract, Option, pace_option
from sources.core.destination import lazy_destination
from sources.core.reading import lazy_source
from sources.reevo import v1, v1_writes, v2, v2_writes

_CONTRACTS = {"v2": v2.CONTRACT, "v1": v1.CONTRACT}

OPTIONS = (
    Option("api_version", "which API to use (v1 lists no contacts and no changes)", "v2", ("v2", "v1")),
    Option("currency", "currency of all amounts, which the API does not tell"),
    Option(
        "activity_scopes",
        "records whose activities are asked for, one request each: accounts, opportunities, contacts",
        default="accounts,opportunities",
    ),
    *v2_writes.OPTIONS,
    *v1_writes.OPTIONS,
    pace_option(300),
    *STAGE_OPTIONS,
)


def _contract(connection: Connection) -> Contract:
    return _CONTRACTS[str(connection.options["api_version"])]


CONNECTOR = Connector(
    crm="reevo",
    title="Reevo",
    base_url="https://api.reevo.ai",
    auth_header="X-Api-Key",
    auth_prefix="",
    contracts=_CONTRACTS,
    contract=_contract,
    options=OPTIONS,
)

reevo = lazy_source(CONNECTOR)
reevo_contacts = lazy_destination(CONNECTOR, "contacts")
