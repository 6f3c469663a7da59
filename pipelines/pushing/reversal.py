"""The rows of an undo's plan, in SQL: what goes back, what is deleted or made again, what is left and why.

Reads the tables that `restoring` fills: the run's rows as they stand now (`undo_found`), and what is to
become of each of their fields (`undo_judged`).
"""

from dataclasses import replace

from pipelines.pushing.compare import Form, as_json, pointer
from pipelines.pushing.identity import identity_of, mirror_text
from pipelines.pushing.matching import Target
from pipelines.pushing.outbox import known_record
from pipelines.warehouse import literal
from sources.core.lanes import DELETE

_EMPTY = ("", "0", "0.0", "false", "[]", "{}")  # what stands in a field that nobody has filled in
_TYPED: tuple[Form, ...] = ("number", "bool", "json")  # all others are texts in JSON


def list_rows(target: Target, *, delete_created: bool) -> str:
    """Write the table `plan_rows`; it takes the run, the columns of its fields, connection and object."""
    can_delete = DELETE in target.write.lanes
    parts = [
        _updates(target),
        _left("'unknown_outcome'", "found.status = 'unknown'"),
        _deletions()
        if delete_created and can_delete
        else _left("'created'" if can_delete else "'cannot_delete'", "found.status = 'created'"),
        _revivals(),
    ]
    listed = "\n    union all\n    ".join(parts)
    return f"""
    create or replace temp table plan_rows as
    with bundles as (
        select number, verdict, max(later_run) as later_run,
            bool_or(field = {literal(target.write.key)}) as has_key,
            {_object_of("was_json")} as fields, {_object_of(_now_json())} as before
        from undo_judged group by number, verdict
    ),
    made as ({_made(target)})
    select row_number() over (partition by status = 'planned' order by key, address, status) as seq, * from (
    {listed}
    )
    """


def _object_of(value: str) -> str:
    return f"'{{' || string_agg(to_json(field)::varchar || ': ' || {value}, ', ' order by field) || '}}'"


def _now_json() -> str:
    typed = " ".join(f"when '{form}' then {as_json(form, 'now')}" for form in _TYPED)
    return f"case form {typed} else {as_json('text', 'now')} end"


def _made(target: Target) -> str:
    """Write the query for the records that the run made, and why one of them is not to be deleted."""
    is_foreign = """
    exists (
        from roundtrip.changes as change
        where change.connection = $connection and change.resource = $object and change.id = found.record_id
            and change.origin = 'crm' and change.kind = 'updated' and change.run_id > $run
            and not list_contains($columns, change.field)
    )
    """
    is_seen = "false" if target.has_mirror else "true"
    mirror = f"left join {target.table} as mirror on mirror.id = found.record_id" if target.has_mirror else ""
    return f"""
    select found.*, edited.fields, edited.before,
        case
            when {is_seen} then 'not_readable'
            when found.is_gone then 'gone'
            when found.record_id is null then 'id_not_known'
            when edited.number is not null or {is_foreign} or {_is_added_to(target)} then 'edited_since'
            when again.number is not null then 'sent_again: ' || again.later_run
        end as why
    from undo_found as found
    {mirror}
    left join bundles as edited on edited.number = found.number and edited.verdict = 'edited_since'
    left join bundles as again on again.number = found.number and again.verdict = 'sent_again'
    where found.status = 'created'
    """


def _is_added_to(target: Target) -> str:
    """Tell whether a record has a value that neither we sent nor the CRM gives, as the mirror shows it."""
    parts = ["false"]
    for name, writable in target.write.fields.items() if target.has_mirror else ():
        is_asked = writable.readable and writable.given != "*" and "." not in name
        text = mirror_text(name, target.mirror) if is_asked else None
        if text is not None:
            empty = ", ".join(literal(each) for each in (*_EMPTY, *filter(None, [writable.given])))
            is_sent = f"coalesce(json_exists(found.ledger_sent, {pointer(name)}), false)"
            parts.append(f"({text} not in ({empty}) and not {is_sent})")
    return "coalesce(" + " or ".join(parts) + ", false)"


def _row(  # noqa: PLR0913 (the columns of a plan, all by name)
    *,
    action: str,
    status: str,
    reason: str,
    source: str,
    fields: str = "'{}'",
    before: str = "'{}'",
    match: str = "'id'",
    known: str = "null::varchar",
) -> str:
    return f"""
    select real_key as key, found.key as address, record_id as crm_id, {action} as action, {match} as match,
        {status} as status, {reason} as reason, {fields} as fields, {before} as before, {known} as known,
        ledger_sent::varchar as sent, echo::varchar as echo, is_looked
    from {source}
    """


def _left(reason: str, condition: str) -> str:
    source = f"undo_found as found where {condition}"
    return _row(action="null::varchar", status="'skipped'", reason=reason, source=source)


def _updates(target: Target) -> str:
    """Write what becomes of the fields that the run changed: restored, edited since, or left for a reason."""
    is_by_id = "true"
    if identity_of(target.write.key, target.write).by == "key":
        is_by_id = (
            "has_key or (is_seen and undo_key is distinct from real_key) or coalesce(records > 1, false)"
        )
    # A version that was pulled before the CRM's last change is not the one that the record has now.
    unversioned = replace(target, write=replace(target.write, also_known=()))
    full, stale = (known_record(each, of="undo_found") for each in (target, unversioned))
    return _row(
        action="'update'",
        status="case when verdict = 'edited_since' then 'conflict'"
        " when verdict = 'write' and record_id is not null then 'planned' else 'skipped' end",
        reason="case when verdict = 'sent_again' then 'sent_again: ' || later_run"
        " when verdict <> 'write' then verdict when record_id is null then 'id_not_known' end",
        match=f"case when {is_by_id} then 'id' else 'key' end",
        fields="fields",
        before="before",
        known=f"case when verdict = 'write' then case when is_looked then {full} else {stale} end end",
        source="undo_found as found join bundles using (number)"
        " where found.status = 'updated' and verdict <> 'rest'",
    )


def _deletions() -> str:
    """Write what becomes of the records that the run made, which go where nobody has made them theirs."""
    return _row(
        action="'delete'",
        status="case when why is null then 'planned' when why = 'edited_since' then 'conflict'"
        " else 'skipped' end",
        reason="why",
        fields="coalesce(fields, '{}')",
        before="coalesce(before, case when why is null then ledger_sent::varchar end, '{}')",
        source="made as found",
    )


def _revivals() -> str:
    """Write what becomes of the records that the run deleted: made again, from what we had sent to them."""
    filled = """
    (
        select '{' || string_agg(to_json(pair.key)::varchar || ': ' || pair.value::varchar, ', ') || '}'
        from (select unnest(map_entries(found.replaced::map(varchar, json))) as pair)
        where json_type(pair.value) <> 'NULL'
    )
    """
    is_back = "(ledger_key is not null or coalesce(records > 0, false))"
    return _row(
        action="'create'",
        status=f"case when {is_back} then 'skipped' else 'planned' end",
        reason=f"case when {is_back} then 'already_in_crm' end",
        fields=f"coalesce({filled}, '{{}}')",
        match="'new'",
        source="undo_found as found where found.status = 'deleted'",
    )
