"""The main job, end to end: 1,000 contacts on each CRM, 1,200 scored leads back, nothing sent twice."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from pipelines.enrich import enrich
from pipelines.progress import SilentProgress
from pipelines.push import push
from pipelines.settings import Project
from sources.sandbox import Sandbox
from sources.sandbox.rally_rules import RallySwitches
from tests.pulling import project_for, pulled, rows

SYNCS = """
[syncs.relm]
connection = "relm"
object = "contacts"
model_sql = "select * from marts.enriched_leads where last_name is not null"
key = "email"
max_changes = 5000
[syncs.relm.fields]
email = "email"
first_name = { column = "first_name", write = "on_create" }
last_name = { column = "last_name", write = "on_create" }
"metadata.lead_score" = "lead_score"

[syncs.rally]
connection = "rally"
object = "contacts"
model_sql = "select * from marts.enriched_leads where last_name is not null and first_name is not null"
key = "email"
max_changes = 5000
[syncs.rally.fields]
email = "email"
firstName = { column = "first_name", write = "on_create" }
lastName = { column = "last_name", write = "on_create" }
leadScore = "lead_score"
"""


@dataclass
class Job:
    """The job done once, with what was sent."""

    box: Sandbox
    project: Project
    sent: dict[str, dict[str, Any]]
    calls: dict[str, list[Any]]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    root = tmp_path_factory.mktemp("job")
    (root / ".dlt").mkdir()
    (root / ".dlt" / "config.toml").write_text(SYNCS)
    with Sandbox(records=1000, rally=RallySwitches(rate_limit=None)) as box:
        project = project_for(box, root, "relm", "rally")
        assert pulled(project).exit_code == 0
        assert enrich(project, progress=SilentProgress()).exit_code == 0
        done = Job(box, project, {}, {})
        for crm in ("relm", "rally"):
            box.requests.clear()
            done.sent[crm] = pushed(project, crm)
            done.calls[crm] = [each for each in box.requests if each.method != "GET"]
        yield done


def pushed(project: Project, sync: str) -> dict[str, Any]:
    result = push(project, sync, confirm=lambda plan: True, progress=SilentProgress())
    return {"exit_code": result.exit_code, **result.payload()["counts"]}


def people(job: Job, crm: str) -> list[tuple[str, dict[str, Any]]]:
    """The contacts of a CRM's own store that have an address, by it."""
    held = job.box.tenant(crm).records("contacts")
    return [(each["email"].strip().lower(), each) for each in held if each["email"]]


def test_the_leads_of_both_crms_are_the_1200_people_they_share(job: Job) -> None:
    assert rows(job.project, "select count(*) from marts.enriched_leads") == [(1200,)]


def test_relm_gets_its_leads_in_batches_of_500_and_rally_its_new_ones_in_batches_of_100(job: Job) -> None:
    sent = job.sent["relm"]["created"] + job.sent["relm"]["updated"]
    batches = [each for each in job.calls["relm"] if each.path.endswith("/contacts/batch")]
    assert len(batches) == -(-sent // 500) == 3
    bulks = [each for each in job.calls["rally"] if each.path.endswith("/contacts/bulk")]
    upserts = [each for each in job.calls["rally"] if each.path.endswith("/contacts/upsert")]
    assert len(bulks) == -(-job.sent["rally"]["created"] // 100)
    assert len(upserts) == job.sent["rally"]["updated"]
    assert job.sent["relm"]["exit_code"] == job.sent["rally"]["exit_code"] == 0


def test_the_crms_own_stores_show_exactly_the_planned_values(job: Job) -> None:
    scores = dict(rows(job.project, "select email_key, lead_score from marts.enriched_leads"))
    for crm, field in (("relm", "metadata.lead_score"), ("rally", "leadScore")):
        shown = dict(people(job, crm))
        logged = rows(job.project, "select key, sent from roundtrip.push_log where connection = ?", crm)
        assert len(logged) > 1000
        for key, sent in logged:
            held = shown[key]["metadata"]["lead_score"] if crm == "relm" else shown[key]["leadScore"]
            assert held == json.loads(sent)[field] == scores[key]


def test_no_person_was_made_twice(job: Job) -> None:
    for crm in ("relm", "rally"):
        addresses = [key for key, _ in people(job, crm)]
        assert len(addresses) == len(set(addresses))


def test_a_push_that_only_changes_a_score_leaves_every_other_value_as_it_was(job: Job) -> None:
    replaced = rows(job.project, "select sent from roundtrip.push_log where action = 'update'")
    assert {tuple(json.loads(sent)) for (sent,) in replaced} == {("metadata.lead_score",), ("leadScore",)}


def test_a_second_push_sends_nothing_and_after_a_pull_still_nothing(job: Job) -> None:
    for _ in range(2):
        job.box.requests.clear()
        for crm in ("relm", "rally"):
            counts = pushed(job.project, crm)
            assert counts["create"] == counts["update"] == counts["conflict"] == 0
        assert [each for each in job.box.requests if each.method != "GET"] == []
        assert pulled(job.project).exit_code == 0


def test_our_own_writes_coming_back_are_told_from_changes_by_others(job: Job) -> None:
    origins = rows(
        job.project,
        "select distinct origin from roundtrip.changes where resource = 'contacts'"
        " and field in ('lead_score', 'metadata')",
    )
    assert origins == [("push",)]
