"""Relm (relmcrm.com): contacts, companies, deals, activities, associations and custom fields.

Two incompatible contracts carry the product's name. Classic (`https://relmcrm.com`, keys `sk_live_…`,
`sk_test_…`) is `sources.relm.classic`. Vendor pages: relmcrm.com/docs, relmcrm.com/llms-full.txt.

Oddities: Classic documents no change stamp, so a filterable `updated_at` is probed and a full pass is
the fallback; it documents no answer to a batch write, so rows are matched by index, else by e-mail, else
looked up; a custom field that an administrator marks as required makes every write without it fail.
"""

from sources.core.connector import Connection, Connector, Contract
from sources.core.reading import lazy_source
from sources.relm import classic


def _contract(connection: Connection) -> Contract:
    return classic.CONTRACT


CONNECTOR = Connector(
    crm="relm",
    title="Relm",
    base_url="https://relmcrm.com",
    contracts={"classic": classic.CONTRACT},
    contract=_contract,
    options=classic.OPTIONS,
)

relm = lazy_source(CONNECTOR)
