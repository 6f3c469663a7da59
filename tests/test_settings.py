"""Settings: found where dlt looks, checked when looked at, wrong ones named with the way to mend them."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sources
from pipelines.settings import FieldRule, Project, Sync, load_project
from sources.core.errors import ConfigError
from tests.conftest import REPOSITORY

KEY = "sk_live_never_shown_0123456789"
RELM = {"SOURCES__RELM__API_KEY": KEY}
RALLY_URL = "https://acme.rallycrm.io/api/v1"

SYNC = """
[syncs.leads]
connection = "relm"
object = "contacts"
model = "marts.leads"
key = "email"
[syncs.leads.fields]
first_name = "first_name"
last_name = { column = "surname", write = "if_empty", nulls = "clear" }
"metadata.lead_score" = "score"
"""


def project(
    root: Path, config: str = "", secrets: str = "", environ: Mapping[str, str] | None = None
) -> Project:
    folder = root / ".dlt"
    folder.mkdir(exist_ok=True)
    (folder / "config.toml").write_text(config)
    (folder / "secrets.toml").write_text(secrets)
    return load_project(root, environ=environ or {})


def refusal(root: Path, config: str = "", *, look_at: str = "relm", **environ: str) -> str:
    """Give the one line with which a connection is refused."""
    with pytest.raises(ConfigError) as caught:
        project(root, config, environ=RELM | environ).connection(look_at)
    line = str(caught.value)
    assert "\n" not in line
    assert KEY not in line
    return line


def sync_refusal(root: Path, old: str = "", new: str = "", name: str = "leads") -> str:
    assert old in SYNC
    with pytest.raises(ConfigError) as caught:
        project(root, SYNC.replace(old, new, 1), environ=RELM).sync(name)
    line = str(caught.value)
    assert "\n" not in line
    return line


# -- the project ---------------------------------------------------------------------------------


def test_a_folder_without_settings_has_the_documented_defaults(tmp_path: Path) -> None:
    found = load_project(tmp_path, environ={})
    assert (found.root, found.warehouse) == (tmp_path, tmp_path / "warehouse.duckdb")
    assert found.models == REPOSITORY / "pipelines" / "models"
    assert (found.connections, found.syncs, found.default_connections) == ({}, {}, ())
    assert (found.checkpoint_s, found.lookback_s) == (60, 900)
    assert (found.max_deletes_share, found.max_deletes) == (0.02, 500)


def test_a_projects_own_models_are_used_where_it_has_a_folder_of_them(tmp_path: Path) -> None:
    (tmp_path / "pipelines" / "models").mkdir(parents=True)
    assert load_project(tmp_path, environ={}).models == tmp_path / "pipelines" / "models"


def test_settings_come_from_the_project_folder_and_the_warehouse_lies_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home" / ".dlt").mkdir(parents=True)
    (tmp_path / "home" / ".dlt" / "config.toml").write_text('[roundtrip]\nmodels = "m"')
    monkeypatch.chdir(tmp_path)
    found = load_project(environ={"DLT_PROJECT_DIR": str(tmp_path / "home")})
    assert found.models == tmp_path / "home" / "m"
    assert found.warehouse == tmp_path / "warehouse.duckdb"


def test_a_project_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="DLT_PROJECT_DIR"):
        load_project(environ={"DLT_PROJECT_DIR": str(tmp_path / "nowhere")})


@pytest.mark.parametrize("spelt", ["/data/w.duckdb", "duckdb:////data/w.duckdb"])
def test_the_warehouse_may_lie_anywhere(tmp_path: Path, spelt: str) -> None:
    found = load_project(tmp_path, environ={"DESTINATION__DUCKDB__CREDENTIALS": spelt})
    assert found.warehouse == Path("/data/w.duckdb")


@pytest.mark.parametrize(
    "stem", ["crm", "roundtrip", "marts", "main", "relm", "Rally", "rally_emea", "relm_staging"]
)
def test_a_warehouse_named_like_a_schema_is_refused(tmp_path: Path, stem: str) -> None:
    environ = {
        "SOURCES__RALLY_EMEA__API_KEY": KEY,
        "DESTINATION__DUCKDB__CREDENTIALS": f"/data/{stem}.duckdb",
    }
    with pytest.raises(ConfigError) as caught:
        load_project(tmp_path, environ=environ)
    assert "destination.duckdb.credentials" in str(caught.value)
    assert "DESTINATION__DUCKDB__CREDENTIALS" in str(caught.value)


@pytest.mark.parametrize("place", ["md:mine", ":memory:"])
def test_a_warehouse_that_is_not_a_file_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(ConfigError, match="is not a file"):
        load_project(tmp_path, environ={"DESTINATION__DUCKDB__CREDENTIALS": place})


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("a = 1\nb = = 2", ".dlt/config.toml is not valid TOML"),
        ("[roundtrip]\nconection = []", "Is connections meant?"),
        ("[roundtrip]\nconnections = 3", "ROUNDTRIP__CONNECTIONS"),
        ("[roundtrip]\ncheckpoint_s = true", "ROUNDTRIP__CHECKPOINT_S"),
        ("[roundtrip]\nlookback_s = -1", "at least 0"),
        ("[roundtrip]\nmax_deletes = 1.5", "whole number"),
        ("[roundtrip]\nmax_deletes_share = 2", "share from 0 to 1"),
        ("sources = 1", "is not a table"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(tmp_path: Path, config: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        project(tmp_path, config)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_toml_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"secrets\.toml .*line 2"):
        project(tmp_path, secrets=f'[sources.relm]\napi_key = {KEY}"')


def test_a_file_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "config.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_project(tmp_path, environ={})


# -- layers --------------------------------------------------------------------------------------


def test_the_environment_wins_over_secrets_and_secrets_over_config(tmp_path: Path) -> None:
    config = (
        '[sources.relm]\nbase_url = "https://config.example"\n[roundtrip]\nlookback_s = 1\ncheckpoint_s = 1'
    )
    secrets = "[roundtrip]\nlookback_s = 2\n"
    secrets += f'[sources.relm]\napi_key = "{KEY}"\nbase_url = "https://second.example"'
    found = project(tmp_path, config, secrets, {"ROUNDTRIP__LOOKBACK_S": "3"})
    assert (found.lookback_s, found.checkpoint_s) == (3, 1)
    assert found.connection("relm").base_url == "https://second.example"


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    found = project(
        tmp_path, secrets=f'[sources.relm]\napi_key = "{KEY}"', environ={"SOURCES__RELM__API_KEY": ""}
    )
    assert found.connection("relm").api_key == KEY


def test_names_deeper_than_ours_are_left_to_dlt(tmp_path: Path) -> None:
    environ = RELM | {
        "SOURCES__DATA_WRITER__BUFFER_MAX_ITEMS": "5",
        "SOURCES__RELM__CONTACTS__WRITE_DISPOSITION": "x",
    }
    assert list(load_project(tmp_path, environ=environ).connections) == ["relm"]


names = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), unique=True, max_size=5)


@given(names)
def test_a_list_reads_the_same_from_the_environment_as_from_the_file(
    tmp_path_factory: pytest.TempPathFactory, listed: list[str]
) -> None:
    root = tmp_path_factory.mktemp("project")
    from_environ = load_project(root, environ={"ROUNDTRIP__CONNECTIONS": json.dumps(listed)})
    toml = json.dumps(listed, ensure_ascii=False).replace("\x7f", "\\u007F")
    (root / ".dlt").mkdir()
    (root / ".dlt" / "config.toml").write_text(f"[roundtrip]\nconnections = {toml}", encoding="utf-8")
    assert (
        load_project(root, environ={}).default_connections
        == from_environ.default_connections
        == tuple(listed)
    )


# -- connections ---------------------------------------------------------------------------------


def test_every_section_with_a_key_is_a_default_connection(tmp_path: Path) -> None:
    config = '[sources.rally]\nbase_url = "https://x.example"\n[sources.other]\nthing = 1'
    assert project(tmp_path, config, environ=RELM).default_connections == ("relm",)


def test_listed_connections_replace_the_default(tmp_path: Path) -> None:
    environ = RELM | {"SOURCES__RALLY__API_KEY": KEY, "ROUNDTRIP__CONNECTIONS": '["rally"]'}
    assert load_project(tmp_path, environ=environ).default_connections == ("rally",)


def test_a_connection_has_its_crms_default_address(tmp_path: Path) -> None:
    connection = load_project(tmp_path, environ=RELM).connection("relm")
    assert (connection.name, connection.crm) == ("relm", "relm")
    assert connection.base_url == sources.load("relm").base_url


def test_a_second_workspace_names_its_crm(tmp_path: Path) -> None:
    config = f'[sources.rally_emea]\ncrm = "rally"\nbase_url = "{RALLY_URL}/"\nfeed_reach_days = 3'
    connection = project(tmp_path, config, environ={"SOURCES__RALLY_EMEA__API_KEY": KEY}).connection(
        "rally_emea"
    )
    assert (connection.crm, connection.base_url) == ("rally", RALLY_URL)
    assert connection.options["feed_reach_days"] == 3


def test_options_of_a_connection_have_their_defaults_and_types(tmp_path: Path) -> None:
    environ = {"SOURCES__RALLY__API_KEY": KEY, "SOURCES__RALLY__BASE_URL": RALLY_URL}
    plain = load_project(tmp_path, environ=environ).connection("rally").options
    assert plain == {option.name: option.default for option in sources.load("rally").options}
    told = load_project(tmp_path, environ=environ | {"SOURCES__RALLY__FEED_REACH_DAYS": "2"})
    assert told.connection("rally").options["feed_reach_days"] == 2


def test_a_mistake_in_one_connection_leaves_the_others_usable(tmp_path: Path) -> None:
    found = project(tmp_path, environ=RELM | {"SOURCES__RALLY__API_KEY": KEY})
    assert found.connection("relm").crm == "relm"
    with pytest.raises(ConfigError):
        found.connection("rally")


def test_a_missing_key_is_told_with_both_ways_to_set_it(tmp_path: Path) -> None:
    line = refusal(tmp_path, look_at="rally")
    assert "Set sources.rally.api_key in .dlt/secrets.toml or SOURCES__RALLY__API_KEY." in line
    assert "With a key: relm." in line


@pytest.mark.parametrize("key", ["", "  ", "<configure me>"])
def test_a_placeholder_is_no_key(tmp_path: Path, key: str) -> None:
    found = project(tmp_path, secrets=f'[sources.relm]\napi_key = "{key}"')
    assert list(found.connections) == []


@pytest.mark.parametrize("key", ["sk live", "sk_“live”", "sk\u0007"])
def test_a_key_that_cannot_be_one_is_refused_unseen(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=r"sources\.relm\.api_key") as caught:
        load_project(tmp_path, environ={"SOURCES__RELM__API_KEY": key}).connection("relm")
    assert key not in str(caught.value)


def test_a_key_in_the_committed_file_is_refused_unseen(tmp_path: Path) -> None:
    line = refusal(tmp_path, f'[sources.relm]\napi_key = "{KEY}"')
    assert "Move it to .dlt/secrets.toml" in line


def test_a_key_is_not_part_of_what_is_printed(tmp_path: Path) -> None:
    found = load_project(tmp_path, environ=RELM)
    assert KEY not in f"{found!r} {found.connection('relm')!r} {dict(found.connections)!r}"


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ('[sources.relm]\ncrm = "hubspot"', "SOURCES__RELM__CRM"),
        ('[sources.relm]\nbase_ulr = "x"', "Is base_url meant?"),
        ("[sources.relm]\nbase_url = 1", "is not a text"),
        ('[sources.relm]\nbase_url = "relmcrm.com"', "SOURCES__RELM__BASE_URL"),
        ('[sources.relm]\nbase_url = "https://u:p@relmcrm.com"', "SOURCES__RELM__BASE_URL"),
        ('[sources.relm]\nbase_url = "http://relmcrm.com"', "plain http"),
        ('[sources.relm]\nbase_url = "http://127.0.0.1.example"', "plain http"),
    ],
)
def test_a_wrong_connection_is_told_in_one_line(tmp_path: Path, config: str, told: str) -> None:
    assert told in refusal(tmp_path, config)


@pytest.mark.parametrize("url", ["http://localhost:1/x", "http://127.8.9.1", "http://[::1]:80"])
def test_plain_http_is_for_loopback(tmp_path: Path, url: str) -> None:
    assert (
        load_project(tmp_path, environ=RELM | {"SOURCES__RELM__BASE_URL": url}).connection("relm").base_url
        == url
    )


def test_a_tenants_address_has_no_default(tmp_path: Path) -> None:
    line = refusal(tmp_path, look_at="rally", SOURCES__RALLY__API_KEY=KEY)
    assert "Set sources.rally.base_url in .dlt/config.toml or SOURCES__RALLY__BASE_URL." in line


def test_a_connection_named_otherwise_must_say_its_crm(tmp_path: Path) -> None:
    line = refusal(tmp_path, look_at="emea", SOURCES__EMEA__API_KEY=KEY)
    assert "Set sources.emea.crm in .dlt/config.toml or SOURCES__EMEA__CRM." in line


RESERVED = ["crm", "roundtrip", "marts", "main", "pg_catalog", "relm_staging", "9x", "Relm", "a-b", "a__b"]


@pytest.mark.parametrize("name", RESERVED)
def test_a_name_that_cannot_be_a_schema_of_its_own_is_refused(tmp_path: Path, name: str) -> None:
    config = f'[sources."{name}"]\ncrm = "relm"'
    with pytest.raises(ConfigError, match="cannot be the name of a connection"):
        project(tmp_path, config, f'[sources."{name}"]\napi_key = "{KEY}"').connection(name)


# -- syncs ---------------------------------------------------------------------------------------


def test_a_sync_is_read_as_it_is_written(tmp_path: Path) -> None:
    sync = project(tmp_path, SYNC + "\n[syncs.leads_2]", environ=RELM).syncs["leads"]
    assert (sync.name, sync.connection, sync.object, sync.model) == (
        "leads",
        "relm",
        "contacts",
        "marts.leads",
    )
    assert (sync.mode, sync.max_changes, sync.conflicts, sync.key_column) == (
        "upsert",
        None,
        "crm_wins",
        "email",
    )
    assert sync.fields == (
        FieldRule("first_name", "first_name"),
        FieldRule("last_name", "surname", write="if_empty", nulls="clear"),
        FieldRule("metadata.lead_score", "score"),
    )


def test_a_sync_can_be_set_in_the_environment(tmp_path: Path) -> None:
    environ = {"SYNCS__LEADS__MAX_CHANGES": "0.25", "SYNCS__LEADS__FIELDS": '{"email": "mail"}'}
    sync = project(tmp_path, SYNC, environ=environ).syncs["leads"]
    assert (sync.max_changes, sync.fields, sync.key_column) == (0.25, (FieldRule("email", "mail"),), "mail")


def test_a_sync_that_fits_its_target_is_found(tmp_path: Path) -> None:
    assert project(tmp_path, SYNC, environ=RELM).sync("leads").name == "leads"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('key = "email"', 'key = "email"\nmodell = 1', "Is model meant?"),
        ('key = "email"', "", "SYNCS__LEADS__KEY"),
        ('key = "email"', 'key = "phone"', "are matched by 'email'"),
        ('model = "marts.leads"', "", "model_sql"),
        ('model = "marts.leads"', 'model = "a"\nmodel_sql = "select 1"', "one of the two"),
        ('connection = "relm"', 'connection = "vivre_2"', "SOURCES__VIVRE_2__API_KEY"),
        ('object = "contacts"', 'object = "fields"', "takes only"),
        ('key = "email"', 'key = "email"\nmode = "merge"', "upsert, update, create"),
        ('key = "email"', 'key = "email"\nmax_changes = -1', "SYNCS__LEADS__MAX_CHANGES"),
        ('key = "email"', 'key = "email"\nconflicts = "coin"', "crm_wins, model_wins"),
        ('write = "if_empty"', 'write = "never"', "always, if_empty, on_create"),
        ('nulls = "clear"', 'nulls = "keep"', "skip, clear"),
        ('nulls = "clear"', 'null = "clear"', "Is nulls meant?"),
        ('"surname"', '""', "syncs.leads.fields.last_name.column is not set"),
        ('= "score"', "= 5", 'syncs.leads.fields."metadata.lead_score"'),
    ],
)
def test_a_wrong_sync_is_told_in_one_line(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert told in sync_refusal(tmp_path, old, new)


def test_an_unknown_sync_is_told_with_those_there_are(tmp_path: Path) -> None:
    assert "There are: leads." in sync_refusal(tmp_path, name="lead")


def test_a_crm_that_takes_no_writes_is_refused_as_a_target(tmp_path: Path) -> None:
    config = SYNC.replace('connection = "relm"', 'connection = "ralivi"')
    with pytest.raises(ConfigError, match="ralivi cannot be written to"):
        project(tmp_path, config, environ={"SOURCES__RALIVI__API_KEY": KEY}).sync("leads")


REFUSED = [
    ("rally", "contacts", 'key = "id"', 'title = "title"', "syncs.rows.mode is 'upsert'"),
    ("vivre", "contacts", 'key = "email"', 'name = "name"', "vivre contacts take only mode = 'create'"),
    ("vivre", "contacts", 'key = "id"\nmode = "update"', 'name = "name"', "contacts cannot be updated"),
    ("rally", "deals", 'key = "name"', 'name = "name"', "does not map 'pipelineId'"),
    ("rally", "companies", 'key = "name"', 'name = "name"', "are matched by 'domain' or, to update"),
    (
        "rally",
        "deals",
        'key = "id"\nmode = "update"',
        'stageId = { column = "s", nulls = "clear" }',
        "rally deals cannot clear it",
    ),
    (
        "vivre",
        "deals",
        'key = "number"',
        'closed_at = { column = "at", write = "on_create" }',
        "only once they are there",
    ),
]


def found(root: Path, crm: str, name: str, key: str, field: str = 'name = "name"', **more: str) -> Sync:
    """Give a sync into some object of a CRM."""
    config = (
        f'[syncs.rows]\nconnection = "{crm}"\nobject = "{name}"\nmodel = "marts.rows"\n{key}\n'
        f"[syncs.rows.fields]\n{field}\n"
    )
    given = {"API_KEY": KEY, "BASE_URL": "http://127.0.0.1:9"} | (
        {"WORKSPACE_ID": "w"} if crm == "vivre" else {}
    )
    environ = {f"SOURCES__{crm.upper()}__{setting}": value for setting, value in given.items()}
    return project(root, config, environ=environ | more).sync("rows")


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case[-1])
def test_what_an_api_cannot_do_is_refused_when_the_sync_is_read(
    tmp_path: Path, case: tuple[str, str, str, str, str]
) -> None:
    *declared, told = case
    with pytest.raises(ConfigError) as refused:
        found(tmp_path, *declared)
    assert told in str(refused.value)


def test_an_object_that_takes_no_ids_refuses_them_as_keys_when_the_sync_is_read(tmp_path: Path) -> None:
    key = 'key = "id"\nmode = "update"'
    assert found(tmp_path, "reevo", "contacts", key, 'title = "t"').key == "id"
    v1 = {"SOURCES__REEVO__API_VERSION": "v1"}
    with pytest.raises(ConfigError, match="cannot be changed by id, only by 'email'"):
        found(tmp_path, "reevo", "contacts", key, 'title = "t"', **v1)


@pytest.mark.parametrize(
    ("crm", "name", "key"),
    [("rally", "activities", "number"), ("relm", "deals", "number"), ("rally", "companies", "domain")],
)
def test_a_sync_names_its_rows_by_what_its_object_is_told_apart_by(
    tmp_path: Path, crm: str, name: str, key: str
) -> None:
    assert found(tmp_path, crm, name, f'key = "{key}"').key == key
