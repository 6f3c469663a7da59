-- Roundtrip's own tables. Run at the start of every generation; every statement may be repeated.
create schema if not exists roundtrip;
create schema if not exists crm;
create schema if not exists marts;

create table if not exists roundtrip.runs (
    run_id varchar primary key,
    command varchar,
    started_at timestamptz,
    finished_at timestamptz,
    status varchar,
    counts json,
    error varchar
);

create table if not exists roundtrip.changes (
    run_id varchar,
    connection varchar,
    resource varchar,
    id varchar,
    field varchar,
    old_value varchar,
    new_value varchar,
    changed_at timestamptz,
    kind varchar,
    origin varchar
);

create table if not exists roundtrip.deal_stays (
    connection varchar,
    id varchar,
    stage varchar,
    entered_at timestamptz,
    left_at timestamptz
);

create or replace view roundtrip.deal_stages as
select
    connection,
    id,
    stage,
    entered_at,
    left_at,
    round(epoch(coalesce(left_at, now()) - entered_at) / 86400, 3) as days
from roundtrip.deal_stays;

-- A view that is replaced loses its comments; those of the tables are written by `dictionary`.
begin;
comment on view roundtrip.deal_stages is 'One row per stay of a deal in a stage, with its length';
comment on column roundtrip.deal_stages.connection is 'The connection';
comment on column roundtrip.deal_stages.id is 'The record''s id in the CRM';
comment on column roundtrip.deal_stages.stage is 'The stage, as in `crm.deals`';
comment on column roundtrip.deal_stages.entered_at is 'When the deal came into the stage';
comment on column roundtrip.deal_stages.left_at is 'When the deal left the stage; null while it is there';
comment on column roundtrip.deal_stages.days is 'Length of the stay in days, up to now where it goes on';
commit;

create table if not exists roundtrip.push_log (
    run_id varchar,
    sync varchar,
    connection varchar,
    object varchar,
    key varchar,
    crm_id varchar,
    action varchar,
    status varchar,
    sent json,
    replaced json,
    error varchar,
    batch_id varchar,
    pushed_at timestamptz
);

-- What reading a row back told: verified, differs or not_seen, and the values; null where it was not asked for.
-- Older warehouses lack the columns.
alter table roundtrip.push_log add column if not exists verified varchar;
alter table roundtrip.push_log add column if not exists shown json;

-- A key of several parts as it is compared; `key` shows it, and what it shows cannot always be taken apart again.
alter table roundtrip.push_log add column if not exists exact_key varchar;

-- What a CRM accepted from us, per record and field (`sent`), and what it showed for it afterwards (`echo`).
create table if not exists roundtrip.ledger (
    connection varchar,
    object varchar,
    key varchar,
    crm_id varchar,
    sent json,
    echo json,
    run_id varchar,
    pushed_at timestamptz,
    echo_at timestamptz
);

-- When a row was sent; `pushed_at` is when its outcome was known. Older warehouses lack the column.
alter table roundtrip.ledger add column if not exists sent_at timestamptz;

-- How far each resource has been read. `last_complete_at`: everything changed before it has been looked at.
create table if not exists roundtrip.resource_state (
    connection varchar,
    resource varchar,
    strategy varchar,
    watermark timestamptz,
    feed_watermark timestamptz,
    page_token varchar,
    pass_started_at timestamptz,
    last_complete_at timestamptz,
    last_full_at timestamptz,
    last_error varchar,
    counts json,
    primary key (connection, resource)
);

-- A pass that was cut belongs to the window it was read in; older warehouses lack the column.
alter table roundtrip.resource_state add column if not exists pass_since timestamptz;

-- When a resource had been read whole for the first time: its history begins there, and outlives a new start.
alter table roundtrip.resource_state add column if not exists history_from timestamptz;

-- Until when the records have landed that a list is asked for one by one; later ones have not been asked for.
alter table roundtrip.resource_state add column if not exists fanned_at timestamptz;

-- Whose records these are; those of another resource have not been asked for. Older warehouses lack the column.
alter table roundtrip.resource_state add column if not exists fanned_by varchar[];

-- Which CRM and contract each connection's tables were read by, and with which options (never a key).
create table if not exists roundtrip.connections (
    connection varchar primary key,
    crm varchar,
    contract varchar,
    options json
);

-- What the tables of a connection must not hold (`exclude`, `hash`), null where nothing; older ones lack it.
alter table roundtrip.connections add column if not exists privacy json;

-- Rows that somebody dismissed; `row_hash` is of the values that they would have written.
create table if not exists roundtrip.dismissed (
    sync varchar,
    key varchar,
    row_hash varchar,
    dismissed_at timestamptz
);

-- Records of people who were forgotten: pulls do not store them again.
create table if not exists roundtrip.forgotten (
    connection varchar,
    resource varchar,
    id varchar,
    forgotten_at timestamptz
);

-- The keyed digest of the address, by which a push knows them; older warehouses lack the column.
alter table roundtrip.forgotten add column if not exists key_digest varchar;
