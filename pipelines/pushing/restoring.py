"""Compose the plan of an undo in SQL: what a run sent and replaced, mirror and ledger in, `plan_rows` out.

A field goes back to what it was where the CRM still shows what was sent, by the same rule of echoes as in a
plan. Temporary tables only. Which rows come of it is `reversal`'s, the order of steps and the seal `undo`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from pipelines.pushing.compare import Form, canonical, is_echo, pointer
from pipelines.pushing.identity import (
    can_update,
    identity_of,
    key_form_of,
    key_in_mirror,
    logged_key_sql,
    mirror_text,
    place_in_mirror,
    shown_key_sql,
)
from pipelines.pushing.mapping import writable_of
from pipelines.pushing.matching import Target
from pipelines.pushing.reversal import list_rows
from pipelines.warehouse import literal, quoted

# How the types of a log's JSON values are compared, for custom fields, whose type nobody declares.
_FORMS: Mapping[str, Form] = {
    "BOOLEAN": "bool",
    "OBJECT": "json",
    "ARRAY": "json",
    **dict.fromkeys(("BIGINT", "UBIGINT", "HUGEINT", "DOUBLE"), "number"),
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field that a run sent: how it is compared, and what the CRM shows for it (SQL, None: nothing)."""

    name: str
    form: Form
    shown: str | None
    columns: tuple[str, ...]
    can_change: bool
    can_clear: bool


def compose_undo(
    con: duckdb.DuckDBPyConnection, run_id: str, target: Target, *, delete_created: bool
) -> None:
    """Write `plan_rows` for the undo of a run, and `plan_size`: how many records the run had written."""
    names = {"connection": target.connection.name, "object": target.write.object}
    con.execute(_UNDO_LOG, {"run": run_id})
    fields = _fields(con, target)
    con.execute(_find(target), names)
    con.execute(_LATER, {**names, "run": run_id})
    con.execute(_judge(target, fields))
    columns = sorted({column for field in fields for column in field.columns})
    con.execute(
        list_rows(target, delete_created=delete_created), {**names, "run": run_id, "columns": columns}
    )
    con.execute("create or replace temp table plan_size as select count(*) as candidates from undo_log")
    for table in ("undo_log", "undo_found", "undo_later", "undo_judged"):
        con.execute(f"drop table {table}")


_UNDO_LOG = """
create or replace temp table undo_log as
select row_number() over (order by key, crm_id) as number, key, exact_key, crm_id, status, sent, replaced,
    pushed_at
from roundtrip.push_log
where run_id = $run and status in ('created', 'updated', 'deleted', 'unknown')
"""

# What later runs wrote of the same records, field by field: found by the key or by the id. Pushes that were
# themselves taken back, so that the field has again what it had before them, are as if they had not been.
_LATER = """
create or replace temp table undo_later as
with undone as (
    select distinct substr(command, length('undo ') + 1) as run_id
    from roundtrip.runs where starts_with(command, 'undo ')
),
later as (
    select log.run_id, log.key, log.crm_id, log.pushed_at, log.sent, log.replaced,
        unnest(json_keys(log.sent)) as field,
        log.status = 'updated'
            and coalesce(undone.run_id is not null or starts_with(runs.command, 'undo '), false) as is_paired
    from roundtrip.push_log as log
    left join undone on undone.run_id = log.run_id
    left join roundtrip.runs as runs on runs.run_id = log.run_id
    where connection = $connection and object = $object and log.run_id <> $run
        and log.status in ('created', 'updated', 'unknown')
        and pushed_at >= (select min(pushed_at) from undo_log)
),
wrote as (
    select *, '/' || replace(replace(field, '~', '~0'), '/', '~1') as place,
        case when is_paired then json_extract(sent, place)::varchar end as value,
        case when is_paired then json_extract(replaced, place)::varchar end as was
    from later
),
hits as (
    select undo_log.number, wrote.* exclude (sent, replaced)
    from undo_log join wrote on wrote.key = undo_log.key and wrote.pushed_at >= undo_log.pushed_at
    union all
    select undo_log.number, wrote.* exclude (sent, replaced)
    from undo_log join wrote on wrote.crm_id = undo_log.crm_id and wrote.pushed_at >= undo_log.pushed_at
)
select number, field, max_by(run_id, pushed_at) as run_id from hits group by number, field
having not coalesce(bool_and(is_paired) and min_by(was, pushed_at) = max_by(value, pushed_at), false)
"""


def _fields(con: duckdb.DuckDBPyConnection, target: Target) -> list[Field]:
    rows = con.execute(
        """
        select pair.key, max(nullif(json_type(pair.value), 'NULL'))
        from (select unnest(map_entries(sent::map(varchar, json))) as pair from undo_log)
        group by 1 order by 1
        """
    ).fetchall()
    return [_field(target, name, kind) for name, kind in rows]


def _field(target: Target, name: str, json_type: str | None) -> Field:
    write, mirror = target.write, target.mirror
    form = _FORMS.get(json_type or "", "text")
    if name in write.fields:
        form = key_form_of(identity_of(write.key, write), name, write)
    place = place_in_mirror(write, name, mirror) if target.has_mirror else None
    writable = writable_of(write, name)
    return Field(
        name,
        form,
        None if place is None else _shown(place, mirror),
        () if place is None or place[1] else (place[0],),
        writable.updatable and can_update(write),
        writable.clearable and not writable.required,
    )


def _shown(place: tuple[str, str], mirror: Mapping[str, str]) -> str | None:
    column, key = place
    return (
        f"json_extract_string(mirror.{quoted(column)}, {pointer(key)})"
        if key
        else mirror_text(column, mirror)
    )


def _find(target: Target) -> str:
    """Write the query that finds each row's record, and what is known of it, as `undo_found`."""
    write, has_key = target.write, identity_of(target.write.key, target.write).by == "key"
    natural_key = key_in_mirror(write, target.mirror) if has_key and target.has_mirror else "null::varchar"
    mirror = (
        f"select mirror.*, {natural_key} as undo_key from {target.table} as mirror"
        if target.has_mirror
        else _NO_MIRROR
    )
    return f"""
    create or replace temp table undo_found as
    with looked as (
        select max(last_complete_at) as at from roundtrip.resource_state
        where connection = $connection and resource = {literal(write.resource)}
    ),
    mirror as ({mirror}),
    keyed as (
        select undo_key, count(*) as records, min(id) as id
        from mirror where _deleted_at is null and undo_key is not null group by undo_key
    ),
    remembered as (
        select undo_log.*, ledger.key as ledger_key, ledger.sent as ledger_sent, ledger.echo,
            ledger.pushed_at as last_push, coalesce(ledger.sent_at, ledger.pushed_at) as last_sent,
            coalesce(undo_log.crm_id, ledger.crm_id, case when keyed.records = 1 then keyed.id end)
                as record_id,
            coalesce(ledger.key, {logged_key_sql("undo_log", write)}) as real_key
        from undo_log
        left join roundtrip.ledger as ledger
            on ledger.connection = $connection and ledger.object = $object
            and {shown_key_sql("ledger.key")} = undo_log.key
            and (ledger.crm_id is null or undo_log.crm_id is null or ledger.crm_id = undo_log.crm_id)
        left join keyed on keyed.undo_key = ledger.key
    ),
    placed as (
        select remembered.*, mirror.id is not null as is_seen, mirror._deleted_at is not null as is_deleted,
            mirror.undo_key, keyed.records,
            coalesce(looked.at > remembered.last_push or mirror._synced_at > remembered.last_sent, false)
                as is_looked
        from remembered
        cross join looked
        left join mirror on mirror.id = remembered.record_id
        left join keyed on keyed.undo_key = remembered.real_key
    )
    select *, ledger_key is null or is_deleted or (is_looked and not is_seen) as is_gone
    from placed
    """


_NO_MIRROR = """
select null::varchar as id, null::varchar as undo_key, null::timestamptz as _synced_at,
    null::timestamptz as _deleted_at
where false
"""

# -- fields --------------------------------------------------------------------------------------


def _judge(target: Target, fields: list[Field]) -> str:
    """Write the table `undo_judged`: what is to become of each field of each row."""
    values = "\n    union all\n    ".join(_values(target, field) for field in fields) or _NO_VALUES
    trusts = "(is_remembered and not is_echoed and not is_looked)"
    return f"""
    create or replace temp table undo_judged as
    with valued as ({values}),
    known as (
        select *, case when {trusts} then remembered else crm end as now,
            case when {trusts} then remembered when is_echoed then echoed
                when {is_echo("remembered", "crm")} then crm else remembered end as expected
        from valued
    )
    select known.number, known.field, was_json, known.now, form, later.run_id as later_run,
        case
            when not is_readable then 'not_readable'
            when is_gone then 'gone'
            when status = 'updated' and not is_replaced_known then 'not_known'
            when later.run_id is not null then 'sent_again'
            when status = 'updated' and now is not distinct from was then 'rest'
            when now is distinct from expected or remembered is distinct from sent then 'edited_since'
            when not can_change then 'cannot_change'
            when was is null and not can_clear then 'cannot_clear'
            else 'write'
        end as verdict
    from known
    left join undo_later as later on later.number = known.number and later.field = known.field
    """


_NO_VALUES = """
select null::bigint as number, '' as status, '' as field, 'text' as form, '' as was_json, '' as sent,
    '' as was, '' as remembered, '' as echoed, '' as crm, false as is_replaced_known,
    false as is_remembered, false as is_echoed, false as is_looked, false as is_gone, false as is_readable,
    false as can_change, false as can_clear
where false
"""


def _values(target: Target, field: Field) -> str:
    def text(of: str) -> str:
        return canonical(field.form, f"json_extract_string(found.{of}, {pointer(field.name)})")

    def has(of: str) -> str:
        return f"coalesce(json_exists(found.{of}, {pointer(field.name)}), false)"

    join = f"left join {target.table} as mirror on mirror.id = found.record_id" if field.shown else ""
    return f"""
    select found.number, found.status, {literal(field.name)} as field, '{field.form}' as form,
        coalesce(json_extract(found.replaced, {pointer(field.name)})::varchar, 'null') as was_json,
        {text("sent")} as sent, {text("replaced")} as was,
        {text("ledger_sent")} as remembered, {text("echo")} as echoed,
        {canonical(field.form, field.shown) if field.shown else "null::varchar"} as crm,
        {has("replaced")} as is_replaced_known, {has("ledger_sent")} as is_remembered,
        {has("echo")} as is_echoed, found.is_looked, found.is_gone,
        {_bool(field.shown is not None)} as is_readable, {_bool(field.can_change)} as can_change,
        {_bool(field.can_clear)} as can_clear
    from undo_found as found {join}
    where {has("sent")}
    """


def _bool(value: bool) -> str:
    return "true" if value else "false"
