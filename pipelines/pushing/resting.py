"""Tell quickly which rows of a model may be more than plainly at rest, so that only those are worked through.

One pass over model, mirror and ledger that compares hashes of raw values: what it clears is at rest for sure,
what it leaves is judged in full by `matching` and `outbox`. Rows that no natural key identifies are all left.
"""

from pipelines.pushing.identity import ID, is_valid_key, key_in_mirror
from pipelines.pushing.mapping import FieldMapping, MappedField
from pipelines.pushing.matching import Target


def can_rule_out(mapping: FieldMapping, target: Target) -> bool:
    """Tell whether rows can be cleared in one pass: by the key or the id that the mirror shows."""
    return target.has_mirror and mapping.identity.by in ("key", "id")


def find_suspects(mapping: FieldMapping, target: Target) -> str:
    """Write the query for `plan_suspects`: hashes of the keys whose rows are not plainly at rest.

    A key that occurs twice, in the model or in the mirror, is never at rest here. Two keys with one hash
    make each other suspects, no more.
    """
    # The model's side of the join streams by; the mirror's is held in memory, so it holds hashes only.
    shown = "".join(f", {_shown(field)}" for field in mapping.fields if _is_compared(field))
    wished = "".join(f", {field.quick_model} as q{field.number}" for field in mapping.fields)
    rests = " and ".join(_rests(field) for field in mapping.fields) or "true"
    key = "mirror.id" if mapping.identity.by == ID else key_in_mirror(target.write, target.mirror)
    return f"""
    create or replace temp table plan_suspects as
    with wish as (
        select * exclude (key), hash(key) as hash, {is_valid_key(mapping.identity, "key")} as is_valid
        from (select {mapping.key} as key{wished} from ({mapping.query}) as model)
    ),
    record as (
        select hash({key}) as hash, hash(id) as id_hash, _synced_at{shown}
        from (select mirror.*{mapping.custom} from {target.table} as mirror) as mirror
        where _deleted_at is null
    ),
    pushed as (
        select hash(key) as hash, case when crm_id is not null then hash(crm_id) end as id_hash,
            case when echo_at >= pushed_at then echo_at end as settled_at from roundtrip.ledger
        where connection = $connection and object = $object
    ),
    judged as (
        select wish.hash,
            wish.is_valid and record.id_hash is not null and {rests}
            and (
                pushed.hash is null
                or (
                    record._synced_at <= pushed.settled_at
                    and coalesce(pushed.id_hash = record.id_hash, true)
                )
            ) as is_at_rest
        from wish
        left join record on record.hash = wish.hash
        left join pushed on pushed.hash = wish.hash
    )
    select hash from judged group by hash having count(*) > 1 or not coalesce(bool_and(is_at_rest), false)
    """


def _is_compared(field: MappedField) -> bool:
    return field.readable and not field.is_key and field.policy.write != "on_create"


def _shown(field: MappedField) -> str:
    if field.policy.write == "if_empty":
        return f"{field.crm} is not null as q{field.number}"
    return f"hash({field.quick_crm}) as q{field.number}"


def _rests(field: MappedField) -> str:
    """Write the condition under which nothing is to be done about a field, as far as raw values tell."""
    wish, shown = f"wish.q{field.number}", f"record.q{field.number}"
    if field.is_key or field.policy.write == "on_create":
        return "true"
    if not field.readable:
        return f"{wish} is null"
    if field.policy.write == "if_empty":
        return f"({wish} is null or {shown})"
    same = f"hash({wish}) = {shown}"
    return same if field.policy.clears else f"({wish} is null or {same})"
