"""A plan as a file: what it holds, who takes it, and when it is too late for it."""

import hashlib
import json
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.plan import PlanResult, plan
from pipelines.progress import SilentProgress
from pipelines.pushing.planfile import read
from sources.core.errors import ConfigError, GuardError
from sources.sandbox import Sandbox
from tests.conftest import run_roundtrip
from tests.pushing import Desk, Shop

FIELDS = 'first_name = "first"\nlast_name = "last"\n"metadata.lead_score" = "score"\n'
PEOPLE = [
    ("one@new.example", "Ann", "Ash", 1),
    ("two@new.example", "Bob", None, 2),
    ("nobody", "No", None, 3),
]


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(records=10) as box:
        yield box


@pytest.fixture(scope="module")
def pulled(tmp_path_factory: pytest.TempPathFactory, box: Sandbox) -> Path:
    root = tmp_path_factory.mktemp("pulled")
    Shop(root, box, "relm", fields=FIELDS).pull()
    return root


@pytest.fixture
def shop(tmp_path: Path, box: Sandbox, pulled: Path, request: pytest.FixtureRequest) -> Shop:
    """A shop of its own, pulled; every test's new people have addresses of their own."""
    root = tmp_path / "shop"
    shutil.copytree(pulled, root)
    shop = Shop(root, box, "relm", fields=FIELDS)
    mine = hashlib.md5(request.node.name.encode()).hexdigest()[:8]
    shop.model([(key.replace("new", mine), *values) for key, *values in PEOPLE])
    return shop


@pytest.fixture
def file(shop: Shop) -> Path:
    path = shop.root / "plan.jsonl"
    write(shop, path)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    desk = Desk(tmp_path_factory.mktemp("desk"))
    desk.mirror()
    desk.model(("ann@example.com", "Ann", "Ash", 1))
    path = desk.root / "plan.jsonl"
    plan(desk.project, "leads", out=path, progress=SilentProgress())
    return path.read_bytes()


def write(shop: Shop, path: Path) -> PlanResult:
    return plan(shop.project, "leads", out=path, progress=SilentProgress())


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def reseal(path: Path, change: Any) -> None:
    """Edit a plan file as somebody does who knows how its digest is made."""
    *body, last = lines(path)
    change(body)
    text = "".join(json.dumps(line) + "\n" for line in body)
    last["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(text + json.dumps(last) + "\n")


def writes(shop: Shop) -> int:
    return len(shop.box.tenant("relm").ledger)


def test_the_file_holds_rows_and_header_and_only_its_owner_reads_it(shop: Shop, file: Path) -> None:
    header, *rows, last = lines(file)
    assert (header["sync"], header["target"]["base_url"]) == ("leads", shop.box.base_url("relm"))
    assert [(row["status"], row["reason"]) for row in rows] == [
        ("planned", None),
        ("planned", None),
        ("rejected", "invalid_key"),
    ]
    assert rows[0]["fields"]["first_name"] == "Ann"
    assert last["rows"] == 3
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert shop.box.key("relm") not in file.read_text()


def test_a_plan_file_is_carried_out_and_the_second_time_sends_nothing(shop: Shop, file: Path) -> None:
    before = writes(shop)
    first = shop.push(plan_file=file)
    assert (first.counts["created"], first.counts["rejected"], writes(shop) - before) == (2, 1, 2)
    second = shop.push(plan_file=file)
    assert (second.counts["created"], second.counts["unchanged"], writes(shop) - before) == (0, 2, 2)


def test_rows_that_are_not_in_the_file_are_not_sent(shop: Shop, file: Path) -> None:
    shop.write("insert into marts.leads values ('late@late.example', 'Late', null, 9)")
    result = shop.push(plan_file=file)
    assert result.counts["created"] == 2
    assert shop.contacts("late@late.example") == []


@pytest.mark.parametrize(
    "change",
    [
        "update marts.leads set first = 'Other' where first = 'Ann'",
        "delete from marts.leads where first = 'Ann'",
        "insert into marts.leads select email, 'Twin', last, score from marts.leads where first = 'Ann'",
    ],
)
def test_a_model_that_moved_on_stops_the_push(shop: Shop, file: Path, change: str) -> None:
    shop.write(change)
    before = writes(shop)
    with pytest.raises(GuardError, match=r"1 of the 2 rows of plan\.jsonl would be planned otherwise now"):
        shop.push(plan_file=file)
    assert writes(shop) == before


def test_a_mirror_that_moved_on_stops_the_push(shop: Shop, file: Path) -> None:
    (address,) = shop.read("select email from marts.leads where first = 'Ann'")[0]
    shop.write(
        "insert into relm.contacts (id, email, first_name, _row_hash, _synced_at)"
        " values ('con_x', ?, 'Anna', '', now())",
        [address],
    )
    with pytest.raises(GuardError, match="otherwise now"):
        shop.push(plan_file=file)


def test_settings_that_changed_stop_the_push_and_guards_may_differ(shop: Shop, file: Path) -> None:
    shop.declare(FIELDS, 'conflicts = "model_wins"')
    with pytest.raises(GuardError, match="settings of the sync have changed"):
        shop.push(plan_file=file)
    shop.declare(FIELDS, "max_changes = 0.01")
    with pytest.raises(GuardError, match="over max_changes"):
        shop.push(plan_file=file)


def test_a_file_that_was_edited_and_sealed_again_sends_nothing(shop: Shop, file: Path) -> None:
    reseal(file, lambda body: body[1]["fields"].update(first_name="Mallory"))
    with pytest.raises(GuardError, match="1 of the 2 rows"):
        shop.push(plan_file=file)


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda data: data[:-20], "no whole plan file"),
        (lambda data: data[: len(data) // 2], "no whole plan file"),
        (lambda data: data.replace(b"Ann", b"Bea"), "digest differs"),
        (lambda data: data.replace(b'"version": 1', b'"version": 2'), "plan of version 1"),
        (lambda data: data.replace(b'"sync": "leads"', b'"sync": "other"'), "digest differs"),
        (lambda data: b"", "no whole plan file"),
        (lambda data: b"\xff\xfe" + data, "no whole plan file"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(whole: bytes, tmp_path: Path, damage: Any, line: str) -> None:
    path = tmp_path / "plan.jsonl"
    path.write_bytes(damage(whole))
    with pytest.raises(ConfigError, match=line) as told:
        read(path, "leads")
    assert "\n" not in str(told.value)


def test_a_plan_of_another_sync_or_workspace_is_refused(shop: Shop, file: Path) -> None:
    reseal(file, lambda body: body[0].update(sync="deals"))
    with pytest.raises(ConfigError, match="a plan of deals, not of leads"):
        shop.push(plan_file=file)
    reseal(file, lambda body: body[0].update(sync="leads"))
    reseal(file, lambda body: body[0]["target"].update(base_url="https://relmcrm.com"))
    with pytest.raises(ConfigError, match=r"was made for base_url https://relmcrm\.com"):
        shop.push(plan_file=file)


def test_a_limit_and_a_file_do_not_go_together(shop: Shop, file: Path) -> None:
    with pytest.raises(ConfigError, match="do not go together"):
        shop.push(plan_file=file, limit=1)


def test_a_file_that_cannot_be_written_is_told_in_one_line(shop: Shop) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        write(shop, shop.root / "no" / "plan.jsonl")


def test_a_plan_changes_nothing_anywhere(shop: Shop) -> None:
    """Neither the database's bytes nor the working folder, cursors included, nor anything in the CRM."""
    before = everything(shop)
    shop.plan()
    shop.push(dry_run=True)
    write(shop, shop.root.parent / "elsewhere.jsonl")
    assert everything(shop) == before


def everything(shop: Shop) -> tuple[dict[Path, bytes], int, list[Any]]:
    files = {path: path.read_bytes() for path in shop.root.rglob("*") if path.is_file()}
    return files, writes(shop), [each.method for each in shop.box.requests if each.method != "GET"]


def test_the_command_line_ends_with_2_for_a_bad_file_and_with_5_for_one_that_is_too_old(shop: Shop) -> None:
    made = run_roundtrip(shop.root, "plan", "leads", "--out", "plan.jsonl", **shop.environ)
    assert made.returncode == 0
    assert "3 rows, sealed" in made.stderr
    (shop.root / "bad.jsonl").write_text("{}\n")
    bad = run_roundtrip(shop.root, "push", "leads", "--yes", "--plan", "bad.jsonl", **shop.environ)
    shop.write("update marts.leads set first = 'Other'")
    old = run_roundtrip(shop.root, "push", "leads", "--yes", "--plan", "plan.jsonl", **shop.environ)
    assert (bad.returncode, old.returncode) == (2, 5)
