"""What the pages for people say is what the code does."""

import re
import sys
from pathlib import Path

import pytest

import sources
from pipelines.cli import COMMANDS
from sources.core.connector import STAGE_OPTIONS

ROOT = Path(sources.__file__).parents[1]
CRMS_PAGE = (ROOT / "sources" / "README.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
GENERAL = {option.name for option in STAGE_OPTIONS}


def section(crm: str) -> str:
    title = sources.load(crm).title
    return re.split(rf"^## {title}$", CRMS_PAGE, flags=re.MULTILINE)[1].split("\n## ")[0]


@pytest.mark.parametrize("crm", sources.names())
def test_every_setting_of_a_crm_stands_on_its_page_with_its_default(crm: str) -> None:
    for option in sources.load(crm).options:
        if option.name in GENERAL:
            continue
        [line] = re.findall(rf"^\| `{option.name}` \|.*$", section(crm), flags=re.MULTILINE)
        if option.default not in (None, ""):
            assert f"{option.default}".lower() in line.lower().replace("`", "")


@pytest.mark.parametrize("crm", sources.names())
def test_every_table_and_object_of_a_crm_is_named_on_its_page(crm: str) -> None:
    text = section(crm)
    for contract in sources.load(crm).contracts.values():
        for name in (*(each.name for each in contract.resources), *contract.writes):
            assert re.search(rf"\b{name}\b", text), name


def test_every_command_is_named_on_the_first_page_and_has_help() -> None:
    for command in COMMANDS:
        assert command.__doc__
        assert f"roundtrip {command.__name__}" in README


def test_the_first_page_names_every_crm() -> None:
    assert all(f"| {sources.load(crm).title} |" in README for crm in sources.names())


def test_the_test_command_of_the_first_page_is_the_one_ci_calls() -> None:
    command = re.findall(r"^python3 -m venv .*pytest$", README, flags=re.MULTILINE)[0]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert command.removeprefix("python3") in script


def test_the_first_page_names_the_dlt_destination_of_every_crm_that_takes_contacts() -> None:
    for crm in sources.names():
        takes_contacts = any("contacts" in each.writes for each in sources.load(crm).contracts.values())
        name = f"{crm}_contacts"
        assert hasattr(sys.modules[f"sources.{crm}"], name) == takes_contacts
        assert (f"`{name}`" in README) == takes_contacts
