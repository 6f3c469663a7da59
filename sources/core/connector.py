"""What a CRM is, as data: its connection settings, resources, unified views and writes.

A CRM module fills these tables; every loop over them lives in `core` or in `pipelines`.
Nothing here talks to a network, a file or a database.
"""

import re
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from sources.core.errors import ConfigError
from sources.core.rows import Outcome, Row, Sight, Verdict

if TYPE_CHECKING:
    from sources.core.client import Answer, Client

_STEP = re.compile(r'\."([^"]*)"|\.(\w+)|\[\d+\]')
Kind = Literal["text", "bigint", "double", "decimal", "bool", "timestamp", "json"]


def snake_case(name: str) -> str:
    """Name a column as dlt's snake_case naming rule does: `linkedInUrl` becomes `linked_in_url`."""
    name = re.sub(r"[^0-9a-zA-Z_]", "_", name)
    name = re.sub(r"([^_])([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()


# -- connections ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Option:
    """One setting of a connection beside `crm`, `base_url` and `api_key`."""

    name: str
    doc: str
    default: str | int | float | bool | None = None
    choices: tuple[str, ...] = ()
    required: bool = False


# For every CRM with deals: which of its stages mean that a deal is closed, beside those its module knows.
STAGE_OPTIONS = (
    Option("won_stages", "stages that mean won, comma-separated, whatever their case"),
    Option("lost_stages", "stages that mean lost, comma-separated, whatever their case"),
)


def pace_option(default: int) -> Option:
    """Declare the pace kept towards an API that states no limit."""
    return Option("max_per_minute", "requests a minute at most; the vendor states no limit", default)


@dataclass(frozen=True, slots=True)
class Connection:
    """One workspace of a CRM: its name (dataset and settings section), address, key and options.

    `options` holds a value for every `Option` of the connector, defaults filled in. `exclude` and `hashed`
    name values (`contacts.phone`) that are never kept, or only as digests under `hash_key`.
    """

    name: str
    crm: str
    base_url: str
    api_key: str = field(repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    hashed: tuple[str, ...] = ()
    hash_key: str = field(default="", repr=False)


# -- reading -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """One field of a resource: the vendor's name, how it is typed, and where it stands in the record.

    `path` is a DuckDB JSON path from the record's root; empty means the top-level key `source`. `implied` is
    a part that stands beside a part of an object, and the value with which it says nothing.
    """

    source: str
    kind: Kind = "text"
    path: str = ""
    doc: str = ""
    implied: tuple[str, str] | None = None

    @property
    def name(self) -> str:
        """Give the column's name in the warehouse."""
        return snake_case(self.source)

    @property
    def json_path(self) -> str:
        """Give the JSON path of the value in a record."""
        return self.path or f'$."{self.source}"'

    @property
    def steps(self) -> tuple[str, ...]:
        """Give the keys that lead to the value; a place in a list is none."""
        found = (match.group(1) or match.group(2) for match in _STEP.finditer(self.json_path))
        return tuple(step for step in found if step)


def columns(**kinds: Kind) -> tuple[Column, ...]:
    """Declare top-level fields: `columns(id="text", leadScore="bigint")`, in table order."""
    return tuple(Column(source, kind) for source, kind in kinds.items())


@dataclass(frozen=True, slots=True)
class CursorPages:
    """Pages by an opaque cursor: `limit` rows asked for, rows under `data`, the next cursor under `next`.

    `has_more` names a flag that says whether there is a next page; without one a null cursor ends the list.
    `in_body`: cursor and limit travel in the JSON body of a query instead of the query string.
    """

    limit: int
    data: str = "data"
    next: str = "next_cursor"
    param: str = "cursor"
    limit_param: str = "limit"
    has_more: str | None = None
    in_body: bool = False


@dataclass(frozen=True, slots=True)
class OffsetPages:
    """Pages by offset: rows under `data` (None: the answer is a bare array), `total` names the count, if any.

    `overlap` is how many rows of the previous page are asked for again, to notice rows that moved.
    """

    limit: int
    data: str | None = None
    total: str | None = None
    limit_param: str = "limit"
    offset_param: str = "offset"
    overlap: int = 5
    in_body: bool = False


@dataclass(frozen=True, slots=True)
class OneObject:
    """One record in one answer, under `data` (None: the answer itself).

    `several` is for an answer whose shape the vendor does not document: it names where a list may stand
    instead, and either place may hold no record, one or a list.
    """

    data: str | None = "data"
    several: str | None = None


KeyForm = Literal["email", "domain", "text", "none"]
Paging = CursorPages | OffsetPages | OneObject


@dataclass(frozen=True, slots=True)
class FullPass:
    """Read every page each time; unchanged rows are dropped by `_row_hash` before loading."""


@dataclass(frozen=True, slots=True)
class Since:
    """Ask for rows changed since a watermark (re-read inclusively, lookback subtracted).

    `param` is the query parameter; where a query takes the moment in its JSON body, `body` composes what
    is added to it from the moment's text. `probed` means that the vendor does not document the filter: it
    is used only where a read-only probe found that it works, otherwise every pull is a full pass.
    """

    param: str
    updated: str
    probed: bool = False
    body: Callable[[str], Mapping[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class FanOut:
    """Ask a list once per value of a column of another resource, as the parameter `param`.

    `option` names the option that lists the resources to go by; without one it always applies.
    """

    resource: str
    column: str
    param: str
    in_body: bool = False
    option: str = ""

    def applies(self, connection: Connection) -> bool:
        """Tell whether a connection goes by this resource."""
        listed = str(connection.options.get(self.option) or "") if self.option else self.resource
        return self.resource in [each.strip() for each in listed.split(",")]


@dataclass(frozen=True, slots=True)
class Scope:
    """One value that a list is asked for; a new one has never been asked for, so no window narrows it."""

    fan_out: FanOut
    value: str
    is_new: bool = False

    @property
    def label(self) -> str:
        """Name the scope, the same in every pass."""
        return f"{self.fan_out.resource}={quote(self.value, safe='')}"


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of record of an API contract.

    `variants` are the parameter sets whose walks together make one pass (usually one, empty).
    `one` is the path of a single record (`{id}`), used to confirm that a missing record is gone.
    `unhashed` names vendor fields whose change alone does not make a new version of a row.
    `optional`: the vendor does not document the list; a 404 or 405 then means that there is none.
    `gone_flag` names a field that is true for deleted records, where lists show them.
    `fan_out` asks once per value of another resource, for lists that have no unscoped form.
    `envelope` names a top-level object that holds the record's fields (`attributes`).
    `about` says what the table holds, `notes` what columns hold (by the vendor's name), where the shared
    vocabulary does not say it.
    """

    name: str
    path: str
    columns: tuple[Column, ...]
    paging: Paging
    strategy: FullPass | Since = FullPass()
    key: str = "id"
    one: str | None = None
    updated: str | None = None
    variants: tuple[tuple[tuple[str, str], ...], ...] = ((),)
    method: str = "GET"
    body: Mapping[str, Any] | None = None
    unhashed: frozenset[str] = frozenset()
    optional: bool = False
    gone_flag: str | None = None
    fan_out: tuple[FanOut, ...] = ()
    envelope: str | None = None
    about: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Feed:
    """A change feed: ids of changed and deleted records in time order, without their bodies.

    `entities` maps a resource to its name in the feed's entries. `limit` is the page size asked for.
    """

    path: str
    param: str
    entities: Mapping[str, str]
    limit: int
    parse: Callable[[Any], "FeedEntry"]
    limit_param: str = "limit"


@dataclass(frozen=True, slots=True)
class FeedEntry:
    """One line of a change feed."""

    seq: int
    entity: str
    id: str
    action: Literal["inserted", "updated", "deleted"]
    at: datetime


@dataclass(frozen=True, slots=True)
class View:
    """How one resource appears in a `crm.*` view: view column -> SQL over the raw table's columns.

    A column that is not named is null. `where` narrows the rows (without the `_deleted_at` rule). An
    option of the connection stands in braces (`{currency}`) and becomes a SQL literal.
    """

    resource: str
    columns: Mapping[str, str]
    where: str = "true"


# -- writing -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Writable:
    """One field that can be written: its type, and whether it can be read back.

    A field that cannot be read back is never planned against the CRM's value, verified or undone.
    A `required` field must have a value in every record that is created. One that is not `clearable` takes
    no null, one that is not `creatable` can only be changed once the record is there, and one that is not
    `updatable` stays as it was created. `given` is what the CRM itself puts into a new record that brings no
    value, where the vendor says so; `*` where it goes by other fields.
    """

    kind: Kind = "text"
    readable: bool = True
    required: bool = False
    clearable: bool = True
    creatable: bool = True
    updatable: bool = True
    given: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One write request, ready to send: its bytes never change between attempts.

    `params` stand in the query; they are the same for every request of a lane.
    """

    method: str
    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    params: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Lane:
    """One way to write rows: how many a request may carry, how to say it, how to read the answer.

    `repeat_s` is for how long the same bytes may be sent again without a second effect (0: never).
    `key_header` names the header that carries an idempotency key, empty where the API has none.
    `encode(rows, connection)` and `decode(rows, answer)` are pure; `decode` gives one outcome per row in
    order, `unknown` for a row of which the answer says nothing. `blame(rows, body)` reads from a refusal of
    the whole request which rows are at fault: position -> reason, empty where it names none.
    `look(client, connection, rows, since)` reads what the CRM shows now, one sight per row in order, None
    where it cannot tell; `since` is the CRM's time before which nothing of these rows was sent.
    `fallback` names the lane for rows that this one left without effect and without a reason.
    `gone` is the verdict on a row whose record is not there, where that is no refusal.
    """

    name: str
    size: int
    encode: Callable[[Sequence[Row], Connection], Call]
    decode: Callable[[Sequence[Row], "Answer"], list[Outcome]]
    repeat_s: float = 0.0
    key_header: str = ""
    blame: Callable[[Sequence[Row], bytes], Mapping[int, str]] = lambda rows, body: {}
    look: Callable[["Client", Connection, Sequence[Row], datetime], list[Sight | None]] | None = None
    fallback: str | None = None
    gone: Verdict | None = None
    calls: int = 1  # 2 where all its rows go on to the fallback


@dataclass(frozen=True, slots=True)
class Registry:
    """Where a CRM keeps the definitions of an object's custom fields; keys come without the prefix.

    `missing(client, connection, keys)` reads which of the keys have no definition. `create(client,
    connection, kinds)` defines keys by the kind of their values, and leaves alone those that are defined.
    """

    missing: Callable[["Client", Connection, Iterable[str]], list[str]]
    create: Callable[["Client", Connection, Mapping[str, Kind]], None]


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How a CRM that lists what changed, and finds no record by its key, tells which records are new to us.

    `keys(client, connection, since)` reads the keys of all records made or changed since, None where they
    are too many to tell; `key(row, connection)` is a row's own.
    """

    keys: Callable[["Client", Connection, datetime], Collection[Hashable] | None]
    key: Callable[[Row, Connection], Hashable]


@dataclass(frozen=True, slots=True)
class Write:
    """What can be written of one object, and how.

    `lane(row, connection)` names the lane for a row. `fields` are the writable top-level fields;
    `custom` is the prefix (`metadata`) below which further fields may be named with a dot. The mirror has
    them in the column of that name or in `custom_column`; `custom_clearable` says whether they take null.
    `resource` is the pulled resource that mirrors the object, empty where the API cannot show it at all.
    `also_known` names fields of the mirror that `known` has beside those that can be written (a version).
    `key` is the field that identifies a record, together with those in `also_key`, compared as `key_form`
    says. A form of `none` means that the CRM has no natural key: a row is then identified by the model alone,
    and its record by the id once given for it.
    `defaults(connection)` fills required fields of new records where the model has no value.
    `inspect(client, connection)` looks at the workspace before a push, read-only, and gives a check that
    tells for a row why it must not be sent, or None. `registry` is there where custom fields must be defined
    before they can be written. `find` is there where records can be found by their keys at any time, and not
    as the lanes look for what was sent just now. `reread` reads the records of rows with ids as they are now,
    where that takes other requests than a lane's `look`. `replaces(connection)` says whether a change may
    carry the whole record as far as it is known; what is kept out of sight would then be lost in the CRM.
    `arrivals` is there where new records that `upserts` would write over can be found by no other look.
    `also_found(connection)` gives the mirror's column, and the JSON path in it, that hold what the API takes
    for the key of a record as well: its other addresses.
    """

    object: str
    resource: str
    key: str
    fields: Mapping[str, Writable]
    lanes: Mapping[str, Lane]
    lane: Callable[[Row, Connection], str]
    custom: str | None = None
    custom_column: str = ""
    custom_clearable: bool = True
    also_key: tuple[str, ...] = ()
    also_known: tuple[str, ...] = ()
    key_form: KeyForm = "email"
    modes: frozenset[str] = frozenset({"upsert", "update", "create"})
    defaults: Callable[[Connection], Mapping[str, Any]] = lambda connection: {}
    inspect: Callable[["Client", Connection], Callable[[Row], str | None]] | None = None
    registry: Registry | None = None
    find: Callable[["Client", Connection, Sequence[Row], datetime], list[Sight | None]] | None = None
    replaces: Callable[[Connection], bool] = lambda connection: True
    takes_ids: bool = True  # whether a record can be changed by its id alone
    reread: Callable[["Client", Connection, Sequence[Row], datetime], list[Sight | None]] | None = None
    upserts: bool = False  # whether what makes a new record changes the one that has its key already
    arrivals: Arrivals | None = None
    also_found: Callable[[Connection], tuple[str, str] | None] = lambda connection: None


# -- open questions ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Probe:
    """A question that the vendor's pages leave open, and a read-only look that answers it.

    `number` is the question's number in the CRM's fact sheet; `ask` gives the answer as one sentence.
    """

    number: str
    about: str
    ask: Callable[["Client", Connection], str]


# -- contracts -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Contract:
    """One documented API contract of a CRM: what it reads, unifies and writes.

    `per_minute`: the vendor's limit, where it states one. `quota`: what counts, beside calls, by the month.
    """

    name: str
    resources: tuple[Resource, ...]
    views: Mapping[str, tuple[View, ...]]
    writes: Mapping[str, Write] = field(default_factory=dict)
    feed: Feed | None = None
    probes: tuple[Probe, ...] = ()
    per_minute: int | None = None
    quota: Literal["", "rows"] = ""

    def resource(self, name: str) -> Resource:
        """Find a resource by name; `ConfigError` names those there are."""
        for resource in self.resources:
            if resource.name == name:
                return resource
        known = ", ".join(each.name for each in self.resources)
        raise ConfigError(f"there is no resource '{name}'", hint=f"There are: {known}.")


@dataclass(frozen=True, slots=True)
class Connector:
    """One CRM: how its connections are configured and which contracts it speaks.

    `contract(connection)` chooses by settings alone, without a request. `headers(connection)` are sent
    with every request beside the key. `statuses` overrides rows of the client's status table.
    """

    crm: str
    title: str
    contracts: Mapping[str, Contract]
    contract: Callable[[Connection], Contract]
    base_url: str | None
    auth_header: str = "Authorization"
    auth_prefix: str = "Bearer "
    options: tuple[Option, ...] = ()
    headers: Callable[[Connection], Mapping[str, str]] = lambda connection: {}
    statuses: Mapping[int, type[Exception]] = field(default_factory=dict)
