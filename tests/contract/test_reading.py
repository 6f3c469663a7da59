"""What every CRM and resource must hold when it is read, whatever its API is like.

The list of CRMs is the folder's; a new one inherits all of this with its module and its simulator.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sources
from pipelines.pulling.views import CRM_VIEWS
from pipelines.settings import Project
from sources.core.connector import Contract, snake_case
from sources.sandbox import Sandbox
from sources.sandbox.faults import Html
from tests.pulling import project_for, pulled, quick, rows

RECORDS = 130
RESOURCES = [
    (crm, resource.name)
    for crm in sources.names()
    for resource in next(iter(sources.load(crm).contracts.values())).resources
]


class Scene:
    """One CRM, pulled once from its sandbox into a warehouse."""

    def __init__(self, box: Sandbox, project: Project, first: Any) -> None:
        self.box = box
        self.project = project
        self.first = first

    def contract(self, crm: str) -> Contract:
        return sources.load(crm).contract(self.project.connection(crm))

    def entry(self, crm: str, resource: str) -> dict[str, Any]:
        entries: list[dict[str, Any]] = self.first.payload()["resources"]
        return next(each for each in entries if (each["connection"], each["resource"]) == (crm, resource))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with Sandbox(records=RECORDS) as box:
        project = quick(project_for(box, tmp_path_factory.mktemp("contract")))
        yield Scene(box, project, pulled(project))


def is_absent(scene: Scene, crm: str, resource: str) -> bool:
    return bool(scene.entry(crm, resource)["status"] == "absent")


@pytest.mark.parametrize(("crm", "resource"), RESOURCES)
def test_every_record_arrives_once(scene: Scene, crm: str, resource: str) -> None:
    if is_absent(scene, crm, resource):
        assert scene.contract(crm).resource(resource).optional
        return
    assert scene.entry(crm, resource)["status"] == "ok"
    stored = [each for (each,) in rows(scene.project, f"select id from {crm}.{resource}")]
    assert len(stored) == len(set(stored))
    held = scene.box.tenant(crm).records(resource)
    if (crm, resource) == ("reevo", "activities"):  # by default asked for per account and opportunity
        held = [each for each in held if each["account_id"] or each["opportunity_id"]]
    assert set(stored) == {str(each["id"]) for each in held}


@pytest.mark.parametrize(("crm", "resource"), RESOURCES)
def test_every_row_has_a_key_a_hash_and_a_time_of_landing(scene: Scene, crm: str, resource: str) -> None:
    if is_absent(scene, crm, resource):
        return
    bad = "id is null or _row_hash is null or _synced_at is null or _deleted_at is not null"
    assert rows(scene.project, f"select count(*) from {crm}.{resource} where {bad}") == [(0,)]


@pytest.mark.parametrize(("crm", "resource"), RESOURCES)
def test_no_value_misses_the_type_its_column_declares(scene: Scene, crm: str, resource: str) -> None:
    assert not scene.entry(crm, resource)["counts"].get("misfits")


@pytest.mark.parametrize("crm", sources.names())
def test_a_pull_of_an_unchanged_crm_loads_nothing(scene: Scene, crm: str) -> None:
    before = scene.project.warehouse.stat().st_mtime_ns
    again = pulled(scene.project, crm)
    assert all(each["new"] + each["changed"] + each["deleted"] == 0 for each in again.payload()["resources"])
    assert scene.project.warehouse.stat().st_mtime_ns == before


@pytest.mark.parametrize("crm", sources.names())
def test_a_watermark_moves_only_after_its_window_was_read_to_the_end(crm: str, tmp_path: Path) -> None:
    """The stream is cut after the first answers; what arrived stays, and no mark is set."""
    with Sandbox(records=40) as box:
        project = quick(project_for(box, tmp_path, crm))
        box.faults.add(Html(), crm=crm, nth=2, times=None)
        result = pulled(project)
        assert result.exit_code == 1
        states = rows(project, "select resource, watermark, last_complete_at from roundtrip.resource_state")
        marked = {resource for resource, mark, complete in states if mark or complete}
        cut = {each["resource"] for each in result.payload()["resources"] if each["status"] == "failed"}
        assert cut
        assert not marked & cut


@pytest.mark.parametrize("crm", sources.names())
def test_the_mapping_names_only_columns_of_the_documented_views(scene: Scene, crm: str) -> None:
    for contract in sources.load(crm).contracts.values():
        for view, parts in contract.views.items():
            for part in parts:
                assert set(part.columns) <= set(CRM_VIEWS[view])
                contract.resource(part.resource)


@pytest.mark.parametrize("view", sorted(CRM_VIEWS))
def test_a_view_holds_each_live_record_once(scene: Scene, view: str) -> None:
    total, distinct = rows(
        scene.project, f"select count(*), count(distinct (connection, id)) from crm.{view}"
    )[0]
    assert total == distinct
    assert total > 0


@pytest.mark.parametrize("crm", sources.names())
def test_columns_are_named_by_dlts_own_rule(crm: str) -> None:
    from dlt.common.normalizers.naming.snake_case import NamingConvention

    rule = NamingConvention()
    for contract in sources.load(crm).contracts.values():
        for resource in contract.resources:
            for column in resource.columns:
                assert snake_case(column.source) == rule.normalize_identifier(column.source)


def test_probabilities_lie_between_0_and_1_and_stages_mean_open_won_or_lost(scene: Scene) -> None:
    assert rows(scene.project, "select count(*) from crm.deals where probability not between 0 and 1") == [
        (0,)
    ]
    found = {each for (each,) in rows(scene.project, "select distinct status from crm.deals")}
    assert found == {"open", "won", "lost"}


def test_one_amount_is_the_same_in_every_crm_whatever_its_unit(scene: Scene) -> None:
    """The sandbox's CRMs share their made-up deals; cents, paise and major units must agree."""
    shared = rows(
        scene.project,
        "select count(distinct amount) from crm.deals where amount is not null and title is not null"
        " group by title having count(distinct connection) >= 3",
    )
    assert shared
    assert sum(each == (1,) for each in shared) / len(shared) > 0.9
