-- Open deals that nothing happened to for `quiet_days`: no activity, no move to another stage, no edit.
-- What lies in the future (a planned meeting) counts as life. Days go by the day of the run, `as_of`.
with settings as (
    select 30 as quiet_days
),

spoken as (
    select connection, deal_id, max(coalesce(occurred_at, created_at)) as last_activity_at
    from crm.activities
    where deal_id is not null
    group by connection, deal_id
),

open_deals as (
    select
        deals.connection,
        deals.id,
        deals.title,
        deals.stage,
        deals.amount,
        deals.currency,
        deals.owner,
        deals.expected_close_at,
        spoken.last_activity_at,
        stays.entered_at as in_stage_since,
        deals.updated_at,
        greatest(spoken.last_activity_at, stays.entered_at, deals.updated_at, deals.created_at) as last_sign_at
    from crm.deals as deals
    left join spoken on spoken.connection = deals.connection and spoken.deal_id = deals.id
    left join roundtrip.deal_stages as stays
        on stays.connection = deals.connection and stays.id = deals.id and stays.left_at is null
    where deals.status = 'open'
)

select
    *,
    date_diff('day', last_sign_at, getvariable('as_of')::timestamptz) as quiet_days,
    expected_close_at < getvariable('as_of')::timestamptz as is_overdue
from open_deals
where date_diff('day', last_sign_at, getvariable('as_of')::timestamptz) >= (select quiet_days from settings)
order by quiet_days desc, connection, id
