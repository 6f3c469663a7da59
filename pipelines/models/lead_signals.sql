-- One row per person (e-mail key) over all CRMs: who it is, and what deals and activities say of the interest.
-- `as_of` is set by `roundtrip enrich` to the day of the run, so a score moves by the day and not by the minute.
with people as (
    select
        email_key,
        arg_max(trim(email), coalesce(updated_at, created_at, '1970-01-01'::timestamptz)) as email,
        arg_max(
            coalesce(nullif(first_name, ''), nullif(split_part(full_name, ' ', 1), '')),
            coalesce(updated_at, created_at, '1970-01-01'::timestamptz)
        ) as first_name,
        arg_max(
            coalesce(nullif(last_name, ''), nullif(regexp_extract(full_name, '^\S+\s+(.*)$', 1), '')),
            coalesce(updated_at, created_at, '1970-01-01'::timestamptz)
        ) as last_name,
        arg_max(phone, coalesce(updated_at, created_at, '1970-01-01'::timestamptz)) as phone,
        list_sort(list(distinct connection)) as connections
    from crm.contacts
    where email_key like '%_@_%'
    group by email_key
),

interest as (
    select
        contacts.email_key,
        count(*) filter (activities.occurred_at >= getvariable('as_of') - interval 90 days) as activities_90d,
        max(activities.occurred_at) as last_activity_at
    from crm.activities as activities
    join crm.contacts as contacts
        on contacts.connection = activities.connection and contacts.id = activities.contact_id
    where activities.occurred_at < getvariable('as_of') + interval 1 day
    group by contacts.email_key
),

pipeline as (
    select
        contacts.email_key,
        count(*) filter (deals.status = 'open') as open_deals,
        count(*) filter (deals.status = 'won') as won_deals,
        max(deals.amount) filter (deals.status <> 'lost') as largest_amount,
        max(
            case
                when deals.status = 'won' then 1.0
                when deals.status = 'lost' then 0.0
                when deals.probability is not null then deals.probability
                when lower(deals.stage) like '%negotiation%' then 0.75
                when lower(deals.stage) like '%proposal%' then 0.5
                when lower(deals.stage) like '%qualified%' then 0.25
                else 0.1
            end
        ) as best_stage
    from crm.deals as deals
    join crm.contacts as contacts
        on contacts.connection = deals.connection and contacts.id = deals.contact_id
    group by contacts.email_key
)

select
    people.*,
    coalesce(interest.activities_90d, 0) as activities_90d,
    interest.last_activity_at,
    greatest(date_diff('day', interest.last_activity_at, getvariable('as_of')::timestamptz), 0)
        as days_since_activity,
    coalesce(pipeline.open_deals, 0) as open_deals,
    coalesce(pipeline.won_deals, 0) as won_deals,
    pipeline.largest_amount,
    pipeline.best_stage
from people
left join interest using (email_key)
left join pipeline using (email_key)
order by email_key
