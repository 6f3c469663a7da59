-- The same person in several CRMs: one row per pair of contacts, with the reason for the match.
-- Reasons, the surest first: the same address; the same telephone and a common name; the same name and company.
-- A number or name that more than `most` contacts share (a switchboard, a made-up name) says nothing.
with settings as (
    select 10 as most
),

people as (
    select
        connection,
        id,
        email_key,
        full_name,
        lower(strip_accents(regexp_replace(trim(full_name), '\s+', ' ', 'g'))) as name_key,
        right(regexp_replace(phone, '\D', '', 'g'), 9) as phone_key,
        nullif(lower(trim(company)), '') as company_key,
        updated_at
    from crm.contacts
),

keys as (
    select connection, id, 1 as rank, 'same address' as reason, email_key as key
    from people where email_key like '%_@_%'
    union all
    select connection, id, 2, 'same telephone and name', phone_key || ' ' || name_key
    from people where length(phone_key) >= 7 and name_key <> ''
    union all
    select connection, id, 3, 'same name and company', name_key || ' ' || company_key
    from people where name_key like '% %' and company_key is not null
),

telling as (
    select * from keys
    qualify count(*) over (partition by rank, key) <= (select most from settings)
),

pairs as (
    select one.connection, one.id, two.connection as other_connection, two.id as other_id,
        min_by(one.reason, one.rank) as reason, list_sort(list(distinct one.reason)) as reasons
    from telling as one
    join telling as two
        on one.rank = two.rank and one.key = two.key and one.connection < two.connection
    group by all
)

select
    pairs.reason,
    pairs.connection,
    pairs.id,
    one.full_name,
    one.email_key,
    pairs.other_connection,
    pairs.other_id,
    two.full_name as other_full_name,
    two.email_key as other_email_key,
    pairs.reasons,
    greatest(one.updated_at, two.updated_at) as last_updated_at
from pairs
join people as one on one.connection = pairs.connection and one.id = pairs.id
join people as two on two.connection = pairs.other_connection and two.id = pairs.other_id
order by pairs.connection, pairs.id, pairs.other_connection, pairs.other_id
