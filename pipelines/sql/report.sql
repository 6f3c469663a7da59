-- What the questions of `roundtrip report` share, in the reader's temporary schema. The variables
-- connections, since, now and max_stages are set before.

-- One stage may be spelt `closed-won` in one CRM and `Closed Won` in another.
create or replace temp macro stage_key(stage) as
    coalesce(nullif(lower(trim(regexp_replace(stage, '[\s_-]+', ' ', 'g'))), ''), '(no stage)');

-- Who a record is must not travel with the page. Reasons lose addresses and long numbers, and so are the same
-- for all records with one reason; of a key its first letter is left, and of an address its domain.
create or replace temp macro masked_text(text) as
    regexp_replace(
        text, '[^\s@<>"(),;:\[\]]+@[^\s@<>"''(),;\[\]{}]+|\+\d[\d ().-]{5,}\d|\d{9,}', '***', 'g'
    );
create or replace temp macro masked_key(key) as
    left(key, 1) || '***' || coalesce(regexp_extract(key, '^[^@]+(@[^\s@]+\.[^\s@]+)$', 1), '');

create or replace temp table shown_deals as
select
    connection,
    id,
    stage_key(stage) as stage,
    status,
    amount,
    coalesce(nullif(upper(trim(currency)), ''), '') as currency,
    probability,
    case when closed_at <= getvariable('now') then closed_at end as closed_at
from crm.deals
where list_contains(getvariable('connections'), connection);

create or replace temp table shown_stays as
select connection, id, stage_key(stage) as stage, entered_at, left_at
from roundtrip.deal_stages
where list_contains(getvariable('connections'), connection);

-- What standing in a stage means for a deal: whether it is open, won or lost there.
create or replace temp table stage_meanings as
select stage, mode(status) as status
from shown_deals
group by stage;

-- The open stages, in the order deals usually go through them: by the probability that the CRMs give,
-- else by what such stages are mostly called.
create or replace temp table open_stages as
with counted as (
    select stage, count(*) as deals, avg(probability) as probability
    from shown_deals
    where status = 'open'
    group by stage
    union all
    select stage, 0, null
    from shown_stays
    left join stage_meanings using (stage)
    where coalesce(status, 'open') = 'open' and left_at >= getvariable('since')
    group by stage
),

merged as (
    select stage, sum(deals) as deals, max(probability) as probability
    from counted
    group by stage
    order by deals desc, stage
    limit getvariable('max_stages')
)

select
    stage,
    row_number() over (
        order by
            coalesce(
                probability,
                case
                    when stage similar to '.*(new|lead|prospect|incoming|inbox).*' then 0.1
                    when stage similar to '.*(qualif|contacted|discovery).*' then 0.25
                    when stage similar to '.*(demo|meeting|evaluat|trial).*' then 0.35
                    when stage similar to '.*(proposal|quote|offer).*' then 0.5
                    when stage similar to '.*(negotiat|review|legal|contract).*' then 0.75
                end
            ) nulls last,
            deals desc,
            stage
    ) as position
from merged;

create or replace temp table shown_runs (
    run_id varchar primary key,
    command varchar,
    started_at timestamptz,
    finished_at timestamptz,
    status varchar,
    error varchar
);
insert into shown_runs
select run_id, command, started_at, finished_at, status, error
from roundtrip.runs
where started_at >= getvariable('since');
