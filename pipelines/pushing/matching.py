"""Find the CRM's record of each of a model's rows, in SQL: by the id it once gave, else by its key.

A few statements over the rows (`plan_candidates`), the mirror, the ledger and the log. What is to be written
of a row is `outbox`'s.
"""

from dataclasses import dataclass

from pipelines.pushing.compare import canonical
from pipelines.pushing.identity import key_form_of, key_in_mirror, shown_key_sql
from pipelines.pushing.ledger import latest_unknown
from pipelines.pushing.mapping import FieldMapping, MappedField
from pipelines.warehouse import literal, quoted
from sources.core.connector import Connection, Write


@dataclass(frozen=True, slots=True)
class Target:
    """Where a sync writes to: its connection, what can be written, the mirror's columns with their types.

    Of an object that the CRM cannot show there is no mirror: what was sent is all that is known of it.
    """

    connection: Connection
    write: Write
    mirror: dict[str, str]
    has_mirror: bool = True

    @property
    def table(self) -> str:
        """Give the mirror's table."""
        return f"{quoted(self.connection.name)}.{quoted(self.write.resource)}"

    @property
    def also_found(self) -> tuple[str, str] | None:
        """Give the mirror's column, and the path in it, that hold further keys; None where it has none."""
        place = self.write.also_found(self.connection) if self.has_mirror else None
        return place if place and place[0] in self.mirror else None


def read_mirror(mapping: FieldMapping, target: Target) -> str:
    """Write the query for `plan_mirror`: the records that rows may mean, their fields in canonical form.

    A record is meant by its key or, live or deleted, by the id that the ledger holds for a row.
    """
    values = "".join(f", {field.crm} as c{field.number}" for field in mapping.fields)
    if not target.has_mirror:
        nulls = "".join(f", null::varchar as c{field.number}" for field in mapping.fields)
        return f"create or replace temp table plan_mirror as {_NO_MIRROR.format(values=nulls)}"
    has_key = mapping.identity.by == "key"
    natural_key = key_in_mirror(target.write, target.mirror) if has_key else "null::varchar"
    by_key = "plan_key in (select key from plan_candidates) or" if has_key else ""
    return f"""
    create or replace temp table plan_mirror as
    {_records(natural_key, values, mapping, target)}
    where {by_key} id in (
        select crm_id from roundtrip.ledger
        where connection = $connection and object = $object and key in (select key from plan_candidates)
            and crm_id is not null
        union all select key from plan_candidates
    )
    """


def _records(natural_key: str, values: str, mapping: FieldMapping, target: Target) -> str:
    return f"""
    select id, plan_key, _synced_at, _deleted_at{values} from (
        select mirror.*, {natural_key} as plan_key{mapping.custom} from {target.table} as mirror
    ) as mirror
    """


def find_others(mapping: FieldMapping, target: Target) -> list[str]:
    """Write the queries for `plan_others`: rows' keys that records show as further ones alone.

    The records come to `plan_mirror`. There are none where the API knows a record by one key alone.
    """
    place = target.also_found
    if place is None or mapping.identity.by != "key":
        return ["create or replace temp table plan_others as select '' as key, '' as id where false"]
    column, path = place
    form = key_form_of(mapping.identity, target.write.key, target.write)
    values = "".join(f", {field.crm} as c{field.number}" for field in mapping.fields)
    records = _records(key_in_mirror(target.write, target.mirror), values, mapping, target)
    return [
        f"""
        create or replace temp table plan_others as
        with wanted as (
            select key from plan_candidates where key not in (
                select plan_key from plan_mirror where _deleted_at is null and plan_key is not null
            )
        ),
        shown as (
            select id, unnest(json_extract_string({quoted(column)}, {literal(path)})) as text
            from {target.table} where _deleted_at is null and json_array_length({quoted(column)}) > 1
        )
        select distinct key, id from (select id, {canonical(form, "text")} as key from shown)
        where key in (select key from wanted)
        """,
        f"""
        insert into plan_mirror {records}
        where id in (select id from plan_others) and id not in (select id from plan_mirror)
        """,
    ]


def find_contested(mapping: FieldMapping) -> str:
    """Write the query for `plan_contested`: the records that several rows of the model mean.

    One row means a record by the id that the ledger holds or by another of its keys, while the record has
    another row's key, or is another row's in the same way. A row at rest means its record all the same.
    """
    if mapping.identity.by == "id":
        return "create or replace temp table plan_contested as select null::varchar as id where false"
    # The model is read for few keys at most, and not at all where no record goes by another key than its row.
    return f"""
    create or replace temp table plan_contested as
    with pinned as materialized (
        select ledger.key, mirror.id, mirror.plan_key from roundtrip.ledger as ledger
        join plan_mirror as mirror on mirror.id = ledger.crm_id
        where connection = $connection and object = $object and mirror._deleted_at is null
            and mirror.plan_key is distinct from ledger.key
            and ledger.key in (select key from plan_candidates)
    ),
    stray as materialized (
        from pinned union all
        select others.key, mirror.id, mirror.plan_key from plan_others as others
        join plan_mirror as mirror on mirror.id = others.id
        where others.key not in (select key from pinned)
    ),
    taken as (
        select {mapping.key} as key from ({mapping.query}) as model
        where {mapping.key} in (select plan_key from stray)
    )
    select id from stray group by id having count(*) > 1
    union
    select id from stray
    where plan_key in (select key from taken) and plan_key not in (select key from stray)
    """


def find_records(mapping: FieldMapping, target: Target) -> str:
    """Write the query that finds each row's record, and what we know of it, as `plan_matched`.

    Rows that are plainly at rest are left out: the model says nothing else than the CRM shows.
    """
    differs = " or ".join(f"({_may_differ(field)})" for field in mapping.fields) or "false"
    values = "".join(f", {_shown(field)}" for field in mapping.fields)
    by = _matching(mapping, target)
    return f"""
    create or replace temp table plan_matched as
    with looked as (
        select max(last_complete_at) as at from roundtrip.resource_state
        where connection = $connection and resource = $resource
    ),
    ledger as (
        select key, crm_id, sent, echo, echo_at, pushed_at, sent_at from roundtrip.ledger
        where connection = $connection and object = $object
    ),
    unknown as (
        select key, pushed_at from ({latest_unknown()}) as latest
        where connection = $connection and object = $object
    ),
    mirror as (from plan_mirror),
    keyed as (
        select plan_key as key, count(*) as records, min(id) as id
        from (
            select plan_key, id from mirror where _deleted_at is null
            union all select key, id from plan_others
        ) group by plan_key
    ),
    found as (
        select
            candidate.*,
            ledger.key is not null as has_ledger,
            ledger.crm_id as ledger_id,
            ledger.sent, ledger.echo, ledger.echo_at, ledger.pushed_at,
            coalesce(ledger.sent_at, ledger.pushed_at) as sent_at,
            pinned.id is not null as is_seen,
            keyed.records,
            {by.record} as record_id,
            unknown.key is not null and {by.is_still_unknown} as is_unknown,
            looked.at > ledger.pushed_at as has_looked
        from plan_candidates as candidate
        cross join looked
        left join ledger on ledger.key = candidate.key
        left join mirror as pinned on pinned.id = {by.pin}
        left join keyed on keyed.key = candidate.key
        left join unknown on unknown.key = {by.logged_key}
    ),
    matched as (
    select
        found.* exclude (has_looked),
        {by.is_looked} as is_looked,
        mirror._synced_at as synced_at,
        {by.match} as match,
        {by.state} as state
        {values}
    from found
    left join mirror on mirror.id = found.record_id
    left join plan_others as others on others.key = found.key and others.id = found.record_id
    )
    select * replace (
        case when record_id in (select id from plan_contested) then 'ambiguous' else state end as state
    ) from matched
    where state <> 'there' or {differs}
        or (has_ledger and (echo_at is null or echo_at < pushed_at or synced_at > echo_at))
    """


@dataclass(frozen=True, slots=True)
class _Matching:
    """SQL by which rows find their records; how, depends on what identifies them."""

    pin: str
    record: str
    logged_key: str
    is_still_unknown: str
    is_looked: str
    match: str
    state: str


_NO_MIRROR = """
select null::varchar as id, null::varchar as plan_key, null::timestamptz as _synced_at,
    null::timestamptz as _deleted_at{values}
where false
"""
# A row that nothing but the model identifies keeps its record: one that was made is never made again.
_STATE_BY_ROW = """
case when record_id is not null then 'there' when is_seen then 'gone'
    when has_ledger then 'awaiting' else 'missing' end
"""
_STATE_BY_KEY = """
case
    when record_id is null and records > 1 then 'ambiguous'
    when record_id is not null then 'there'
    when has_ledger and not coalesce(has_looked, false) and not is_seen then 'awaiting'
    else 'missing'
end
"""
_MATCH_BY_KEY = """
case
    when record_id is null then case when has_ledger then 'key' else 'new' end
    when records > 1 or mirror.plan_key is distinct from found.key then 'id'
    else 'key'
end
"""
_RECORD = """
coalesce(
    case when pinned._deleted_at is null then pinned.id end,
    case when keyed.records = 1 then keyed.id end
)
"""
# A list read while the row was on its way may miss it, so absence counts from the answer on; a version of the
# record that came in since it was sent is news all the same.
_HAS_LOOKED = "coalesce(has_looked or mirror._synced_at > found.sent_at, false)"
_UNKNOWN_UNTIL_LOOK = "unknown.pushed_at >= looked.at"


def _matching(mapping: FieldMapping, target: Target) -> _Matching:
    identity, key = mapping.identity, "candidate.key"
    has_key = identity.by == "key"
    states = {
        "key": _STATE_BY_KEY if target.has_mirror else _STATE_BY_ROW,
        "row": _STATE_BY_ROW,
        "id": "case when record_id is null then 'gone' else 'there' end",
    }
    unknown = {"key": _UNKNOWN_UNTIL_LOOK, "id": _UNKNOWN_UNTIL_LOOK}
    # A creation that no key can find again stays unknown: a look does not tell whose record it shows.
    by_row = f"(ledger.key is null or {_UNKNOWN_UNTIL_LOOK})"
    return _Matching(
        pin=key if identity.by == "id" else "ledger.crm_id",
        # An id is taken at its word where no list could tell.
        record=key if identity.by == "id" and not target.has_mirror else _RECORD,
        logged_key=shown_key_sql(key) if identity.is_composite else key,
        is_still_unknown=unknown.get(identity.by, by_row) if target.has_mirror else "true",
        is_looked=_HAS_LOOKED if has_key else f"(record_id is not null and {_HAS_LOOKED})",
        match=_MATCH_BY_KEY
        if has_key
        else "case when record_id is null and not has_ledger then 'new' else 'id' end",
        state=states[identity.by],
    )


def _shown(field: MappedField) -> str:
    """Write what the record shows for a field; any of its keys is the row's, if not the foremost."""
    shown = f"mirror.c{field.number}"
    if not field.is_key:
        return shown
    return f"case when others.id is null then {shown} else found.key end as c{field.number}"


def _may_differ(field: MappedField) -> str:
    name, shown = f"m{field.number}", f"c{field.number}"
    if field.policy.write == "on_create":
        return "false"
    if field.policy.write == "if_empty":
        return f"{name} is not null and {shown} is null"
    has_wish = "true" if field.policy.clears else f"{name} is not null"
    return f"{has_wish} and {name} is distinct from {shown}"
