"""Reevo v1: flat JSON under `/api/v1/public`, mostly for writing; the fallback where v2 is not served.

Reads are searches by offset in the body, bare arrays without a total; nothing has a time stamp, so every pull
is a full pass. Accounts are found by the dot that every domain holds (accounts without a domain are missed);
contacts have no list and are asked for by the domains of the accounts. Tasks and activities cannot be read.
"""

from sources.core.connector import Contract, FanOut, OffsetPages, OneObject, Resource, View, columns
from sources.reevo import probes, v1_writes

_PREFIX = "/api/v1/public"
_PAGES = OffsetPages(limit=100, in_body=True)
# The vendor's set-up page asks for this parameter on every request.
_ASKED = ((("payload_type", "json"),),)

ACCOUNTS = Resource(
    "accounts",
    f"{_PREFIX}/accounts/search",
    columns(
        id="text",
        name="text",
        status="text",
        official_website="text",
        domain_name="text",
        linkedin_url="text",
        facebook_url="text",
        zoominfo_url="text",
        x_url="text",
        owner_email="text",
        custom_fields="json",
    ),
    _PAGES,
    one=f"{_PREFIX}/accounts/{{id}}",
    method="POST",
    body={"domain_name": "."},
    variants=_ASKED,
    notes={"status": "Status; of its values only CUSTOMER is documented"},
)

OPPORTUNITIES = Resource(
    "opportunities",
    f"{_PREFIX}/opportunities/search",
    columns(
        id="text",
        display_name="text",
        account_id="text",
        owner_email="text",
        primary_contact_email="text",
        pipeline_name="text",
        stage_name="text",
        status="text",
        amount="decimal",
        next_step_details="text",
        next_step_due_at="timestamp",
        custom_fields="json",
    ),
    _PAGES,
    one=f"{_PREFIX}/opportunities/{{id}}",
    method="POST",
    body={},
    variants=_ASKED,
)

CONTACTS = Resource(
    "contacts",
    f"{_PREFIX}/account_and_contact_retrieval",
    columns(
        id="text",
        email="text",
        first_name="text",
        last_name="text",
        middle_name="text",
        phone_number="text",
        title="text",
        department="text",
        company="text",
        account_id="text",
        owner_email="text",
        custom_fields="json",
    ),
    # Its answer is not documented: one contact or several, or none.
    OneObject("contact", several="contacts"),
    one=f"{_PREFIX}/contacts/{{id}}",
    variants=_ASKED,
    optional=True,
    fan_out=(FanOut("accounts", "domain_name", "account_domain"),),
)

VIEWS = {
    "contacts": (
        View(
            "contacts",
            {
                "email": "email",
                "full_name": "nullif(trim(concat_ws(' ', first_name, last_name)), '')",
                "first_name": "first_name",
                "last_name": "last_name",
                "phone": "phone_number",
                "title": "title",
                "company_id": "account_id",
                "company": "company",
                "owner": "owner_email",
            },
        ),
    ),
    "companies": (
        View(
            "accounts",
            {"name": "name", "domain": "domain_name", "website": "official_website", "owner": "owner_email"},
        ),
    ),
    "deals": (
        View(
            "opportunities",
            {
                "title": "display_name",
                "stage": "stage_name",
                "status": "case when lower(stage_name) in ('closed won', 'won') then 'won'"
                " when lower(stage_name) in ('closed lost', 'lost') then 'lost' else 'open' end",
                "amount": "amount",
                "currency": "{currency}",
                "company_id": "account_id",
                "owner": "owner_email",
            },
        ),
    ),
}

CONTRACT = Contract(
    "v1",
    resources=(ACCOUNTS, OPPORTUNITIES, CONTACTS),
    views=VIEWS,
    writes=v1_writes.WRITES,
    probes=probes.V1,
)
