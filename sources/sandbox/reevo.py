"""Reevo (reevo.ai): v2 (`/api/v2`), records that describe themselves, with v1 (`/api/v1/public`) beside it.

Both work on one state and know records by the same ids. There are no webhooks to subscribe to.
"""

from datetime import datetime
from typing import Any

from sources.sandbox.exchange import Refusal, Request, Response, encode, reply
from sources.sandbox.limits import Allowance
from sources.sandbox.reevo_filters import Test
from sources.sandbox.reevo_links import Links
from sources.sandbox.reevo_profiles import API as V1
from sources.sandbox.reevo_query import Page, Queries
from sources.sandbox.reevo_records import API, field_refusal
from sources.sandbox.reevo_rules import WRITE_ACTIONS
from sources.sandbox.reevo_v1 import PublicV1
from sources.sandbox.reevo_values import is_zoned
from sources.sandbox.simulator import Simulator, route
from sources.sandbox.table import Fields, Record

_TYPE = API + r"/(?P<record_type>[^/]+)"
_ONE = _TYPE + r"/(?P<id>[^/]+)"
_HEALTH = f"{API}/health"
_ASSERTED = ("contact", "account")


class Reevo(Links):
    """Answer as Reevo's v2 does, and know who answers for v1."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.v1 = PublicV1(**given, beside=self)
        self.queries = Queries(self)

    def part(self, request: Request) -> Simulator:
        return self.v1 if request.path.startswith(f"{V1}/") else self

    def stray(self, request: Request) -> Refusal | None:
        return super().stray(request) if self.s.has_v2 else Refusal(404, "not_found", "")

    def _judge(self, request: Request, allowance: Allowance | None) -> Response:
        if request.path == _HEALTH and request.method == "GET" and self.s.has_v2:
            return reply({"status": "ok"})
        return super()._judge(request, allowance)

    @route("GET", _HEALTH)
    def health(self, request: Request) -> Response:
        return reply({"status": "ok"})

    @route("GET", API + r"/_schema/(?P<record_type>[^/]+)")
    def describe(self, request: Request, record_type: str) -> Response:
        return reply(self.schema(record_type))

    # Queries

    @route("POST", _TYPE + "/_query")
    def query(self, request: Request, record_type: str) -> Response:
        self.table(record_type)
        sent = request.json_object()
        is_scoped = record_type == "activity"
        rows, after = self._activities(sent) if is_scoped else self.queries.page(record_type, sent)
        data = b",".join(self.show(record_type, row) for row in rows)
        if self.s.next_cursor == "meta":
            return Response(200, b'{"data":[%b],"meta":{"next_cursor":%b}}' % (data, encode(after)))
        return Response(200, b'{"data":[%b],"next_cursor":%b}' % (data, encode(after)))

    def _activities(self, sent: Fields) -> Page:
        """Return a page of what happened in one scope, in order of creation."""
        scopes = {
            name: sent[name] for name in ("contact_id", "account_id", "opportunity_id") if sent.get(name)
        }
        if not scopes and not sent.get("cursor"):
            raise field_refusal("field_required_missing", "contact_id", "A scope is needed")
        for name in ("created_from", "created_to"):
            if sent.get(name) is not None and not is_zoned(sent[name]):
                raise field_refusal("field_value_invalid", name, "A time with a zone is needed")

        return self.queries.rows(self.queries.plan("activity", sent, scope=self._in_scope))

    def _in_scope(self, asked: Fields) -> Test:
        """Return the test of a scope and a window of creation."""
        first, last = (self._moment(asked.get(name)) for name in ("created_from", "created_to"))

        def is_wanted(row: Record) -> bool:
            if (first and row.created_at < first) or (last and row.created_at > last):
                return False
            contacts = {"contact_id": row.fields["contact_ids"] or []}
            links = {name: [row.fields[name]] for name in ("account_id", "opportunity_id")} | contacts
            return all(asked[name] in ids for name, ids in links.items() if asked.get(name))

        return is_wanted

    def _moment(self, text: str | None) -> datetime | None:
        return datetime.fromisoformat(text) if text else None

    # Records

    @route("POST", _TYPE + "/_assert")
    def assert_record(self, request: Request, record_type: str) -> Response:
        if record_type not in _ASSERTED:
            self.table(record_type)
            raise Refusal(404, "not_found", "")
        sent, match = self.sent(request), request.json_object().get("match")
        found = self.matching(record_type, match if isinstance(match, dict) else {})
        if len(found) > 1:
            raise Refusal(409, "ambiguous_match", "More than one record matches")
        if found:
            kept = self.kept(record_type, sent, is_new=False)
            record = self.written(record_type, found[0], kept, request, sent, op="upsert")
            return self.one(record_type, record, 200, meta={"action": "updated"})
        record = self._asserted(record_type, sent, match, request)
        return self.one(record_type, record, 201, meta={"action": "created"})

    def _asserted(self, record_type: str, sent: Fields, match: Any, request: Request) -> Record:
        """Create what no record matched, with the value it was to be matched by."""
        (name, value), *_ = match.items()
        if name == "id":
            raise Refusal(404, "record_not_found", "There is no such record")
        kept = self.kept(record_type, sent, is_new=True)
        if name == "domain_name":
            kept["domains"] = [{"domain_name": str(value).strip().lower(), "is_primary": True}]
        elif name in ("contact_emails", "primary_email"):
            if "primary_email" not in kept and "contact_emails" not in kept:
                item = value[0] if isinstance(value, list) and value else value
                email = item.get("email") if isinstance(item, dict) else item
                kept |= self.kept(record_type, {"contact_emails": [email]}, is_new=True)
        else:
            kept.setdefault(name, value)
        return self.written(record_type, None, kept, request, sent, op="upsert")

    @route("POST", _TYPE)
    def create(self, request: Request, record_type: str) -> Response:
        self._check_act(record_type, "create")
        sent = self.sent(request)
        if record_type == "activity":
            return self._log(sent, request)
        kept = self.kept(record_type, sent, is_new=True)
        return self.one(record_type, self.written(record_type, None, kept, request, sent, op="create"), 201)

    def _log(self, sent: Fields, request: Request) -> Response:
        meta = sent.get("metadata")
        names = ("activity_time", "subject", "description")
        if not isinstance(meta, dict) or not all(isinstance(meta.get(name), str) for name in names):
            raise field_refusal("field_required_missing", "metadata", f"metadata needs {', '.join(names)}")
        if not is_zoned(meta["activity_time"]):
            raise field_refusal("field_value_invalid", "metadata.activity_time", "A zone is needed")
        if not isinstance(sent.get("contact_ids") or [], list):
            raise field_refusal("field_value_invalid", "contact_ids", "A list is needed")
        for target, ids in (
            ("account", [sent.get("account_id")]),
            ("opportunity", [sent.get("opportunity_id")]),
            ("contact", sent.get("contact_ids") or []),
        ):
            for id in ids:
                if id is not None:
                    self.resolve(target, id)
        record = self.insert("activities", self.manual_activity(meta, sent), request, sent)
        return self.one("activity", record, 201)

    @route("GET", _ONE)
    def read(self, request: Request, record_type: str, id: str) -> Response:
        if record_type == "activity":
            raise Refusal(404, "not_found", "")
        return self.one(record_type, self.record(record_type, id), 200)

    @route("PATCH", _ONE)
    def patch(self, request: Request, record_type: str, id: str) -> Response:
        self._check_act(record_type, "patch")
        record, sent = self.record(record_type, id), self.sent(request)
        kept = self.kept(record_type, sent, is_new=False)
        return self.one(record_type, self.written(record_type, record, kept, request, sent, op="update"), 200)

    @route("DELETE", _ONE)
    def archive(self, request: Request, record_type: str, id: str) -> Response:
        self._check_act(record_type, "archive")
        record, resource = self.record(record_type, id), self.table(record_type)
        origin = self.origin(request, op="delete", sent={})
        if self.s.archived == "hidden":
            self.tenant.remove(resource, record, origin)
            self.space.cut_edges(id)
        else:
            self.tenant.update(resource, record, {"is_archived": True}, origin)
        return Response(204)

    def _check_act(self, record_type: str, act: str) -> None:
        self.table(record_type)
        if act not in WRITE_ACTIONS[record_type]:
            raise Refusal(self.s.field_status, "record_not_writable", f"This type does not take {act}")


SIMULATOR = Reevo
