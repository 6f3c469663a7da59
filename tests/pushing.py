"""A warehouse with a mirror, a model and a sync, made by hand, for the tests of plan and push."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.plan import PlanResult, plan
from pipelines.progress import SilentProgress
from pipelines.pull import pull
from pipelines.push import PushResult, push
from pipelines.settings import Project, load_project
from pipelines.warehouse import Warehouse
from sources.sandbox import Sandbox

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MORNING = datetime(2026, 3, 1, 9, tzinfo=UTC)
EVENING = datetime(2026, 3, 1, 18, tzinfo=UTC)

FIELDS = 'first_name = "first_name"\nlast_name = "last_name"\n"metadata.score" = "score"\n'
_ENVIRON = {"SOURCES__RELM__API_KEY": "sk_test_1", "SOURCES__RELM__BASE_URL": "http://127.0.0.1:9"}


class Desk:
    """One project of Relm contacts, its warehouse written by hand; `fields` is the sync's mapping in TOML."""

    def __init__(
        self, root: Path, *, fields: str = FIELDS, sync: str = "", environ: Mapping[str, str] = _ENVIRON
    ) -> None:
        self.root = root
        self.environ = environ
        self.declare(fields, sync)
        self.warehouse = Warehouse(self.project.warehouse)

    def declare(self, fields: str = FIELDS, sync: str = "") -> Project:
        """Declare the sync `leads` anew."""
        (self.root / ".dlt").mkdir(exist_ok=True)
        (self.root / ".dlt" / "config.toml").write_text(
            '[syncs.leads]\nconnection = "relm"\nobject = "contacts"\nmodel = "marts.leads"\nkey = "email"\n'
            f"{sync}\n[syncs.leads.fields]\n{fields}",
            encoding="utf-8",
        )
        self.project = load_project(self.root, environ=self.environ)
        return self.project

    def write(self, query: str, values: Sequence[Any] = ()) -> None:
        """Change the warehouse by SQL."""
        with self.warehouse.lock("test"), self.warehouse.generation() as con:
            con.execute(query, list(values))

    def read(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the warehouse."""
        with self.warehouse.reading() as con:
            return con.execute(query).fetchall()

    def mirror(
        self, *records: Mapping[str, Any], looked_at: datetime = NOON, synced_at: datetime = MORNING
    ) -> None:
        """Put Relm contacts into the mirror, as a complete pull at `looked_at` leaves them."""
        with self.warehouse.lock("test"), self.warehouse.generation() as con:
            con.execute("create schema if not exists relm")
            con.execute(
                "create or replace table relm.contacts"
                " (id varchar, email varchar, first_name varchar, last_name varchar, phone varchar,"
                " company_id varchar, metadata json, _extra json, _row_hash varchar,"
                " _synced_at timestamptz, _deleted_at timestamptz)"
            )
            for record in records:
                values = {
                    name: record.get(name) for name in ("id", "email", "first_name", "last_name", "phone")
                }
                con.execute(
                    "insert into relm.contacts values (?, ?, ?, ?, ?, null, ?, null, '', ?, ?)",
                    [
                        *values.values(),
                        json.dumps(record.get("metadata", {})),
                        record.get("synced_at", synced_at),
                        record.get("deleted_at"),
                    ],
                )
            con.execute(
                "insert or replace into roundtrip.resource_state (connection, resource, last_complete_at)"
                " values ('relm', 'contacts', ?)",
                [looked_at],
            )

    def model(self, *rows: tuple[Any, ...], columns: str = "email, first_name, last_name, score") -> None:
        """Make the model `marts.leads` of these rows."""
        marks = ", ".join("(" + ", ".join("?" * len(row)) + ")" for row in rows)
        listed = (
            f"values {marks}"
            if rows
            else "select " + ", ".join("null" for _ in columns.split(",")) + " where false"
        )
        self.write(
            f"create or replace table marts.leads as select * from ({listed}) as leads({columns})",
            [value for row in rows for value in row],
        )

    def remember(
        self,
        key: str,
        sent: Mapping[str, Any],
        echo: Mapping[str, Any] | None = None,
        *,
        crm_id: str | None = None,
        pushed_at: datetime = MORNING,
    ) -> None:
        """Put a row into the ledger; `echo` None means that nobody has looked yet."""
        self.write(
            "insert into roundtrip.ledger"
            " (connection, object, key, crm_id, sent, echo, run_id, pushed_at, echo_at)"
            " values ('relm', 'contacts', ?, ?, ?, ?, 'earlier', ?, ?)",
            [
                key,
                crm_id,
                json.dumps(sent),
                None if echo is None else json.dumps(echo),
                pushed_at,
                None if echo is None else NOON,
            ],
        )

    def plan(self) -> PlanResult:
        """Plan the sync."""
        return plan(self.project, "leads", progress=SilentProgress())


def changes(result: PlanResult) -> dict[str, tuple[str, dict[str, Any]]]:
    """Give the rows of a plan as key -> (action, field -> new value)."""
    return {
        row["key"]: (row["action"], {name: each["new"] for name, each in row["fields"].items()})
        for row in result.rows
    }


def reasons(result: PlanResult) -> list[tuple[str | None, str, str | None]]:
    """Give the rows held back as (key, action, reason)."""
    return [(row["key"], row["action"], row["reason"]) for row in result.rows if row["reason"]]


class Shop:
    """One CRM of the sandbox, pulled, with the sync `leads` from `marts.leads` into its contacts."""

    def __init__(
        self, root: Path, box: Sandbox, crm: str, *, fields: str, sync: str = "", options: str = ""
    ) -> None:
        self.root, self.box, self.crm = root, box, crm
        self.declare(fields, sync, options)
        self.warehouse = Warehouse(self.project.warehouse)

    def declare(self, fields: str, sync: str = "", options: str = "") -> None:
        """Declare the sync and the connection's options anew."""
        (self.root / ".dlt").mkdir(exist_ok=True)
        (self.root / ".dlt" / "config.toml").write_text(
            f"[sources.{self.crm}]\n{options}\n"
            f'[syncs.leads]\nconnection = "{self.crm}"\nobject = "contacts"\n'
            f'model = "marts.leads"\nkey = "email"\n{sync}\n[syncs.leads.fields]\n{fields}',
            encoding="utf-8",
        )
        wanted = {
            name: value for name, value in self.box.settings().items() if f"__{self.crm.upper()}__" in name
        }
        self.environ = wanted
        self.project = load_project(self.root, environ=wanted)

    def pull(self, **options: Any) -> None:
        """Pull the CRM's contacts."""
        result = pull(self.project, [f"{self.crm}.contacts"], progress=SilentProgress(), **options)
        assert result.exit_code == 0, result.error

    def write(self, query: str, values: Sequence[Any] = ()) -> None:
        """Change the warehouse by SQL."""
        with self.warehouse.lock("test"), self.warehouse.generation() as con:
            con.execute(query, list(values))

    def model(self, rows: Sequence[tuple[Any, ...]], columns: str = "email, first, last, score") -> None:
        """Make the model of these rows."""
        marks = ", ".join("(" + ", ".join("?" * len(row)) + ")" for row in rows)
        self.write(
            f"create or replace table marts.leads as select * from (values {marks}) as leads({columns})",
            [value for row in rows for value in row],
        )

    def leads(self, number: int, *, first: str = "F", score: int = 0) -> None:
        """Make a model of that many people whom the CRM has never seen."""
        self.write(
            "create or replace table marts.leads as select 'lead' || i || '@new.example' as email,"
            " ? || i as first, 'L' || i as last, (i % 100 + ?)::integer as score from range(?) as t(i)",
            [first, score, number],
        )

    def plan(self) -> PlanResult:
        """Plan the sync."""
        return plan(self.project, "leads", progress=SilentProgress())

    def push(self, **options: Any) -> PushResult:
        """Push the sync, one request at a time unless told otherwise."""
        options = {"in_flight": 1, "confirm": lambda made: True, "progress": SilentProgress(), **options}
        return push(self.project, "leads", **options)

    def read(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the warehouse."""
        with self.warehouse.reading() as con:
            return con.execute(query).fetchall()

    def contact(self, email: str) -> dict[str, Any]:
        """Give the one contact that the CRM holds under an address, whatever its case."""
        (found,) = self.contacts(email)
        return found

    def contacts(self, email: str) -> list[dict[str, Any]]:
        """Give the contacts that the CRM holds under an address."""
        return [
            each
            for each in self.box.tenant(self.crm).records("contacts")
            if str(each["email"]).strip().lower() == email.lower()
        ]

    def calls(self, method: str, path: str) -> int:
        """Count the requests of a kind that the CRM has seen."""
        return sum(
            each.crm == self.crm and each.method == method and each.path.endswith(path)
            for each in self.box.requests
        )

    def by_hand(self, email: str, /, **fields: Any) -> None:
        """Edit a contact as a person does in the CRM's own screens."""
        self.box.tenant(self.crm).edit("contacts", self.contact(email)["id"], **fields)
