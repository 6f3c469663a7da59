"""What `exclude` and `hash` name never reaches the disk, and leaves it when the settings begin to name it."""

import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sources
from pipelines.settings import Project, load_project
from sources.core.connector import Connection
from sources.core.errors import ConfigError
from sources.core.privacy import shield_of
from sources.core.spool import Spool, SpoolError
from sources.sandbox import Sandbox
from tests.pulling import environ_of, project_for, pulled, rows

KEY = "a long random text to hash with"


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(records=12) as made:
        yield made


def connection(crm: str, **privacy: Any) -> Connection:
    options = {option.name: option.default for option in sources.load(crm).options}
    return Connection("here", crm, "http://127.0.0.1", "key", options, **privacy)


def kept(crm: str, resource: str, record: dict[str, Any], **privacy: Any) -> Any:
    """Give what is left of a record on its way to the disk."""
    made = connection(crm, hash_key=KEY, **privacy)
    contract = sources.load(crm).contract(made)
    shield = shield_of(made, contract, contract.resource(resource))
    [row] = shield.keep([msgspec.Raw(json.dumps(record).encode())])
    return json.loads(bytes(row))


def private(box: Sandbox, root: Path, *names: str, **lists: list[str]) -> Project:
    """Make a project of the sandbox whose first connection has these lists."""
    environ = environ_of(box) | {"ROUNDTRIP__HASH_KEY": KEY}
    environ |= {
        f"SOURCES__{names[0].upper()}__{name.upper()}": json.dumps(each) for name, each in lists.items()
    }
    return replace(load_project(root, environ=environ), default_connections=names)


# -- a record on its way to the disk ---------------------------------------------------------------


def test_an_excluded_value_is_dropped_and_every_other_byte_stays() -> None:
    row = {"id": "1", "phone": "+1 555", "leadScore": 12345678901234567890.5, "notes": "a b", "x": [1.0]}
    assert kept("rally", "contacts", row, exclude=("contacts.phone",)) == {
        name: value for name, value in row.items() if name != "phone"
    }


@pytest.mark.parametrize("spelt", ["contacts.leadScore", "contacts.lead_score"])
def test_a_column_may_be_spelt_as_the_vendor_or_the_warehouse_does(spelt: str) -> None:
    assert kept("rally", "contacts", {"id": "1", "leadScore": 5}, exclude=(spelt,)) == {"id": "1"}


def test_a_value_in_an_object_is_dropped_and_the_rest_of_the_object_stays() -> None:
    row = {"id": "1", "metadata": {"birthday": "1990-01-01", "plan": "pro"}}
    left = kept("relm", "contacts", row, exclude=("contacts.metadata.birthday",))
    assert left == {"id": "1", "metadata": {"plan": "pro"}}


def test_an_object_of_an_unforeseen_shape_is_dropped_whole() -> None:
    row = {"id": "1", "metadata": '{"birthday": "1990-01-01"}'}
    assert kept("relm", "contacts", row, exclude=("contacts.metadata.birthday",))["metadata"] is None


def test_undeclared_fields_are_dropped_one_by_one_or_all_together() -> None:
    row = {"id": "1", "email": "a@b.example", "nickname": "Al", "mood": "calm"}
    assert "nickname" not in kept("relm", "contacts", row, exclude=("contacts._extra.nickname",))
    assert kept("relm", "contacts", row, exclude=("contacts._extra",)) == {"id": "1", "email": "a@b.example"}


def test_a_wrapped_value_goes_with_its_wrapping_which_may_show_it_twice() -> None:
    wrapped = {"value": "a@b.example", "display_value": "a@b.example"}
    row = {"id": "1", "attributes": {"primary_email": wrapped, "first_name": {"value": "Al"}}}
    left = kept("reevo", "contacts", row, exclude=("contacts.primary_email",))
    assert left == {"id": "1", "attributes": {"first_name": {"value": "Al"}}}
    digested = kept("reevo", "contacts", row, hashed=("contacts.primary_email",))
    assert set(digested["attributes"]["primary_email"]) == {"value"}


def test_a_value_inside_a_list_is_dropped_from_each_element() -> None:
    row = {
        "id": "1",
        "attributes": {"domains": [{"value": {"domain_name": "a.example"}, "kind": "main"}] * 2},
    }
    left = kept("reevo", "accounts", row, exclude=("accounts.domain_name",))
    assert left["attributes"]["domains"] == [{"kind": "main"}] * 2


def test_a_digest_is_the_keyed_sha256_of_the_trimmed_lower_cased_text() -> None:
    expected = hmac.new(KEY.encode(), b"ada@acme.example", hashlib.sha256).hexdigest()
    row = {"id": "1", "email": "  Ada@ACME.example "}
    assert kept("relm", "contacts", row, hashed=("contacts.email",))["email"] == expected
    assert kept("rally", "contacts", row, hashed=("contacts.email",))["email"] == expected
    assert kept("relm", "contacts", {"id": "1", "email": None}, hashed=("contacts.email",))["email"] is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(place=_JSON, phone=_JSON, wrapped=st.booleans())
def test_whatever_the_shape_nothing_of_an_excluded_field_is_left(
    place: Any, phone: Any, wrapped: bool
) -> None:
    secret = {"number": "SECRET", "more": phone}
    row = {"id": "1", "metadata": {"birthday": secret, "other": place} if wrapped else [place, secret]}
    left = kept("relm", "contacts", row, exclude=("contacts.metadata.birthday",))
    assert not wrapped or "SECRET" not in json.dumps(left)
    assert "SECRET" not in json.dumps(kept("relm", "contacts", row, exclude=("contacts.metadata",)))


@settings(max_examples=60, deadline=None)
@given(value=_JSON)
def test_what_no_rule_names_is_kept_as_it_was(value: Any) -> None:
    row = {"id": "1", "email": "a@b.example", "phone": value, "more": [value]}
    left = kept("relm", "contacts", row, hashed=("contacts.email",), exclude=("contacts.last_name",))
    assert {**left, "email": "a@b.example"} == row


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "entry", "told"),
    [
        ("exclude", "people.phone", "no 'people'"),
        ("exclude", "contacts.fone", "Is phone meant"),
        ("exclude", "contacts", "no ''"),
        ("exclude", "contacts.id", "is needed"),
        ("exclude", "contacts.updatedAt", "is needed"),
        ("exclude", "contacts.phone.country", "is no object"),
        ("hash", "contacts.leadScore", "only texts"),
        ("hash", "contacts._extra", "no single value"),
    ],
)
def test_an_entry_that_is_nothing_or_is_needed_is_refused_by_name(
    tmp_path: Path, box: Sandbox, setting: str, entry: str, told: str
) -> None:
    project = private(box, tmp_path, "rally", **{setting: [entry]})
    with pytest.raises(ConfigError, match=told) as refusal:
        project.connection("rally")
    assert entry in str(refusal.value)


def test_hashing_without_a_key_or_with_a_short_one_is_refused(tmp_path: Path, box: Sandbox) -> None:
    environ = environ_of(box) | {"SOURCES__RALLY__HASH": '["contacts.email"]'}
    with pytest.raises(ConfigError, match="no key to hash with"):
        load_project(tmp_path, environ=environ).connection("rally")
    with pytest.raises(ConfigError, match="shorter than 16"):
        load_project(tmp_path, environ=environ | {"ROUNDTRIP__HASH_KEY": "short"})


def test_a_hash_key_in_the_file_that_is_committed_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "config.toml").write_text(f'[roundtrip]\nhash_key = "{KEY}"\n')
    with pytest.raises(ConfigError, match=r"roundtrip.hash_key stands in .dlt/config.toml") as refusal:
        load_project(tmp_path, environ={})
    assert KEY not in str(refusal.value)


SYNC = {"connection": "relm", "object": "contacts", "model": "marts.leads", "key": "email"}


@pytest.mark.parametrize(
    ("lists", "fields", "mode"),
    [
        ({"hash": ["contacts.email"]}, {"first_name": "a"}, "upsert"),
        ({"exclude": ["contacts.phone"]}, {"phone": "a"}, "create"),
        ({"exclude": ["contacts.phone"]}, {"first_name": "a"}, "update"),
        ({"hash": ["contacts.phone"]}, {"first_name": "a"}, "upsert"),
        ({"exclude": ["contacts.metadata.birthday"]}, {"metadata.score": "a"}, "update"),
    ],
)
def test_a_sync_that_would_have_to_see_what_is_hidden_is_refused_by_name(
    tmp_path: Path, box: Sandbox, lists: dict[str, list[str]], fields: dict[str, str], mode: str
) -> None:
    project = synced(box, tmp_path, lists, {**SYNC, "mode": mode}, fields)
    with pytest.raises(ConfigError, match="kept out of sight by") as refusal:
        project.sync("leads")
    assert "syncs.leads" in str(refusal.value)
    assert next(iter(lists.values()))[0] in str(refusal.value)


def test_a_sync_may_write_beside_what_is_hidden_where_the_crm_merges(tmp_path: Path, box: Sandbox) -> None:
    lists = {"exclude": ["contacts.phone"], "batch_update": "merge"}
    assert synced(box, tmp_path, lists, SYNC, {"first_name": "a"}).sync("leads").object == "contacts"


def synced(
    box: Sandbox, root: Path, lists: dict[str, Any], sync: dict[str, str], fields: dict[str, str]
) -> Project:
    environ = environ_of(box) | {"ROUNDTRIP__HASH_KEY": KEY, "SYNCS__LEADS__FIELDS": json.dumps(fields)}
    environ |= {f"SYNCS__LEADS__{name.upper()}": value for name, value in sync.items()}
    for name, value in lists.items():
        environ[f"SOURCES__RELM__{name.upper()}"] = value if isinstance(value, str) else json.dumps(value)
    return load_project(root, environ=environ)


# -- pulls -----------------------------------------------------------------------------------------


def on_disk(folder: Path) -> bytes:
    """Give every byte that a project has on disk."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def phones(box: Sandbox, crm: str = "rally") -> list[str]:
    return [each["phone"] for each in box.tenant(crm).records("contacts") if each.get("phone")]


def test_an_excluded_value_is_in_no_file_of_a_pull(tmp_path: Path, box: Sandbox) -> None:
    project = private(box, tmp_path, "rally", exclude=["contacts.phone", "contacts.mobile"])
    assert pulled(project, "rally.contacts").exit_code == 0
    assert rows(project, "select count(phone), count(*) > 0 from crm.contacts") == [(0, True)]
    assert not any(each.encode() in on_disk(tmp_path) for each in phones(box))


def test_a_spool_holds_no_excluded_value(tmp_path: Path) -> None:
    made = connection("rally", exclude=("contacts.phone",))
    contract = sources.load("rally").contract(made)
    spool = Spool(tmp_path / "rows.ndjson", shield_of(made, contract, contract.resource("contacts")))
    spool.append([msgspec.Raw(b'{"id": "1", "phone": "+1 555"}')])
    spool.close()
    assert spool.path.read_bytes() == b'{"id":"1"}\n'


def test_a_row_that_cannot_be_looked_into_is_not_written(tmp_path: Path) -> None:
    made = connection("rally", exclude=("contacts.phone",))
    contract = sources.load("rally").contract(made)
    spool = Spool(tmp_path / "rows.ndjson", shield_of(made, contract, contract.resource("contacts")))
    with pytest.raises(SpoolError, match="not JSON"):
        spool.append([msgspec.Raw(b'{"id": "1", "ph\xff": "+1 555"}')])
    spool.close()
    assert spool.path.read_bytes() == b""


def test_hashed_addresses_of_two_crms_still_join(tmp_path: Path, box: Sandbox) -> None:
    environ = environ_of(box) | {"ROUNDTRIP__HASH_KEY": KEY}
    environ |= {f"SOURCES__{name}__HASH": '["contacts.email"]' for name in ("RALLY", "RELM")}
    plain = project_for(box, tmp_path, "rally", "relm", warehouse=tmp_path / "plain" / "plain.duckdb")
    project = replace(load_project(tmp_path, environ=environ), default_connections=("rally", "relm"))
    shared = (
        "select count(distinct one.email_key) from crm.contacts as one join crm.contacts as two"
        " on one.email_key = two.email_key and one.connection = 'rally' and two.connection = 'relm'"
    )
    pulled(plain, "rally.contacts", "relm.contacts")
    pulled(project, "rally.contacts", "relm.contacts")
    assert rows(project, shared) == rows(plain, shared) != [(0,)]
    assert rows(project, "select count(*) from crm.contacts where email like '%@%'") == [(0,)]


def test_a_value_excluded_later_leaves_tables_history_and_file_at_the_next_pull(
    tmp_path: Path, box: Sandbox
) -> None:
    before = private(box, tmp_path, "rally")
    pulled(before, "rally.contacts")
    person = box.tenant("rally").records("contacts")[0]
    box.tenant("rally").edit("contacts", person["id"], phone="+49 555 777 999")
    pulled(before, "rally.contacts")
    assert rows(before, "select new_value from roundtrip.changes where field = 'phone'") == [
        ("+49 555 777 999",)
    ]
    assert any(each.encode() in on_disk(tmp_path) for each in phones(box))
    after = private(box, tmp_path, "rally", exclude=["contacts.phone"])
    pulled(after, "rally.contacts")
    assert rows(after, "select count(phone) from rally.contacts") == [(0,)]
    assert rows(after, "select count(*) from roundtrip.changes where field = 'phone'") == [(0,)]
    assert not any(each.encode() in on_disk(tmp_path) for each in phones(box))


def test_a_value_shown_again_is_read_again_and_is_no_change(tmp_path: Path, box: Sandbox) -> None:
    pulled(private(box, tmp_path, "rally", exclude=["contacts.phone"]), "rally.contacts")
    shown = private(box, tmp_path, "rally")
    pulled(shown, "rally.contacts")
    assert rows(shown, "select count(nullif(phone, '')) from rally.contacts") == [(len(phones(box)),)]
    assert rows(shown, "select count(*) from roundtrip.changes") == [(0,)]
    assert pulled(shown, "rally.contacts").payload()["resources"][0]["changed"] == 0
