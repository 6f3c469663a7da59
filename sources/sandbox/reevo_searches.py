"""How Reevo's v1 finds: searches with limit and offset, the look-ups, the retrieval by one key."""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from sources.sandbox import reevo_bodies as bodies
from sources.sandbox.exchange import Refusal, Request, Response, encode, reply
from sources.sandbox.reevo_profiles import API, Profiles
from sources.sandbox.reevo_rules import stage_named
from sources.sandbox.reevo_state import folded
from sources.sandbox.simulator import route
from sources.sandbox.table import Fields, Record

Test: TypeAlias = Callable[[Fields], bool]


class Searches(Profiles):
    """Answer what v1 can be asked for without an id."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._last: tuple[Any, list[str]] = (None, [])

    @route("POST", f"{API}/accounts/search")
    def search_accounts(self, request: Request) -> Response:
        sent = bodies.read(request, "accounts.search")
        text = sent["domain_name"]
        if not text and self.s.empty_domain != "all":
            if self.s.empty_domain == "refused":
                raise self.broken("domain_name is empty")
            return reply([])
        folds = str.casefold if self.s.domain_match == "folded" else str
        wanted = folds(text)
        return self._found(
            "accounts", sent, lambda held: any(wanted in folds(row["domain_name"]) for row in held["domains"])
        )

    @route("POST", f"{API}/contacts/search")
    def search_contacts(self, request: Request) -> Response:
        sent = bodies.read(request, "contacts.search")
        email, owner = folded(sent.get("contact_email")), self.user(sent.get("owner_email"))
        if not email and sent.get("owner_email") is None:
            raise self.broken("contact_email or owner_email is needed")
        sent.setdefault("limit", 50)

        def is_wanted(held: Fields) -> bool:
            is_owned = sent.get("owner_email") is None or (owner and held["owner_user_id"] == owner.id)
            addresses = {folded(row["email"]) for row in held["contact_emails"]}
            return bool(is_owned) and (not email or email in addresses)

        return self._found("contacts", sent, is_wanted)

    @route("POST", f"{API}/opportunities/search")
    def search_opportunities(self, request: Request) -> Response:
        sent = bodies.read(request, "opportunities.search")
        asked = {name: value for name, value in sent.items() if value is not None}
        tests = [test for name, make in self._tests.items() if name in asked for test in [make(asked[name])]]
        if not tests and self.s.empty_search == "refused":
            raise self.broken("At least one condition is needed")
        return self._found("opportunities", sent, lambda held: all(test(held) for test in tests))

    @property
    def _tests(self) -> dict[str, Callable[[Any], Test]]:
        """Return how each condition of an opportunity search is met."""
        is_exact = self.s.name_match == "exact"

        def named(text: str) -> Test:
            wanted = text.casefold()
            return lambda held: (
                wanted == held["display_name"].casefold()
                if is_exact
                else wanted in held["display_name"].casefold()
            )

        def staged(text: str) -> Test:
            stage = stage_named("opportunity_stage", text)
            return lambda held: stage is not None and held["stage"] == stage.api_name

        def owned(email: str) -> Test:
            user = self.user(email)
            return lambda held: user is not None and held["owner_user_id"] == user.id

        return {
            "display_name": named,
            "account_id": lambda id: lambda held: held["account_id"] == id,
            "owner_email": owned,
            "status": lambda status: lambda held: held["status"] == status,
            "stage_name": staged,
        }

    @route("POST", f"{API}/users/search")
    def search_users(self, request: Request) -> Response:
        user = self.user(bodies.read(request, "users.search")["email"])
        return self.answer([self.profile("users", user)] if user else [], 200)

    @route("POST", f"{API}/mailboxes/search")
    def search_mailboxes(self, request: Request) -> Response:
        owner = self.user(bodies.read(request, "mailboxes.search")["owner_user_email"])
        boxes = (box for box in self.tenant.tables["mailboxes"] if owner)
        found = [box for box in boxes if owner and box.fields["owner_user_id"] == owner.id]
        return self.answer([self.profile("mailboxes", box) for box in found], 200)

    @route("GET", f"{API}/account_and_contact_retrieval")
    def retrieve(self, request: Request) -> Response:
        names = ("contact_email", "account_domain", "contact_phone_number")
        given = {name: value for name in names if (value := request.param(name))}
        if len(given) != 1:
            raise self.broken(f"Exactly one of {', '.join(names)} is needed")
        accounts, contacts = self._retrieved(*next(iter(given.items())))
        if self.s.retrieval == "refused" and not accounts and not contacts:
            raise Refusal(404, "missing", "Nothing was found")
        shown = [self.profile("accounts", row) for row in accounts]
        people = [self.profile("contacts", row) for row in contacts]
        if self.s.retrieval == "lists":
            return self.answer({"accounts": shown, "contacts": people}, 200)
        return self.answer({"account": next(iter(shown), None), "contact": next(iter(people), None)}, 200)

    # What the above is made of

    def _found(self, resource: str, sent: Fields, is_wanted: Test) -> Response:
        """Return the page of the records that fit; ids are kept until the next write, for page after page."""
        table = self.tenant.tables[resource]
        asked = {name: value for name, value in sent.items() if name not in ("limit", "offset")}
        state = (resource, table.version, encode(asked))
        if self._last[0] != state or self.space.lag:
            self._last = (state, [row.id for row in self._listed(resource) if is_wanted(row.fields)])
        ids = self._last[1]
        limit = sent.get("limit")
        size = min(self.s.v1_default_limit if limit is None else limit, self.s.v1_max_limit)
        start = sent.get("offset") or 0
        return self.answer([self._seen(resource, id) for id in ids[start : start + size]], 200)

    def _listed(self, resource: str) -> Iterator[Record]:
        is_descending = self.s.v1_order == "created_desc"
        for record in self.tenant.tables[resource].after(None, is_descending=is_descending):
            if seen := self.tenant.listed(record, self.now()):
                yield seen

    def _seen(self, resource: str, id: str) -> Fields:
        record = self.tenant.tables[resource].records[id]
        return self.profile(resource, self.tenant.listed(record, self.now()) or record)

    def _retrieved(self, name: str, value: str) -> tuple[list[Record], list[Record]]:
        if name == "account_domain":
            accounts = self.accounts_at(value)
            pairs = (self.related("contact_account", "contacts", row.id) for row in accounts)
            return accounts, [person for people in pairs for person in people]
        contacts = self.contacts_at(value) if name == "contact_email" else self._at_phone(value)
        pairs = (self.related("contact_account", "accounts", row.id) for row in contacts)
        return [account for accounts in pairs for account in accounts], contacts

    def _at_phone(self, number: str) -> list[Record]:
        people = self.tenant.tables["contacts"]
        return [
            row
            for row in people
            if any(one["phone_number"] == number for one in row.fields["contact_phone_numbers"])
        ]
