"""Compose the plan of a push in SQL: model, mirror and ledger in, table `plan_rows` out.

Temporary tables only, so it runs on a warehouse opened read-only. What the rows mean for a person, the
guard and the seal are left to `plan`.
"""

from dataclasses import replace

import duckdb

from pipelines.pushing.compare import (
    as_json,
    canonical,
    form_of,
    form_of_type,
    is_echo,
    json_object,
    misfits,
    verdict,
)
from pipelines.pushing.identity import can_update, is_valid_key, mirror_text
from pipelines.pushing.mapping import FieldMapping, MappedField, is_base_table
from pipelines.pushing.matching import Target, find_contested, find_others, find_records, read_mirror
from pipelines.pushing.resting import can_rule_out, find_suspects
from pipelines.settings import Sync
from pipelines.warehouse import literal
from sources.core.connector import Kind, snake_case

_APPLIES = (
    "(has_ledger and (ledger_id is null or ledger_id is not distinct from record_id or state = 'awaiting'))"
)


def compose(
    con: duckdb.DuckDBPyConnection,
    sync: Sync,
    target: Target,
    mapping: FieldMapping,
    *,
    is_thorough: bool = False,
) -> None:
    """Write `plan_rows`: every row to send and every row held back, the former with `seq` from 1.

    `status` is planned, rejected, skipped, conflict, unknown, adopt or drift. A row of the model may give
    several: what is written of it, what is in conflict, what somebody else edited. With `is_thorough` the
    rows that are plainly at rest are worked through as well, which takes longer and gives the same.
    """
    names = {"connection": target.connection.name, "object": target.write.object}
    resource = {"connection": target.connection.name, "resource": target.write.resource}
    mapping = _fix_model(con, sync, mapping)
    quick = not is_thorough and can_rule_out(mapping, target)
    if quick:
        con.execute(find_suspects(mapping, target), names)
    con.execute(_read_model(mapping, only_suspects=quick))
    con.execute(_collapse_twins(mapping))
    con.execute(read_mirror(mapping, target), names if target.has_mirror else None)
    for query in find_others(mapping, target):
        con.execute(query)
    con.execute(find_contested(mapping), None if mapping.identity.by == "id" else names)
    con.execute(find_records(mapping, target), {**names, **resource})
    con.execute(_judge(mapping))
    con.execute(_list_rows(sync, target, mapping))
    con.execute(_measure(mapping))
    for table in _WORKING:
        con.execute(f"drop table if exists {table}")


_WORKING = (
    "plan_source",
    "plan_suspects",
    "plan_model",
    "plan_candidates",
    "plan_mirror",
    "plan_others",
    "plan_contested",
    "plan_matched",
    "plan_judged",
)


def _fix_model(con: duckdb.DuckDBPyConnection, sync: Sync, mapping: FieldMapping) -> FieldMapping:
    """Keep what a query or view gives, so that every step reads the same rows; a table is read in place."""
    if sync.model is not None and is_base_table(con, sync.model):
        return mapping
    con.execute(f"create or replace temp table plan_source as {mapping.query}")
    return replace(mapping, query="select * from plan_source")


def _measure(mapping: FieldMapping) -> str:
    """Count the model's records: those that were cleared at once and those that were worked through."""
    return f"""
    create or replace temp table plan_size as
    select (select count(*) from ({mapping.query})) - (select count(*) from plan_model)
        + (select count(*) from plan_candidates) as candidates
    """


def _read_model(mapping: FieldMapping, *, only_suspects: bool) -> str:
    values = "".join(f", {field.model} as m{field.number}" for field in mapping.fields)
    some = f"where hash({mapping.key}) in (select hash from plan_suspects)" if only_suspects else ""
    return f"""
    create or replace temp table plan_model as
    select *, {is_valid_key(mapping.identity, "key")} as is_valid from (
        select {mapping.address} as address, {mapping.key} as key{values}
        from ({mapping.query}) as model {some}
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


def _judge(mapping: FieldMapping) -> str:
    """Judge field by field the rows that are not plainly at rest."""
    sent = "".join(f", {_sent(field)}" for field in mapping.fields)
    pointers = "[" + ", ".join(field.pointer for field in mapping.fields) + "]"
    now = "".join(f", {_now(field)}" for field in mapping.fields)
    verdicts = "".join(
        f", {verdict(field.policy, field.number)} as v{field.number}" for field in mapping.fields
    )
    old = ", ".join(f"c{field.number}" for field in mapping.fields)
    return f"""
    create or replace temp table plan_judged as
    with applying as (
        select * replace (
            case when {_APPLIES} then sent end as sent, case when {_APPLIES} then echo end as echo
        ) from plan_matched
    ),
    parsed as (
        select *,
            json_exists(sent, {pointers}) as sent_has, json_extract_string(sent, {pointers}) as sent_texts,
            json_exists(echo, {pointers}) as echo_has, json_extract_string(echo, {pointers}) as echo_texts
        from applying
    ),
    remembered as (
        select * exclude (sent_has, sent_texts, echo_has, echo_texts){sent} from parsed
    ),
    known as (select * exclude ({old}){now} from remembered)
    select *{verdicts} from known
    """


def _sent(field: MappedField) -> str:
    n, place = field.number, field.number + 1
    return (
        f"coalesce(sent_has[{place}], false) as is_sent{n},"
        f" {canonical(field.form, f'sent_texts[{place}]')} as s{n},"
        f" coalesce(echo_has[{place}], false) as is_echoed{n},"
        f" {canonical(field.form, f'echo_texts[{place}]')} as shown{n}"
    )


def _now(field: MappedField) -> str:
    """Write what the CRM holds now, and what it showed for what we sent; until a look, what it accepted."""
    n = field.number
    trusts_sent = f"is_sent{n} and not is_echoed{n} and not is_looked" if field.readable else f"is_sent{n}"
    return (
        f"case when {trusts_sent} then s{n} else c{n} end as c{n},"
        f" case when not is_sent{n} then null when {trusts_sent} then s{n} when is_echoed{n} then shown{n}"
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
        _held("skipped", "'not_there'", "state = 'gone'", fields, "m{n} is not null"),
        _held("unknown", "'unknown_outcome'", f"{_IS_UNKNOWN} and (state <> 'there' or {writes})", fields),
    ]
    if sync.mode == "create":
        is_left_out = f"{_IS_FREE} and state in ('there', 'awaiting') and ({writes})"
        parts.append(_held("skipped", _why_only_created(target, mapping), is_left_out, fields))
    else:
        parts += _updates(target, mapping, writes)
    if sync.mode == "update":
        parts.append(
            _held("skipped", "'not_in_crm'", f"{_IS_FREE} and state = 'missing'", fields, "m{n} is not null")
        )
    else:
        parts += _creates(target, mapping)
    listed = "\n    union all\n    ".join(parts)
    return f"""
    create or replace temp table plan_rows as
    select row_number() over (partition by status = 'planned' order by key, address, status) as seq, * from (
    {listed}
    )
    """


_IS_UNKNOWN = "state not in ('ambiguous', 'gone') and is_unknown"
_IS_FREE = "state not in ('ambiguous', 'gone') and not is_unknown"


def _why_only_created(target: Target, mapping: FieldMapping) -> str:
    is_ours = mapping.identity.by == "row" or not target.has_mirror
    return "'cannot_update'" if is_ours and not can_update(target.write) else "'already_in_crm'"


def _updates(target: Target, mapping: FieldMapping, writes: str) -> list[str]:
    fields = mapping.fields
    is_there = f"{_IS_FREE} and state in ('there', 'awaiting')"
    can_send = "(record_id is not null or ledger_id is not null)"
    wrong = _listed_names([(field, f"v{field.number} = 'write' and {_misfit(field)}") for field in fields])
    # A pull tells a record's id by its key; where there is none, an id that no answer told stays unknown.
    waits = "'awaiting_pull'" if mapping.identity.by == "key" and target.has_mirror else "'id_not_known'"
    update = _row(
        "planned",
        action="'update'",
        fields=_members(fields, "v{n} = 'write'"),
        before=_members(fields, "v{n} = 'write'", letter="c"),
        known=known_record(target, of="plan_judged"),
        source=f"plan_judged where {is_there} and ({writes}) and {can_send} and {wrong} is null",
    )
    held = [
        _held(
            "rejected",
            f"'invalid_value: ' || {wrong}",
            f"{is_there} and {can_send} and {wrong} is not null",
            fields,
        ),
        _held("skipped", waits, f"{is_there} and ({writes}) and not {can_send}", fields),
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


def _creates(target: Target, mapping: FieldMapping) -> list[str]:
    write, has_key = target.write, mapping.identity.by == "key"
    fields = tuple(field for field in mapping.fields if field.is_creatable)
    mapped = {field.name: field for field in fields}
    wrong = _listed_names([(field, _misfit(field)) for field in fields])
    defaults = {
        name: literal(str(value))
        for name, value in write.defaults(target.connection).items()
        if value is not None
    }
    lacking: list[str] = []
    filled = [(write.key, as_json("text", "address"), "true")] if has_key else []
    for name, value in defaults.items():
        field = mapped.get(name)
        filled.append((name, as_json("text", value), f"m{field.number} is null" if field else "true"))
    for name, writable in write.fields.items():
        is_given = name in defaults or (has_key and name == write.key)
        if writable.required and not is_given:
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


def known_record(target: Target, *, of: str) -> str:
    """Write the mirror's record of a row's `record_id` as JSON, as far as it completes a body.

    `of` names the table of the rows.
    """
    write, mirror = target.write, target.mirror
    if not target.has_mirror:
        return "null::varchar"
    members = []
    for name, writable in write.fields.items():
        text = mirror_text(name, mirror) if writable.readable and "." not in name else None
        if text is not None:
            members.append((name, _json_of(writable.kind, text), f"{text} is not null"))
    for name in write.also_known:
        text = mirror_text(name, mirror)
        if text is not None:
            form = form_of_type(mirror.get(snake_case(name), "varchar"))
            members.append((name, as_json(form, canonical(form, text)), f"{text} is not null"))
    text = mirror_text(write.custom_column or write.custom, mirror) if write.custom else None
    if write.custom and text is not None:
        members.append((write.custom, text, f"json_valid({text})"))
    # The inner condition keeps the records of rows at rest from being written as JSON.
    some = f"select * from {target.table} where id in (select record_id from {of})"
    return f"(select {json_object(members)} from ({some}) as mirror where mirror.id = record_id)"


def _json_of(kind: Kind, text: str) -> str:
    form = form_of(kind)
    return as_json(form, text if form == "text" else canonical(form, text))
