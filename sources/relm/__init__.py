"""Relm (relmcrm.com): contacts, companies, deals, activities, associations and custom fields.

Two incompatible contracts carry the product's name. Classic (`https://relmcrm.com`, keys `sk_live_…`,
`sk_test_…`) is `sources.relm.classic`; Modern (`https://api.relmcrm.com/v1`, keys `relm_live_…`,
`relm_test_…`) is `sources.relm.modern`. The key's prefix decides, or the setting `dialect`.
Vendor pages: relmcrm.com/docs, relmcrm.com/llms-full.txt, relmcrm.com/openapi.json.

Classic takes contacts in batches of 500, and companies, deals and activities one by one.

Oddities: Classic documents no change stamp, so a filterable `updated_at` is probed and a full pass is
the fallback; it documents no answer to a batch write, so rows are matched by index, else by e-mail, else
looked up; a custom field that an administrator marks as required makes every write without it fail, and a key
without a definition is not sent.
"""

from urllib.parse import urlsplit

from sources.core.connector import Connection, Connector, Contract, Option
from sources.core.destination import lazy_destination
from sources.core.errors import ConfigError
from sources.core.reading import lazy_source
from sources.relm import classic, modern

_CONTRACTS = {"classic": classic.CONTRACT, "modern": modern.CONTRACT}
_BASE_URL = {"classic": "https://relmcrm.com", "modern": "https://api.relmcrm.com/v1"}
_OTHER_HOST = {"classic": "api.relmcrm.com", "modern": "relmcrm.com"}

OPTIONS = (
    Option(
        "dialect",
        "which of the two APIs to speak; without it the key's prefix decides",
        choices=("classic", "modern"),
    ),
    *classic.OPTIONS,
    *modern.OPTIONS,
)


def _contract(connection: Connection) -> Contract:
    """Choose by setting, else by the key's prefix; a key of one contract at the other's host is refused."""
    dialect = connection.options.get("dialect") or _dialect_of(connection)
    return _CONTRACTS[dialect]


def _dialect_of(connection: Connection) -> str:
    dialect = "modern" if connection.api_key.startswith("relm_") else "classic"
    host = urlsplit(connection.base_url).hostname
    if host == _OTHER_HOST[dialect]:
        raise ConfigError(
            f"a key of the {dialect} API does not fit the address {host}",
            connection=connection.name,
            hint=f"Set sources.{connection.name}.base_url to {_BASE_URL[dialect]}"
            f" or sources.{connection.name}.dialect.",
        )
    return dialect


CONNECTOR = Connector(
    crm="relm",
    title="Relm",
    base_url=_BASE_URL["classic"],
    contracts=_CONTRACTS,
    contract=_contract,
    options=OPTIONS,
)

relm = lazy_source(CONNECTOR)
relm_contacts = lazy_destination(CONNECTOR, "contacts")
