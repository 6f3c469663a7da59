"""Compose the plan of a push in SQL: model, mirror and ledger in, table `plan_rows` out.

Temporary tables only, so it runs on a warehouse opened read-only. What the rows mean for a person, the
guard and the seal are left to `plan`.
"""

from dataclasses import dataclass

import duckdb

from pipelines.compare import (
    as_json,
    canonical,
    email_key,
    form_of,
    is_address,
    is_echo,
    json_object,
    misfits,
    verdict,
)
from pipelines.ledger import latest_unknown
from pipelines.mapping import FieldMapping, MappedField, key_of_mirror, mirror_text
from pipelines.settings import Sync
from pipelines.warehouse import literal, quoted
from sources.core.connector import Connection, Kind, Write

_APPLIES = (
    "(has_ledger and (ledger_id is null or ledger_id is not distinct from record_id or state = 'awaiting'))"
)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a sync writes to: its connection, what can be written, the mirror's columns with their types."""

    connection: Connection
    write: Write
    mirror: dict[str, str]

    @property
    def table(self) -> str:
        """Give the mirror's table."""
        return f"{quoted(self.connection.name)}.{quoted(self.write.resource)}"


def compose(con: duckdb.DuckDBPyConnection, sync: Sync, target: Target, mapping: FieldMapping) -> None:
    """Write `plan_rows`: every row to send and every row held back, the former with `seq` from 1.

    `status` is planned, rejected, skipped, conflict, unknown, adopt or drift. A row of the model may give
    several: what is written of it, what is in conflict, what somebody else edited.
    """
    names = {"connection": target.connection.name, "object": target.write.object}
    resource = {"connection": target.connection.name, "resource": target.write.resource}
    con.execute(_read_model(mapping))
    con.execute(_collapse_twins(mapping))
    con.execute(_match(mapping, target), {**names, **resource})
    con.execute(_judge(mapping))
    con.execute(_list_rows(sync, target, mapping))
    con.execute(
        "create or replace temp table plan_size as select count(*) as candidates from plan_candidates"
    )
    for table in ("plan_model", "plan_candidates", "plan_matched", "plan_judged"):
        con.execute(f"drop table {table}")


def _read_model(mapping: FieldMapping) -> str:
    values = "".join(f", {field.model} as m{field.number}" for field in mapping.fields)
    return f"""
    create or replace temp table plan_model as
    select *, {is_address("key")} as is_valid from (
        select {mapping.address} as address, {email_key(mapping.address)} as key{values}
        from ({mapping.query}) as model
    )
    """


def _collapse_twins(mapping: FieldMapping) -> str:
    """Keep one row per valid key; keys whose rows differ are left out whole."""
    values = ", ".join(f"m{field.number}" for field in mapping.fields)
    return f"""
    create or replace temp table plan_candidates as
    with twins as (
        select key, count(distinct row({values})) as versions from plan_model
        where is_valid and key in (select key from plan_model where is_valid group by key having count(*) > 1)
        group by key
    )
    select * from plan_model where is_valid and key not in (select key from twins)
    union all
    (
        select distinct on (key) * from plan_model
        where is_valid and key in (select key from twins where versions = 1)
        order by key, address
    )
    """


def _match(mapping: FieldMapping, target: Target) -> str:
    """Find each row's record: by the id the CRM once gave, else by address; and what we know it holds.

    Rows that are plainly at rest are left out: the model says nothing else than the CRM shows.
    """
    differs = " or ".join(f"({_may_differ(field)})" for field in mapping.fields) or "false"
    values = "".join(f", {field.crm} as c{field.number}" for field in mapping.fields)
    key = key_of_mirror(target.write, target.mirror)
    return f"""
    create or replace temp table plan_matched as
    with looked as (
        select max(last_complete_at) as at from roundtrip.resource_state
        where connection = $connection and resource = $resource
    ),
    ledger as (
        select key, crm_id, sent, echo, echo_at, pushed_at from roundtrip.ledger
        where connection = $connection and object = $object
    ),
    unknown as (
        select key from ({latest_unknown()}) as latest, looked
        where connection = $connection and object = $object and pushed_at >= looked.at
    ),
    mirror as (select mirror.*, {key} as plan_key{mapping.custom} from {target.table} as mirror),
    keyed as (
        select plan_key as key, count(*) as records, min(id) as id
        from mirror where _deleted_at is null group by plan_key
    ),
    found as (
        select
            candidate.*,
            ledger.key is not null as has_ledger,
            ledger.crm_id as ledger_id,
            ledger.sent, ledger.echo, ledger.echo_at, ledger.pushed_at,
            pinned.id is not null as is_seen,
            keyed.records,
            coalesce(
                case when pinned._deleted_at is null then pinned.id end,
                case when keyed.records = 1 then keyed.id end
            ) as record_id,
            unknown.key is not null as is_unknown,
            looked.at > ledger.pushed_at as has_looked
        from plan_candidates as candidate
        cross join looked
        left join ledger on ledger.key = candidate.key
        left join mirror as pinned on pinned.id = ledger.crm_id
        left join keyed on keyed.key = candidate.key
        left join unknown on unknown.key = candidate.key
    ),
    matched as (
    select
        found.* exclude (has_looked),
        coalesce(has_looked or mirror._synced_at > found.pushed_at, false) as is_looked,
        mirror._synced_at as synced_at,
        case
            when record_id is null then case when has_ledger then 'key' else 'new' end
            when records > 1 or mirror.plan_key is distinct from found.key then 'id'
            else 'key'
        end as match,
        case
            when record_id is null and records > 1 then 'ambiguous'
            when record_id is not null then 'there'
            when has_ledger and not coalesce(has_looked, false) and not is_seen then 'awaiting'
            else 'missing'
        end as state
        {values}
    from found
    left join mirror on mirror.id = found.record_id
    )
    select * from matched
    where state <> 'there' or {differs}
        or (has_ledger and (echo_at is null or synced_at > echo_at))
    """


def _judge(mapping: FieldMapping) -> str:
    """Judge field by field the rows that are not plainly at rest."""
    sent = "".join(f", {_sent(field)}" for field in mapping.fields)
    now = "".join(f", {_now(field)}" for field in mapping.fields)
    verdicts = "".join(
        f", {verdict(field.policy, field.number)} as v{field.number}" for field in mapping.fields
    )
    old = ", ".join(f"c{field.number}" for field in mapping.fields)
    return f"""
    create or replace temp table plan_judged as
    with applying as (
        select *, {_APPLIES} as applies from plan_matched
    ),
    remembered as (
        select * replace (
            case when applies then sent end as sent, case when applies then echo end as echo
        ){sent}
        from applying
    ),
    known as (select * exclude ({old}){now} from remembered)
    select *{verdicts} from known
    """


def _may_differ(field: MappedField) -> str:
    name = f"m{field.number}"
    has_wish = "true" if field.policy.clears else f"{name} is not null"
    return f"{has_wish} and {name} is distinct from c{field.number}"


def _sent(field: MappedField) -> str:
    sent = canonical(field.form, f"json_extract_string(sent, {field.pointer})")
    echo = canonical(field.form, f"json_extract_string(echo, {field.pointer})")
    return (
        f"applies and coalesce(json_exists(sent, {field.pointer}), false) as is_sent{field.number},"
        f" case when applies then {sent} end as s{field.number},"
        f" applies and coalesce(json_exists(echo, {field.pointer}), false) as is_echoed{field.number},"
        f" case when applies then {echo} end as shown{field.number}"
    )


def _now(field: MappedField) -> str:
    """Write what the CRM holds now, and what it showed for what we sent; until a look, what it accepted."""
    n = field.number
    trusts_sent = f"is_sent{n} and not is_echoed{n} and not is_looked" if field.readable else f"is_sent{n}"
    return (
        f"case when {trusts_sent} then s{n} else c{n} end as c{n},"
        f" case when {trusts_sent} then s{n} when is_echoed{n} then shown{n}"
        f" when {is_echo(f's{n}', f'c{n}')} then c{n} else s{n} end as e{n}"
    )


# -- the rows of the plan ------------------------------------------------------------------------


def _list_rows(sync: Sync, target: Target, mapping: FieldMapping) -> str:
    fields = mapping.fields
    writes = " or ".join(f"v{field.number} = 'write'" for field in fields)
    parts = [
        _held_from_model("rejected", "'invalid_key'", "not is_valid", fields),
        _held_from_model(
            "rejected", "'duplicate_key'", "is_valid and key not in (select key from plan_candidates)", fields
        ),
        _held("rejected", "'ambiguous'", "state = 'ambiguous'", fields, "m{n} is not null"),
        _held("unknown", "'unknown_outcome'", f"{_IS_UNKNOWN} and (state <> 'there' or {writes})", fields),
    ]
    if sync.mode == "create":
        parts.append(
            _held(
                "skipped",
                "'already_in_crm'",
                f"{_IS_FREE} and state in ('there', 'awaiting') and ({writes})",
                fields,
            )
        )
    else:
        parts += _updates(target, fields, writes)
    if sync.mode == "update":
        parts.append(
            _held("skipped", "'not_in_crm'", f"{_IS_FREE} and state = 'missing'", fields, "m{n} is not null")
        )
    else:
        parts += _creates(target, fields)
    listed = "\n    union all\n    ".join(parts)
    return f"""
    create or replace temp table plan_rows as
    select row_number() over (partition by status = 'planned' order by key, address, status) as seq, * from (
    {listed}
    )
    """


_IS_UNKNOWN = "state <> 'ambiguous' and is_unknown"
_IS_FREE = "state <> 'ambiguous' and not is_unknown"


def _updates(target: Target, fields: tuple[MappedField, ...], writes: str) -> list[str]:
    known = _known(target)
    is_there = f"{_IS_FREE} and state in ('there', 'awaiting')"
    can_send = "(record_id is not null or ledger_id is not null)"
    wrong = _listed_names([(field, f"v{field.number} = 'write' and {_misfit(field)}") for field in fields])
    update = _row(
        "planned",
        action="'update'",
        fields=_members(fields, "v{n} = 'write'"),
        before=_members(fields, "v{n} = 'write'", letter="c"),
        known=f"(select {known} from {target.table} as mirror where mirror.id = record_id)",
        source=f"plan_judged where {is_there} and ({writes}) and {can_send} and {wrong} is null",
    )
    held = [
        _held(
            "rejected",
            f"'invalid_value: ' || {wrong}",
            f"{is_there} and {can_send} and {wrong} is not null",
            fields,
        ),
        _held("skipped", "'awaiting_pull'", f"{is_there} and ({writes}) and not {can_send}", fields),
        *(
            _held(status, reason, f"{is_there} and ({_any(fields, word)})", fields, f"v{{n}} = '{word}'")
            for status, word, reason in (
                ("conflict", "conflict", "'edited_on_both_sides'"),
                ("adopt", "adopt", "null::varchar"),
                ("drift", "drift", "'edited_in_crm'"),
            )
        ),
    ]
    return [update, *held]


def _creates(target: Target, fields: tuple[MappedField, ...]) -> list[str]:
    write = target.write
    mapped = {field.name: field for field in fields}
    wrong = _listed_names([(field, _misfit(field)) for field in fields])
    defaults = {
        name: literal(str(value))
        for name, value in write.defaults(target.connection).items()
        if value is not None
    }
    lacking, filled = [], [(write.key, as_json("text", "address"), "true")]
    for name, value in defaults.items():
        field = mapped.get(name)
        filled.append((name, as_json("text", value), f"m{field.number} is null" if field else "true"))
    for name, writable in write.fields.items():
        if writable.required and name != write.key and name not in defaults:
            field = mapped.get(name)
            lacking.append(
                f"case when {f'm{field.number} is null' if field else 'true'} then {literal(name)} end"
            )
    lacks = f"nullif(concat_ws(', ', {', '.join(lacking)}), '')" if lacking else "null::varchar"
    is_missing = f"{_IS_FREE} and state = 'missing'"
    values = [
        (field.name, as_json(field.form, f"m{field.number}"), f"m{field.number} is not null")
        for field in fields
        if not field.is_key
    ]
    create = _row(
        "planned",
        action="'create'",
        fields=json_object([*filled, *values]),
        before="'{}'",
        known="'{}'",
        source=f"plan_judged where {is_missing} and {lacks} is null and {wrong} is null",
    )
    filled_in = "m{n} is not null"
    return [
        create,
        _held(
            "rejected",
            f"'missing_required: ' || {lacks}",
            f"{is_missing} and {lacks} is not null",
            fields,
            filled_in,
        ),
        _held(
            "rejected",
            f"'invalid_value: ' || {wrong}",
            f"{is_missing} and {lacks} is null and {wrong} is not null",
            fields,
            filled_in,
        ),
    ]


def _misfit(field: MappedField) -> str:
    return "false" if field.is_key else misfits(field.kind, f"m{field.number}")


def _listed_names(conditions: list[tuple[MappedField, str]]) -> str:
    """Write the names of the fields whose condition holds, null where none does."""
    names = [f"case when {condition} then {literal(field.name)} end" for field, condition in conditions]
    return f"nullif(concat_ws(', ', {', '.join(names)}), '')"


def _any(fields: tuple[MappedField, ...], word: str) -> str:
    return " or ".join(f"v{field.number} = '{word}'" for field in fields)


def _members(fields: tuple[MappedField, ...], condition: str, letter: str = "m") -> str:
    """Write the JSON object of fields; an address goes out as the model has it, not as its key."""
    return json_object(
        [
            (
                field.name,
                as_json("text", "address")
                if field.is_key and letter == "m"
                else as_json(field.form, f"{letter}{field.number}"),
                condition.format(n=field.number),
            )
            for field in fields
        ]
    )


def _row(status: str, *, action: str, fields: str, before: str, known: str, source: str) -> str:
    return f"""
    select key, address, coalesce(record_id, ledger_id) as crm_id, {action} as action, match,
        '{status}' as status, null::varchar as reason,
        {fields} as fields, {before} as before, {known} as known,
        sent::varchar as sent, echo::varchar as echo, is_looked
    from {source}
    """


def _held(
    status: str, reason: str, condition: str, fields: tuple[MappedField, ...], which: str = "v{n} = 'write'"
) -> str:
    return f"""
    select key, address, coalesce(record_id, ledger_id) as crm_id,
        case when state = 'missing' then 'create' when state <> 'ambiguous' then 'update' end as action,
        match, '{status}' as status, {reason} as reason,
        {_members(fields, which)} as fields, {_members(fields, which, letter="c")} as before,
        null::varchar as known, sent::varchar as sent, echo::varchar as echo, is_looked
    from plan_judged where {condition}
    """


def _held_from_model(status: str, reason: str, condition: str, fields: tuple[MappedField, ...]) -> str:
    filled_in = _members(fields, "m{n} is not null")
    return f"""
    select coalesce(key, address) as key, address, null::varchar as crm_id, null::varchar as action,
        null::varchar as match, '{status}' as status, {reason} as reason,
        {filled_in} as fields, '{{}}' as before, null::varchar as known,
        null::varchar as sent, null::varchar as echo, false as is_looked
    from plan_model where {condition}
    """


def _known(target: Target) -> str:
    """Write the mirror's record as JSON, as far as its fields can be written: what completes a body."""
    members = []
    for name, writable in target.write.fields.items():
        text = mirror_text(name, target.mirror) if writable.readable else None
        if text is not None:
            members.append((name, _json_of(writable.kind, text), f"{text} is not null"))
    custom = target.write.custom
    text = mirror_text(custom, target.mirror) if custom else None
    if custom and text is not None:
        members.append((custom, text, f"json_valid({text})"))
    return json_object(members)


def _json_of(kind: Kind, text: str) -> str:
    form = form_of(kind)
    return as_json(form, text if form == "text" else canonical(form, text))
