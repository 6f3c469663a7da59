-- What the questions of `roundtrip report` share, in the reader's temporary schema. The variables
-- connections, since, now and max_stages are set before.

-- No text of a CRM makes the page long.
create or replace temp macro clipped(text, longest) as
    case when length(text) > longest then left(text, longest - 1) || '…' else text end;

-- One stage may be spelt `closed-won` in one CRM and `Closed Won` in another.
create or replace temp macro stage_key(stage) as
    coalesce(nullif(clipped(lower(trim(regexp_replace(stage, '[\s_-]+', ' ', 'g'))), 80), ''), '(no stage)');

-- Who a record is must not travel with the page. Reasons lose addresses and long numbers, and so are the same
-- for all records with one reason; of a key its first letter is left, and of an address its domain.
create or replace temp macro masked_text(text) as
    clipped(
        regexp_replace(
            text, '[^\s@<>"(),;:\[\]]+@[^\s@<>"''(),;\[\]{}]+|\+\d[\d ().-]{5,}\d|\d{9,}', '***', 'g'
        ),
        300
    );
create or replace temp macro masked_key(key) as
    left(key, 1) || '***'
    || coalesce(clipped(regexp_extract(key, '^[^@]+(@[^\s@]+\.[^\s@]+)$', 1), 120), '');

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

-- What became of each stay in an open stage that ended in the period, by where the deal went next.
create or replace temp table stage_ends as
with moves as (
    select
        stage,
        entered_at,
        left_at,
        lead(stage) over (partition by connection, id order by entered_at, left_at nulls last) as next_stage
    from shown_stays
)

select
    here.stage,
    here.position,
    epoch(moves.left_at - moves.entered_at) / 86400 as days,
    case
        when moves.next_stage is null then 'gone'
        when meaning.status in ('won', 'lost') then meaning.status
        when there.position < here.position then 'back'
        else 'onward'
    end as outcome
from moves
join open_stages as here on here.stage = moves.stage
left join open_stages as there on there.stage = moves.next_stage
left join stage_meanings as meaning on meaning.stage = moves.next_stage
where moves.left_at >= getvariable('since');
