"""Whose record a row is: whatever happens to addresses, no record is made that should not be there.

One table of cases, each with addresses of its own. All go through one CRM by the same two pushes: records are
put there by hand, everything is pulled and pushed; then people do things in the CRM, the model moves on, and
all is pulled and pushed again. A third push sends nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest

from pipelines.push import PushResult
from sources.sandbox import Sandbox
from sources.sandbox.rally_rules import RallySwitches
from sources.sandbox.relm_rules import RelmSwitches
from tests.pushing import Shop

Rows = tuple[tuple[str | None, str], ...]  # address and first name
Told = tuple[str, ...]  # status, with the reason after a colon where there is one
FIELDS = {
    "relm": ('first_name = "first"\n', "first_name"),
    "rally": ('firstName = "first"\nlastName = "last"\n', "firstName"),
}


@dataclass(frozen=True)
class Case:
    """One thing that happens to addresses.

    `there` stands in the CRM before the first pull. `told` is what the first push says of `rows`; then
    `by_hand` happens, `later` is the model (by default the same), and `told_later` what the second push says.
    `ends` are the first names that the CRM holds in the end under each address, as it spells it.
    """

    name: str
    rows: Rows
    told: Told
    ends: Mapping[str, tuple[str, ...]]
    there: Rows = ()
    by_hand: Callable[["People"], None] | None = None
    later: Rows | None = None
    told_later: Told | None = None

    @property
    def second(self) -> tuple[Rows, Told]:
        """Give the rows of the second push and what it says: by default the same, and rejections again."""
        again = tuple(each for each in self.told if each.startswith("rejected") and self.later is None)
        return self.rows if self.later is None else self.later, (
            again if self.told_later is None else self.told_later
        )


class People:
    """What a person does to contacts in the CRM's own screens."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.tenant = shop.box.tenant(shop.crm)
        self.name = FIELDS[shop.crm][1]

    def add(self, email: str | None, first: str) -> None:
        last = {"lastName": "L"} if self.shop.crm == "rally" else {}
        self.tenant.create("contacts", email=email, **last, **{self.name: first})

    def move(self, old: str, new: str) -> None:
        self.tenant.edit("contacts", self._id(old), email=new)

    def swap(self, one: str, other: str) -> None:
        first, second = self._id(one), self._id(other)
        self.tenant.edit("contacts", first, email=other)
        self.tenant.edit("contacts", second, email=one)

    def drop(self, email: str) -> None:
        self.tenant.delete("contacts", self._id(email))

    def make_anew(self, email: str, first: str) -> None:
        self.drop(email)
        self.add(email, first)

    def _id(self, email: str) -> str:
        return str(self.tenant.find("contacts", email=email)["id"])

    def holding(self) -> dict[str | None, tuple[str, ...]]:
        """Give the first names that the CRM holds under each address."""
        held: dict[str | None, tuple[str, ...]] = {}
        for each in self.tenant.records("contacts"):
            held[each["email"]] = tuple(sorted((*held.get(each["email"], ()), each[self.name])))
        return held


CASES = (
    # -- spelling ----------------------------------------------------------------------------
    Case("new", (("a@new.id", "A"),), ("created",), {"a@new.id": ("A",)}),
    Case("known", (("a@known.id", "A"),), ("updated",), {"a@known.id": ("A",)}, there=(("a@known.id", "B"),)),
    Case("at rest", (("a@rest.id", "A"),), (), {"a@rest.id": ("A",)}, there=(("a@rest.id", "A"),)),
    Case(
        "case in the model",
        (("A@CASE.id", "A"),),
        ("updated",),
        {"a@case.id": ("A",)},
        there=(("a@case.id", "B"),),
    ),
    Case(
        "case in the CRM",
        (("a@case2.id", "A"),),
        ("updated",),
        {"A@Case2.id": ("A",)},
        there=(("A@Case2.id", "B"),),
    ),
    Case(
        "spaces in the model",
        (("  a@space.id\t\n", "A"),),
        ("updated",),
        {"a@space.id": ("A",)},
        there=(("a@space.id", "B"),),
    ),
    Case(
        "no-break spaces",
        (("\u00a0a@nbsp.id\u00a0", "A"),),
        ("updated",),
        {"a@nbsp.id": ("A",)},
        there=(("a@nbsp.id", "B"),),
    ),
    Case(
        "spaces in the CRM",
        (("a@space2.id", "A"),),
        ("updated",),
        {" a@space2.id ": ("A",)},
        there=((" a@space2.id ", "B"),),
    ),
    Case(
        "composed and decomposed letters are one",
        (("jose\u0301@nfd.id", "A"),),
        ("updated",),
        {"jos\u00e9@nfd.id": ("A",)},
        there=(("jos\u00e9@nfd.id", "B"),),
    ),
    Case(
        "twins by composition count once",
        (("zoe\u0308@nfd2.id", "A"), ("zo\u00eb@nfd2.id", "A")),
        ("created",),
        {"zoe\u0308@nfd2.id": ("A",)},
    ),
    Case(
        "letters beyond ASCII, case",
        (("ÅSA@UNI.id", "A"),),
        ("updated",),
        {"åsa@uni.id": ("A",)},
        there=(("åsa@uni.id", "B"),),
    ),
    Case("a host beyond ASCII", (("a@bücher.id", "A"),), ("created",), {"a@bücher.id": ("A",)}),
    Case(
        "a host as it is and in its ASCII form are two texts",
        (("a@xn--bcher2-3ya.id", "A"),),
        ("created",),
        {"a@xn--bcher2-3ya.id": ("A",), "a@bücher2.id": ("B",)},
        there=(("a@bücher2.id", "B"),),
    ),
    Case(
        "wide letters are other letters",
        (("ａ@wide.id", "A"),),
        ("created",),
        {"ａ@wide.id": ("A",), "a@wide.id": ("B",)},
        there=(("a@wide.id", "B"),),
    ),
    Case(
        "plus tags are other mailboxes",
        (("a+x@plus.id", "A"), ("a+y@plus.id", "A")),
        ("created", "created"),
        {"a@plus.id": ("B",), "a+x@plus.id": ("A",), "a+y@plus.id": ("A",)},
        there=(("a@plus.id", "B"),),
    ),
    Case(
        "dots count",
        (("a.b@dots.id", "A"),),
        ("created",),
        {"ab@dots.id": ("B",), "a.b@dots.id": ("A",)},
        there=(("ab@dots.id", "B"),),
    ),
    Case("a host without a country", (("a@b.museum", "A"),), ("created",), {"a@b.museum": ("A",)}),
    Case("digits and dashes", (("1-2_3@4-5.id", "A"),), ("created",), {"1-2_3@4-5.id": ("A",)}),
    Case("an apostrophe", (("o'neil@quote.id", "A"),), ("created",), {"o'neil@quote.id": ("A",)}),
    # -- what can be no address --------------------------------------------------------------
    Case(
        "null, empty and blank", ((None, "A"), ("", "A"), (" \t ", "A")), ("rejected: invalid_key",) * 3, {}
    ),
    Case("no at", (("a.no-at.id", "A"),), ("rejected: invalid_key",), {}),
    Case("two ats", (("a@b@two-at.id", "A"),), ("rejected: invalid_key",), {}),
    Case("no host", (("a@", "A"),), ("rejected: invalid_key",), {}),
    Case("no dot", (("a@localhost", "A"),), ("rejected: invalid_key",), {}),
    Case("a space within", (("a b@within.id", "A"),), ("rejected: invalid_key",), {}),
    Case("a no-break space within", (("a\u00a0b@within.id", "A"),), ("rejected: invalid_key",), {}),
    Case("a mark of byte order", (("\ufeffa@bom.id", "A"),), ("rejected: invalid_key",), {}),
    Case("a space of no width", (("a\u200b@zero.id", "A"),), ("rejected: invalid_key",), {}),
    Case("a wide at", (("a\uff20wide-at.id", "A"),), ("rejected: invalid_key",), {}),
    Case("two addresses", (("a@two.id, b@two.id", "A"),), ("rejected: invalid_key",), {}),
    Case("a name beside it", (("Ann <a@name.id>", "A"),), ("rejected: invalid_key",), {}),
    Case("too long", ((f"{'a' * 250}@long.id", "A"),), ("rejected: invalid_key",), {}),
    Case(
        "as long as can be", ((f"{'b' * 246}@long.id", "A"),), ("created",), {f"{'b' * 246}@long.id": ("A",)}
    ),
    Case("hostile SQL", (("a'); drop table marts.leads; --@sql.id", "A"),), ("rejected: invalid_key",), {}),
    Case(
        "hostile but valid",
        (("=cmd|'/c'!a1@formula.id", "A"),),
        ("created",),
        {"=cmd|'/c'!a1@formula.id": ("A",)},
    ),
    Case("hostile HTML", (("<b>a@html.id", "A"),), ("rejected: invalid_key",), {}),
    Case("an escape of terminals", (("\x1b[31ma@esc.id", "A"),), ("rejected: invalid_key",), {}),
    # -- twins -------------------------------------------------------------------------------
    Case(
        "equal twins count once",
        (("a@twin.id", "A"), ("a@twin.id", "A")),
        ("created",),
        {"a@twin.id": ("A",)},
    ),
    Case(
        "twins by case count once",
        (("a@twin2.id", "A"), ("A@TWIN2.id", "A")),
        ("created",),
        {"A@TWIN2.id": ("A",)},
    ),
    Case(
        "unequal twins are both held back",
        (("a@twin3.id", "A"), ("A@twin3.id", "B")),
        ("rejected: duplicate_key", "rejected: duplicate_key"),
        {},
    ),
    Case(
        "unequal twins leave a known record alone",
        (("a@twin4.id", "A"), ("a@twin4.id", "B")),
        ("rejected: duplicate_key", "rejected: duplicate_key"),
        {"a@twin4.id": ("C",)},
        there=(("a@twin4.id", "C"),),
    ),
    Case(
        "twins that become one person",
        (("a@twin5.id", "A"), ("a@twin5.id", "B")),
        ("rejected: duplicate_key", "rejected: duplicate_key"),
        {"a@twin5.id": ("B",)},
        later=(("a@twin5.id", "B"),),
        told_later=("created",),
    ),
    # -- several records in the CRM ----------------------------------------------------------
    Case(
        "two records with the address",
        (("a@two-rec.id", "A"),),
        ("rejected: ambiguous",),
        {"a@two-rec.id": ("B", "C")},
        there=(("a@two-rec.id", "B"), ("a@two-rec.id", "C")),
    ),
    Case(
        "two records by case",
        (("a@two-case.id", "A"),),
        ("rejected: ambiguous",),
        {"a@two-case.id": ("B",), "A@two-case.id": ("C",)},
        there=(("a@two-case.id", "B"), ("A@two-case.id", "C")),
    ),
    Case(
        "a second record made by hand after the first push",
        (("a@second.id", "A"),),
        ("created",),
        {"a@second.id": ("A2", "H")},
        by_hand=lambda people: people.add("a@second.id", "H"),
        later=(("a@second.id", "A2"),),
        told_later=("updated",),
    ),
    Case(
        "two records merged by hand",
        (("a@merged.id", "A"), ("b@merged.id", "B")),
        ("updated", "updated"),
        {"a@merged.id": ("A",)},
        there=(("a@merged.id", "1"), ("b@merged.id", "2")),
        by_hand=lambda people: people.drop("b@merged.id"),
        later=(("a@merged.id", "A"),),
    ),
    # -- moving ------------------------------------------------------------------------------
    Case(
        "address changed in the CRM",
        (("a@moved.id", "A"),),
        ("created",),
        {"new@moved.id": ("A2",)},
        by_hand=lambda people: people.move("a@moved.id", "new@moved.id"),
        later=(("a@moved.id", "A2"),),
        told_later=("updated",),
    ),
    Case(
        "address changed in the CRM, model at rest",
        (("a@moved2.id", "A"),),
        ("created",),
        {"new@moved2.id": ("A",)},
        by_hand=lambda people: people.move("a@moved2.id", "new@moved2.id"),
    ),
    Case(
        "address changed on both sides",
        (("a@moved3.id", "A"),),
        ("created",),
        {"new@moved3.id": ("A2",)},
        by_hand=lambda people: people.move("a@moved3.id", "new@moved3.id"),
        later=(("new@moved3.id", "A2"),),
        told_later=("updated",),
    ),
    Case(
        "another person has the address in the model",
        (("a@other.id", "A"),),
        ("created",),
        {"a@other.id": ("B",)},
        later=(("a@other.id", "B"),),
        told_later=("updated",),
    ),
    Case(
        "two people swapped addresses in the model",
        (("a@swap.id", "A"), ("b@swap.id", "B")),
        ("created", "created"),
        {"a@swap.id": ("B",), "b@swap.id": ("A",)},
        later=(("a@swap.id", "B"), ("b@swap.id", "A")),
        told_later=("updated", "updated"),
    ),
    Case(
        "two people swapped addresses in the CRM",
        (("a@swap2.id", "A"), ("b@swap2.id", "B")),
        ("created", "created"),
        {"b@swap2.id": ("A",), "a@swap2.id": ("B",)},
        by_hand=lambda people: people.swap("a@swap2.id", "b@swap2.id"),
    ),
    # -- going and coming --------------------------------------------------------------------
    Case(
        "made by hand before the second pull",
        (("x@hand.id", "X"),),
        ("created",),
        {"x@hand.id": ("X",), "a@hand.id": ("A",)},
        by_hand=lambda people: people.add("a@hand.id", "H"),
        later=(("x@hand.id", "X"), ("a@hand.id", "A")),
        told_later=("updated",),
    ),
    Case(
        "deleted in the CRM",
        (("a@gone.id", "A"),),
        ("created",),
        {"a@gone.id": ("A",)},
        by_hand=lambda people: people.drop("a@gone.id"),
        told_later=("created",),
    ),
    Case(
        "deleted and made anew by hand",
        (("a@anew.id", "A"),),
        ("created",),
        {"a@anew.id": ("A",)},
        by_hand=lambda people: people.make_anew("a@anew.id", "H"),
        told_later=("updated",),
    ),
    Case(
        "gone from the model",
        (("a@left.id", "A"),),
        ("created",),
        {"a@left.id": ("A",)},
        later=(),
    ),
    Case(
        "gone from the model and back between pushes",
        (("a@back.id", "A"),),
        ("updated",),
        {"a@back.id": ("A",)},
        there=(("a@back.id", "B"),),
    ),
    Case(
        "a record without an address",
        (("a@none.id", "A"),),
        ("created",),
        {"a@none.id": ("A",)},
        there=((None, "N"),),
    ),
)
# Rally's rules are others: an address goes out trimmed, and none may be given to a second contact.
IN_RALLY: dict[str, dict[str, Any]] = {
    "spaces in the CRM": {"ends": {"a@space2.id": ("A",)}},
    "a second record made by hand after the first push": {
        "ends": {"a@second.id": ("A", "H")},
        "told_later": ("rejected: the request was refused (409: Another contact has this email)",),
    },
}
NAMES = [case.name for case in CASES]


def test_the_table_has_the_cases_that_were_promised() -> None:
    assert len(set(NAMES)) == len(CASES) >= 40


@dataclass
class Carried:
    """All cases carried through one CRM: what each push said, and what the CRM holds in the end."""

    crm: str
    first: PushResult
    second: PushResult
    sent_third: int
    held: Mapping[str | None, tuple[str, ...]]


def carry(root: Path, box: Sandbox, crm: str) -> Carried:
    """Push, let people do things, push again, and once more."""
    shop = Shop(root, box, crm, fields=FIELDS[crm][0])
    people = People(shop)
    for case in CASES:
        for email, name in case.there:
            people.add(email, name)
    first = push(shop, [row for case in CASES for row in case.rows])
    for case in CASES:
        if case.by_hand:
            case.by_hand(people)
    second = push(shop, [row for case in CASES for row in case.second[0]])
    applied = len(people.tenant.ledger)
    shop.pull(accept_deletes=True)
    shop.push()
    return Carried(crm, first, second, len(people.tenant.ledger) - applied, people.holding())


def push(shop: Shop, rows: list[tuple[str | None, str]]) -> PushResult:
    shop.model([(email, first, "L") for email, first in rows], columns="email, first, last")
    shop.pull(accept_deletes=True)
    return shop.push()


def told(result: PushResult, rows: Rows) -> Told:
    """Give what a push says of rows, each key once and sorted."""
    keys = {key for email, _ in rows for key in (email, _key(email))}
    mine = [row for row in result.rows if row["key"] in keys]
    return tuple(sorted(row["status"] + (f": {row['reason']}" if row["reason"] else "") for row in mine))


def _key(email: str | None) -> str | None:
    return None if email is None else normalize("NFC", email.strip().lower())


@pytest.fixture(scope="module", params=FIELDS)
def carried(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Carried]:
    relm, rally = RelmSwitches(rate_limit=None), RallySwitches(rate_limit=None)
    with Sandbox(records=3, relm=relm, rally=rally) as box:
        yield carry(tmp_path_factory.mktemp(request.param), box, request.param)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_a_row_ends_at_its_own_record_or_is_held_back_with_the_reason(carried: Carried, case: Case) -> None:
    assert told(carried.first, case.rows) == case.told
    if carried.crm == "rally":
        case = replace(case, **IN_RALLY.get(case.name, {}))
    rows, told_later = case.second
    assert told(carried.second, rows) == told_later
    assert {email: carried.held.get(email, ()) for email in case.ends} == case.ends


def test_a_third_push_sends_nothing(carried: Carried) -> None:
    assert carried.sent_third == 0


def test_no_record_is_there_that_no_case_expects(carried: Carried) -> None:
    changed = [each["ends"] for each in IN_RALLY.values() if carried.crm == "rally"]
    expected = {email for ends in (*(case.ends for case in CASES), *changed) for email in ends}
    assert {email for email in carried.held if email and not email.endswith(".example")} - expected == set()
