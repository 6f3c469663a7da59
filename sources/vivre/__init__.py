"""Vivre by Invrsys (invrsys.com): contacts of one workspace; deals and activities where the API serves them.

Vendor page: invrsys.com/vivre/api. Keys `vv_live_…` as Bearer, with the header `X-Workspace-ID`, so
`workspace_id` is required. Documented to be read: contacts only (offset, at most 500, with `total`). Whether
deals and activities can be listed is found out by asking; where not, they are write-only.

There is no since-filter and no change stamp: every pull is a full pass, unchanged rows are dropped by hash,
and a missing contact is confirmed by asking for it. Oddities: money is in the smallest unit of a currency
that the API does not tell; `tags` can be written but are not in the documented record; `ai_score` is the
vendor's own and cannot be written; an activity's time cannot be set, so what is logged later carries the time
of logging (put its own into `note`). Contacts, deals and activities are created one by one, deals also
changed; contacts cannot be changed (`sources.vivre.writes`).
"""

from dataclasses import replace

from sources.core import probing
from sources.core.connector import (
    STAGE_OPTIONS,
    Connection,
    Connector,
    Contract,
    OffsetPages,
    Option,
    Probe,
    Resource,
    View,
    columns,
    pace_option,
)
from sources.core.destination import lazy_destination
from sources.core.reading import lazy_source
from sources.vivre import writes

# -- tables --------------------------------------------------------------------------------------

_PAGES = OffsetPages(limit=500, data="data", total="total")

CONTACTS = Resource(
    "contacts",
    "/contacts",
    columns(
        id="text",
        name="text",
        email="text",
        company="text",
        ai_score="bigint",
        stage="text",
        tags="json",
        created_at="timestamp",
    ),
    _PAGES,
    one="/contacts/{id}",
    notes={"stage": "new, qualified, proposal or won"},
)

# Fields as documented for writing; the list itself is a guess that only an answer confirms (fact sheet B1).
DEALS = Resource(
    "deals",
    "/deals",
    columns(
        id="text",
        contact_id="text",
        title="text",
        value="decimal",
        stage="text",
        closed_at="timestamp",
        created_at="timestamp",
    ),
    _PAGES,
    optional=True,
    notes={"value": "Value in minor units, as far as the connection's `minor_units` says so"},
)

ACTIVITIES = Resource(
    "activities",
    "/activities",
    columns(id="text", contact_id="text", deal_id="text", type="text", note="text", created_at="timestamp"),
    _PAGES,
    optional=True,
)

# -- unified views -------------------------------------------------------------------------------

VIEWS = {
    "contacts": (
        View(
            "contacts",
            {
                "email": "email",
                "full_name": "name",
                "company": "company",
                "stage": "stage",
                "score": "ai_score",
                "tags": "tags",
                "created_at": "created_at",
            },
        ),
    ),
    "deals": (
        View(
            "deals",
            {
                "title": "title",
                "stage": "stage",
                "status": "case stage when 'won' then 'won' when 'lost' then 'lost' else 'open' end",
                "amount": "value / power(10, {minor_units})::decimal(18,0)",
                "currency": "{currency}",
                "contact_id": "contact_id",
                "closed_at": "closed_at",
                "created_at": "created_at",
            },
        ),
    ),
    "activities": (
        View(
            "activities",
            {
                "type": "type",
                "body": "note",
                "contact_id": "contact_id",
                "deal_id": "deal_id",
                "occurred_at": "created_at",
                "created_at": "created_at",
            },
        ),
    ),
}

# -- open questions ------------------------------------------------------------------------------

_DOCUMENTED = ("id", "name", "email", "company", "ai_score", "stage", "created_at")

# Numbers are those of the vendor sheet's section 9.
PROBES = (
    Probe("B1", "can deals be listed", probing.is_there("/deals")),
    Probe("B1", "can activities be listed", probing.is_there("/activities")),
    Probe("B6", "order of contacts", probing.order("/contacts", ("created_at",))),
    Probe("B10", "fields nobody documents", probing.undocumented_fields("/contacts", _DOCUMENTED)),
    Probe("B13", "limits told in answers", probing.limits_told("/contacts")),
)

# -- connector -----------------------------------------------------------------------------------

OPTIONS = (
    Option("workspace_id", "the workspace, `ws_…`, sent as X-Workspace-ID with every request", required=True),
    Option("currency", "currency of the workspace, which the API does not tell (B14)", default="INR"),
    Option("minor_units", "decimal places of that currency: 2 for paise (B14)", default=2),
    *writes.OPTIONS,
    pace_option(60),
    *STAGE_OPTIONS,
)


def _headers(connection: Connection) -> dict[str, str]:
    return {"X-Workspace-ID": str(connection.options["workspace_id"])}


CONTRACT = Contract(
    "v1", resources=(CONTACTS, DEALS, ACTIVITIES), views=VIEWS, writes=writes.WRITES, probes=PROBES
)
_DEALS_LISTED = replace(CONTRACT, writes=writes.WRITES_WITH_DEALS_LISTED)


def _contract(connection: Connection) -> Contract:
    return _DEALS_LISTED if connection.options.get("deals_listed") else CONTRACT


CONNECTOR = Connector(
    crm="vivre",
    title="Vivre",
    base_url="https://api.invrsys.com/vivre/v1",
    contracts={"v1": CONTRACT},
    contract=_contract,
    options=OPTIONS,
    headers=_headers,
)

vivre = lazy_source(CONNECTOR)
vivre_contacts = lazy_destination(CONNECTOR, "contacts")
