"""Reevo's v2 below a record: relationships with their edges, and the items of its lists."""

from typing import Any

from sources.sandbox.exchange import Refusal, Request, Response, reply
from sources.sandbox.reevo_records import API, Records, field_refusal
from sources.sandbox.reevo_rules import LABELS, RELATIONSHIPS, TABLE_OF, Relationship, domain_of
from sources.sandbox.reevo_state import folded
from sources.sandbox.reevo_values import is_address
from sources.sandbox.simulator import route
from sources.sandbox.table import Fields, Record

_RECORD = API + r"/(?P<record_type>[^/]+)/(?P<id>[^/]+)"
_EDGES = _RECORD + r"/relationship/(?P<name>[^/]+)"
_ITEMS = _RECORD + r"/attribute/(?P<name>[^/]+)"
_PAGE = 100
_LISTS = {
    "contact": {"contact_emails": "email", "contact_phone_numbers": "phone_number"},
    "account": {"domains": "domain_name"},
}


class Links(Records):
    """Answer what lies below a record."""

    # Relationships

    @route("GET", _EDGES)
    def list_edges(self, request: Request, record_type: str, id: str, name: str) -> Response:
        held = self._relationship(record_type, name)
        record = self.record(record_type, id)
        edges = [pair for pair in self.space.edges_of(held.kind, record.id) if self._is_there(held, pair[1])]
        start, limit = self._number(request, "cursor", 0), self._number(request, "limit", _PAGE)
        items = [self._edge(held, *pair) for pair in edges[start : start + limit]]
        after = str(start + limit) if len(edges) > start + limit else None
        return self._below(record_type, record, name, items=items, next_cursor=after)

    @route("POST", _EDGES)
    def add_edge(self, request: Request, record_type: str, id: str, name: str) -> Response:
        held = self._relationship(record_type, name)
        record, sent = self.record(record_type, id), request.json_object()
        given = [key for key in ("related_record_id", "related_record_match") if sent.get(key) is not None]
        if len(given) != 1:
            raise field_refusal("field_required_missing", "related_record_id", "Exactly one target is needed")
        target = self.resolve(held.target, {given[0]: sent[given[0]]})
        typed = self._edge_fields(held, sent, is_new=True)
        edge = self.link(held.kind, (record.id, target), request, **typed)
        shown = self._below(record_type, record, name, item=self._edge(held, edge, target))
        shown.status = 201
        return shown

    @route("PATCH", _EDGES + r"/(?P<target_id>[^/]+)")
    def patch_edge(self, request: Request, record_type: str, id: str, name: str, target_id: str) -> Response:
        held = self._relationship(record_type, name)
        if not held.is_typed:
            raise Refusal(self.s.field_status, "record_not_writable", "This edge has no fields")
        record = self.record(record_type, id)
        self._edge_between(held, record.id, target_id)
        typed = self._edge_fields(held, request.json_object(), is_new=False)
        edge = self.link(held.kind, (record.id, target_id), request, **typed)
        return self._below(record_type, record, name, item=self._edge(held, edge, target_id))

    @route("DELETE", _EDGES + r"/(?P<target_id>[^/]+)")
    def delete_edge(self, request: Request, record_type: str, id: str, name: str, target_id: str) -> Response:
        held = self._relationship(record_type, name)
        edge = self._edge_between(held, self.record(record_type, id).id, target_id)
        self.tenant.remove("edges", edge, self.origin(request))
        if self.s.relationships_touch:
            self.touch_ends(edge)
        return Response(204)

    # Items of lists

    @route("POST", _ITEMS)
    def add_item(self, request: Request, record_type: str, id: str, name: str) -> Response:
        inner = self._list(record_type, name)
        record, sent = self.record(record_type, id), request.json_object()
        item = self._item(inner, sent, record)
        is_first = not record.fields[name]
        if inner == "domain_name":
            new: Fields = {"domain_name": item, "is_primary": is_first or bool(sent.get("is_primary"))}
        else:
            new = self.space.item(inner, item, is_primary=is_first or bool(sent.get("is_primary")))
            new["labels"] = self._labels(sent)
        self._put(record, name, [*record.fields[name], new], new, request)
        return self._shown_item(inner, new, 201)

    @route("PATCH", _ITEMS + r"/(?P<item_id>[^/]+)")
    def patch_item(self, request: Request, record_type: str, id: str, name: str, item_id: str) -> Response:
        inner = self._list(record_type, name)
        record, sent = self.record(record_type, id), request.json_object()
        old = self._item_of(record, name, item_id)
        new = {**old, **({"is_primary": bool(sent["is_primary"])} if "is_primary" in sent else {})}
        if inner != "domain_name":
            new |= (
                {inner: self._item(inner, sent, record)} if sent.get(inner) not in (None, old[inner]) else {}
            )
            new |= {"labels": self._labels(sent)} if "labels" in sent else {}
        items = [new if item is old else item for item in record.fields[name]]
        self._put(record, name, items, new, request)
        return self._shown_item(inner, new, 200)

    @route("DELETE", _ITEMS + r"/(?P<item_id>[^/]+)")
    def delete_item(self, request: Request, record_type: str, id: str, name: str, item_id: str) -> Response:
        self._list(record_type, name)
        record = self.record(record_type, id)
        old = self._item_of(record, name, item_id)
        items = [{**item} for item in record.fields[name] if item is not old]
        if items and old["is_primary"]:
            items[0]["is_primary"] = True
        self._put(record, name, items, items[0] if items else {}, request)
        return Response(204)

    # What the above is made of

    def _relationship(self, record_type: str, name: str) -> Relationship:
        self.table(record_type)
        if name not in RELATIONSHIPS[record_type]:
            raise Refusal(404, "unknown_relationship", "There is no such relationship")
        return RELATIONSHIPS[record_type][name]

    def _number(self, request: Request, name: str, default: int) -> int:
        text = request.param(name) or str(default)
        if not text.isdecimal():
            raise Refusal(self.s.filter_status, f"invalid_{name}", f"{name} must be what a page gave")
        return int(text)

    def _is_there(self, held: Relationship, id: str) -> bool:
        return id in self.tenant.tables[TABLE_OF[held.target]].records

    def _edge(self, held: Relationship, edge: Record, other: str) -> Fields:
        shown: Fields = {"related_record_id": other, "related_record_type": held.target}
        if held.is_typed:
            shown |= {"role": edge.fields["role"], "is_primary": edge.fields["is_primary"]}
        return shown

    def _edge_fields(self, held: Relationship, sent: Fields, *, is_new: bool) -> Fields:
        if not held.is_typed:
            return {}
        known = {name: sent[name] for name in ("role", "is_primary") if name in sent}
        if not isinstance(known.get("is_primary", False), bool):
            raise field_refusal("field_value_invalid", "is_primary", "It must be true or false")
        return ({"role": None, "is_primary": False} if is_new else {}) | known

    def _edge_between(self, held: Relationship, id: str, target_id: str) -> Record:
        for edge, other in self.space.edges_of(held.kind, id):
            if other == target_id:
                return edge
        raise Refusal(404, "target_record_not_found", "These records are not related")

    def _below(self, record_type: str, record: Record, name: str, **rest: Any) -> Response:
        parent = {"id": record.id, "record_type": record_type}
        shown = {"parent": parent, "api_name": name, **rest}
        return reply({"data": shown} if self.s.relationship_answer == "data" else shown)

    def _list(self, record_type: str, name: str) -> str:
        self.table(record_type)
        inner = _LISTS.get(record_type, {}).get(name)
        if inner is None:
            raise Refusal(self.s.field_status, "sub_resource_not_supported", "This is no list of items")
        return inner

    def _item(self, inner: str, sent: Fields, record: Record) -> str:
        text = domain_of(sent.get(inner)) if inner == "domain_name" else sent.get(inner)
        if not isinstance(text, str) or not text.strip():
            raise field_refusal("field_required_missing", inner, "It is required")
        if inner == "email" and not is_address(text):
            raise field_refusal("field_value_invalid", inner, "It is not an e-mail address")
        twins = {"email": self.contacts_at, "domain_name": self.accounts_at}.get(inner, lambda _: [])(text)
        if self.s.duplicates == "refused" and any(twin is not record for twin in twins):
            raise field_refusal("field_value_invalid", inner, "Another record has it")
        if any(folded(item[inner]) == folded(text) for name in _names(inner) for item in record.fields[name]):
            raise field_refusal("field_value_invalid", inner, "The record has it")
        return text

    def _labels(self, sent: Fields) -> list[str]:
        labels = sent.get("labels") or []
        if not isinstance(labels, list) or not LABELS.issuperset(map(str, labels)):
            raise field_refusal("field_value_invalid", "labels", "Labels are PERSONAL, WORK, MOBILE")
        return labels

    def _item_of(self, record: Record, name: str, item_id: str) -> Fields:
        for item in record.fields[name]:
            if item_id in (item.get("id"), item.get("domain_name")):
                found: Fields = item
                return found
        raise Refusal(404, "record_not_found", "There is no such item")

    def _put(self, record: Record, name: str, items: list[Fields], new: Fields, request: Request) -> None:
        """Keep a list in which a new primary item demotes the one before."""
        if new.get("is_primary"):
            items = [{**item, "is_primary": item == new} for item in items]
        resource = "accounts" if name == "domains" else "contacts"
        self.update(resource, record, {name: items}, request, {name: items})

    def _shown_item(self, inner: str, item: Fields, status: int) -> Response:
        if inner == "domain_name":
            return reply({"data": item}, status)
        return reply({"data": {"id": item["id"], "envelope": item}}, status)


def _names(inner: str) -> list[str]:
    return [name for lists in _LISTS.values() for name, held in lists.items() if held == inner]
