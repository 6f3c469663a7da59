"""What somebody changed in the CRM since we wrote it: listed with its time, written again where asked to."""

from pathlib import Path

import pytest

from pipelines.drift import drift, repair
from pipelines.progress import SilentProgress
from pipelines.render import json_object
from sources.core.errors import ConfigError
from sources.sandbox import Sandbox
from sources.sandbox.relm_rules import RelmSwitches
from tests.pushing import EVENING, MORNING, NOON, Desk, Shop

ANN = {"id": "c1", "email": "ann@x.example", "first_name": "Ann", "last_name": "Hand"}


def test_a_field_changed_in_the_crm_is_listed_with_both_values_and_its_time(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.mirror(ANN, synced_at=NOON, looked_at=NOON)
    desk.model(("ann@x.example", "Ann", "Lee", None))
    shown = {"first_name": "Ann", "last_name": "Lee"}
    desk.remember("ann@x.example", shown, shown, crm_id="c1", pushed_at=MORNING)
    desk.write(
        "insert into roundtrip.changes values"
        " ('run', 'relm', 'contacts', 'c1', 'last_name', 'Lee', 'Hand', ?, 'updated', 'crm')",
        [NOON],
    )
    found = drift(desk.project, "leads")
    assert [(row["key"], row["crm_id"], row["fields"]) for row in found.rows] == [
        ("ann@x.example", "c1", {"last_name": {"old": "Lee", "new": "Hand"}})
    ]
    assert (found.rows[0]["changed_at"], found.as_of) == (NOON.isoformat(), NOON.isoformat())
    assert '"drift": 1, "fields": 1' in json_object("drift", found)


def test_a_conflict_and_a_value_that_the_crm_only_spells_otherwise_are_no_drift(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.mirror({**ANN, "first_name": "ANN"}, synced_at=NOON, looked_at=NOON)
    desk.model(("ann@x.example", " Ann", "Newer", None))
    desk.remember(
        "ann@x.example", {"first_name": " Ann", "last_name": "Lee"}, {"last_name": "Lee"}, crm_id="c1"
    )
    assert drift(desk.project, "leads").rows == []


@pytest.mark.parametrize("policy", ["if_empty", "on_create"])
def test_a_field_that_is_written_only_now_and_then_is_left_to_the_crm(tmp_path: Path, policy: str) -> None:
    """The plan has nothing else to repair, so nothing is asked and no request leaves."""
    desk = Desk(
        tmp_path,
        fields=f'first_name = "first_name"\nlast_name = {{ column = "last_name", write = "{policy}" }}\n',
    )
    desk.mirror(ANN, synced_at=EVENING, looked_at=EVENING)
    desk.model(("ann@x.example", "Ann", "Lee", None))
    shown = {"first_name": "Ann", "last_name": "Lee"}
    desk.remember("ann@x.example", shown, shown, crm_id="c1")
    result = repair(desk.project, "leads", confirm=lambda made: False, progress=SilentProgress())
    assert (result.counts["update"], result.exit_code) == (0, 0)
    assert len(drift(desk.project, "leads").rows) == 1


def test_a_repair_writes_the_changed_fields_again_and_nothing_else(tmp_path: Path) -> None:
    fields = 'first_name = "first"\nlast_name = "last"\n"metadata.lead_score" = "score"\n'
    with Sandbox(records=4, relm=RelmSwitches(rate_limit=None)) as box:
        shop = Shop(tmp_path, box, "relm", fields=fields)
        shop.pull()
        first, second, *_ = [each["email"] for each in box.tenant("relm").records("contacts")]
        shop.model([(first, "New", "One", 1), (second, "New", "Two", 2)])
        shop.push()
        shop.pull()
        shop.by_hand(first, last_name="Hand", phone="+49 30 1")
        shop.pull()
        shop.model([(first, "New", "One", 1), (second, "Newer", "Two", 2)])
        with pytest.raises(ConfigError, match="not confirmed, nothing was sent"):
            repair(shop.project, "leads", confirm=lambda made: False, progress=SilentProgress())
        result = repair(shop.project, "leads", confirm=lambda made: True, progress=SilentProgress())
        assert [(row["key"], row["fields"]) for row in result.rows] == [
            (first.strip().lower(), {"last_name": {"old": "Hand", "new": "One"}})
        ]
        assert (shop.contact(first)["last_name"], shop.contact(first)["phone"]) == ("One", "+49 30 1")
        assert shop.contact(second)["first_name"] == "New"
        assert drift(shop.project, "leads").rows == []
