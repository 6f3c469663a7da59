"""Syncs to both contracts of Reevo as a whole: model, plan, push, pull again."""

from pathlib import Path

import pytest

from sources.core.errors import ConfigError
from sources.sandbox import Sandbox
from tests.delivering import Desk


@pytest.mark.parametrize("version", ["v2", "v1"])
def test_contacts_are_synced_and_a_second_cycle_sends_nothing(tmp_path: Path, version: str) -> None:
    key = "primary_email" if version == "v2" else "email"
    sync = f'object = "contacts"\nmodel = "marts.leads"\nkey = "{key}"\n[syncs.leads.fields]\n'
    fields = f'{key} = "mail"\nfirst_name = "first"\ntitle = "job"\n'
    with Sandbox(records=10) as box:
        desk = Desk(tmp_path, box, "reevo", sync + fields, api_version=version)
        desk.pull("reevo.accounts", "reevo.contacts")
        desk.model("select 'Lee@pier.example' as mail, 'Lee' as first, 'CEO' as job")
        first, quiet = desk.push(), desk.push()
        assert (first.counts["created"], quiet.counts["unchanged"], first.exit_code) == (1, 1, 0)
        desk.pull("reevo.accounts", "reevo.contacts")
        desk.model("select 'lee@pier.example' as mail, 'Lee' as first, 'Boss' as job")
        assert desk.push().counts["updated"] == 1
        (held,) = box.tenant("reevo").records("contacts", first_name="Lee", title="Boss")
        assert held["primary_email"] == "Lee@pier.example"


def two_addresses(box: Sandbox) -> str:
    """Make a contact with two addresses and give its id."""
    listed = [{"email": "lee@pier.example", "is_primary": True}, {"email": "old@pier.example"}]
    made = box.tenant("reevo").create(
        "contacts", primary_email="lee@pier.example", contact_emails=listed, first_name="Lee", title="CEO"
    )
    return str(made["id"])


POLICIES = (
    'object = "contacts"\nmodel = "marts.leads"\nkey = "primary_email"\n[syncs.leads.fields]\n'
    'primary_email = "mail"\nfirst_name = { column = "first", write = "if_empty" }\ntitle = "job"\n'
)


def test_a_contact_is_found_by_any_of_its_addresses(tmp_path: Path) -> None:
    with Sandbox(records=10) as box:
        crm_id = two_addresses(box)
        desk = Desk(tmp_path, box, "reevo", POLICIES, api_version="v2")
        desk.pull("reevo.contacts")
        for job in ("Boss", "Chair"):
            desk.model(f"select 'Old@pier.example' as mail, 'Model' as first, '{job}' as job")
            first, quiet = desk.push(), desk.push()
            assert (first.counts["updated"], quiet.counts["unchanged"]) == (1, 1)
            desk.pull("reevo.contacts")
            held = box.tenant("reevo").find("contacts", id=crm_id)
            shown = (held["first_name"], held["title"], held["primary_email"])
            assert shown == ("Lee", job, "lee@pier.example")


def test_rows_for_two_addresses_of_one_contact_are_held_back(tmp_path: Path) -> None:
    with Sandbox(records=10) as box:
        two_addresses(box)
        desk = Desk(tmp_path, box, "reevo", POLICIES, api_version="v2")
        desk.pull("reevo.contacts")
        mails = "unnest(['old@pier.example', 'lee@pier.example'])"
        desk.model(f"select {mails} as mail, 'Model' as first, 'Boss' as job")
        assert [row["reason"] for row in desk.push().rows] == ["ambiguous", "ambiguous"]


def a_sync(name: str, key: str, *fields: str, mode: str = "upsert") -> str:
    """Declare a sync whose fields are filled from columns of their own last name."""
    mapped = "".join(f'"{each}" = "{each.rpartition(".")[2]}"\n' for each in fields)
    head = f'object = "{name}"\nmodel = "marts.leads"\nkey = "{key}"\nmode = "{mode}"\n'
    return f"{head}[syncs.leads.fields]\n{mapped}"


@pytest.mark.parametrize(("version", "named"), [("v2", "display_name"), ("v1", "name")])
def test_accounts_are_synced_by_domain(tmp_path: Path, version: str, named: str) -> None:
    with Sandbox(records=10) as box:
        desk = Desk(
            tmp_path,
            box,
            "reevo",
            a_sync("accounts", "domain_name", "domain_name", named),
            api_version=version,
        )
        desk.pull("reevo.accounts")
        known = box.tenant("reevo").records("accounts")[0]
        domain = known["domains"][0]["domain_name"]
        new = f"select 'quay.example' as domain_name, 'Quay' as {named}"
        desk.model(f"{new} union all select '{domain}', 'Known'")
        first, quiet = desk.push(), desk.push()
        assert [first.counts[each] for each in ("created", "updated", "rejected")] == [1, 1, 0]
        assert quiet.counts["unchanged"] == 2
        assert box.tenant("reevo").find("accounts", id=known["id"])["display_name"] == "Known"


@pytest.mark.parametrize("version", ["v2", "v1"])
def test_opportunities_are_synced_by_the_models_own_key(tmp_path: Path, version: str) -> None:
    stage, more = ("stage", ", 'Lead' as stage") if version == "v2" else ("amount", "")
    sync = a_sync("opportunities", "own", "display_name", "account_id", "amount", *({stage} - {"amount"}))
    with Sandbox(records=10) as box:
        account_id = box.tenant("reevo").records("accounts")[0]["id"]
        desk = Desk(tmp_path, box, "reevo", sync, api_version=version)
        desk.pull("reevo.opportunities")
        row = f"'Crane' as display_name, '{account_id}' as account_id{more}"
        desk.model(f"select i as own, {row}, 10.5 + i as amount from range(3) t(i)")
        first, quiet = desk.push(), desk.push()
        assert (first.counts["created"], quiet.counts["unchanged"]) == (3, 3)
        desk.pull("reevo.opportunities")
        desk.model(f"select i as own, {row}, 20 + i as amount from range(3) t(i)")
        assert desk.push().counts["updated"] == 3
        held = box.tenant("reevo").records("opportunities", display_name="Crane")
        assert sorted(each["amount"] for each in held) == ["20", "21", "22"]


@pytest.mark.parametrize("version", ["v2", "v1"])
def test_tasks_and_activities_are_made_once(tmp_path: Path, version: str) -> None:
    with Sandbox(records=3) as box:
        email = box.tenant("reevo").records("users")[0]["email"]
        model = (
            f"select i as own, 'Call' as title, '{email}' as owner_email, 'Fair' as subject, 'x' as"
            " description, timestamptz '2026-02-03 10:00:00Z' as activity_time from range(3) t(i)"
        )
        names = ["metadata.subject", "metadata.description", "metadata.activity_time"]
        for name, fields in (("tasks", ["title", "owner_email"]), ("activities", names)):
            before = len(box.tenant("reevo").records(name))
            sync = a_sync(name, "own", *fields, mode="create")
            desk = Desk(tmp_path, box, "reevo", sync, api_version=version)
            if version == "v2":
                desk.pull("reevo.accounts", f"reevo.{name}")
            desk.model(model)
            first, second = desk.push(), desk.push()
            assert (first.counts["created"], second.counts["created"]) == (3, 0), first.rows
            assert len(box.tenant("reevo").records(name)) == before + 3


@pytest.mark.parametrize(
    ("name", "key", "field"),
    [
        ("contacts", "email", "title"),
        ("accounts", "domain_name", "owner_email"),
        ("opportunities", "own", "custom_fields.x"),
    ],
)
def test_a_sync_that_would_clear_a_field_of_v1_is_refused_when_it_is_read(
    tmp_path: Path, name: str, key: str, field: str
) -> None:
    sync = a_sync(name, key) + f'"{field}" = {{ column = "x", nulls = "clear" }}\n'
    with Sandbox(records=2) as box, pytest.raises(ConfigError, match=f"{field}.*clear"):
        Desk(tmp_path, box, "reevo", sync, api_version="v1").push()


@pytest.mark.parametrize(("version", "prefix"), [("v2", "attributes"), ("v1", "custom_fields")])
def test_custom_fields_are_compared_with_what_was_pulled(tmp_path: Path, version: str, prefix: str) -> None:
    field = {"record_type": "account", "api_name": "cus_field__Segment", "value_type": "string"}
    named = f"{prefix}.cus_field__Segment"
    with Sandbox(records=5) as box:
        box.tenant("reevo").create("fields", **field)
        known = box.tenant("reevo").records("accounts")[0]
        sync = a_sync("accounts", "domain_name", "domain_name", named)
        desk = Desk(tmp_path, box, "reevo", sync, api_version=version)
        desk.pull("reevo.accounts")
        domain = known["domains"][0]["domain_name"]
        desk.model(f"select '{domain}' as domain_name, 'Mid' as cus_field__Segment")
        assert desk.push().counts["updated"] == 1
        desk.pull("reevo.accounts")
        assert desk.push().counts["unchanged"] == 1
        box.tenant("reevo").edit("accounts", known["id"], cus_field__Segment="Large")
        desk.pull("reevo.accounts")
        desk.model(f"select '{domain}' as domain_name, 'Small' as cus_field__Segment")
        result = desk.push()
        assert (result.counts["conflict"], result.counts["updated"]) == (1, 0)
