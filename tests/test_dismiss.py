"""Dismissed rows stay away until the model gives them other values, and no longer count as pending."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.dismiss import dismiss
from pipelines.status import status
from sources.core.errors import ConfigError
from sources.sandbox import Sandbox
from sources.sandbox.relm_rules import RelmSwitches
from tests.pushing import Shop

FIELDS = 'first_name = "first"\nlast_name = "last"\n"metadata.tier" = "level"\n'
BAD = "bad@new.example"


@pytest.fixture
def relm(tmp_path: Path) -> Iterator[Shop]:
    """Push two leads of which the CRM refuses one."""
    with Sandbox(records=3, relm=RelmSwitches()) as box:
        made = Shop(tmp_path, box, "relm", fields=FIELDS)
        made.pull()
        model(made, "platinum")
        assert made.push().counts["rejected"] == 1
        yield made


def model(shop: Shop, level: str) -> None:
    rows = [("good@new.example", "Good", "One", "gold"), (BAD, "Bad", "One", level)]
    shop.model(rows, columns="email, first, last, level")


def pending(shop: Shop) -> tuple[int, int]:
    (told,) = status(shop.project).syncs
    return told["pending"], told["rejected"]


def reasons(result: Any) -> list[tuple[str, str | None]]:
    return [(row["status"], row["reason"]) for row in result.rows]


def test_a_dismissed_row_is_not_sent_again_and_fails_no_push(relm: Shop) -> None:
    assert pending(relm) == (1, 1)
    assert dismiss(relm.project, "leads").keys == [BAD]
    assert pending(relm) == (0, 0)
    calls = relm.calls("POST", "/batch")
    result = relm.push()
    assert (result.exit_code, reasons(result)) == (0, [("skipped", "dismissed")])
    assert relm.calls("POST", "/batch") == calls
    assert pending(relm) == (0, 0)


def test_it_comes_back_when_the_model_changes_it(relm: Shop) -> None:
    dismiss(relm.project, "leads", [BAD])
    model(relm, "gold")
    assert relm.push().counts["created"] == 1


def test_it_comes_back_when_that_is_asked_for(relm: Shop) -> None:
    dismiss(relm.project, "leads", [BAD])
    cleared = dismiss(relm.project, "leads", clears=True)
    assert (cleared.keys, json.loads(json.dumps(cleared.payload()))["dismissed"]) == ([BAD], False)
    assert relm.push().counts["rejected"] == 1


def test_rows_that_are_only_planned_are_dismissed_by_name_alone(relm: Shop) -> None:
    relm.model([("new@new.example", "New", "One", "gold")], columns="email, first, last, level")
    assert dismiss(relm.project, "leads").keys == []
    assert dismiss(relm.project, "leads", ["new@new.example"]).keys == ["new@new.example"]
    assert relm.push().counts["created"] == 0


def test_a_key_that_no_open_row_has_is_an_error(relm: Shop) -> None:
    with pytest.raises(ConfigError, match="1 of the keys"):
        dismiss(relm.project, "leads", ["nobody@new.example"])


def test_a_limit_counts_the_rows_that_are_left(relm: Shop) -> None:
    rows = [(f"{letter}@new.example", letter, "One", "gold") for letter in "abc"]
    relm.model(rows, columns="email, first, last, level")
    dismiss(relm.project, "leads", ["a@new.example"])
    assert [row["key"] for row in relm.push(limit=1).rows if row["status"] == "created"] == ["b@new.example"]
