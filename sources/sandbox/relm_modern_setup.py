"""How a workspace of Relm's modern contract is set up: pipelines, value sets, custom fields, its own schema.

Records are left to `relm_modern`; custom object types can be made and hold no records here.
"""

from collections.abc import Mapping
from typing import Any

from sources.sandbox.exchange import Request, Response, reply
from sources.sandbox.relm_modern_lists import CONTROLS, FILTERS
from sources.sandbox.relm_modern_problems import conflict, invalid, unknown_field, unknown_value
from sources.sandbox.relm_modern_quota import Quota
from sources.sandbox.relm_modern_rules import DATA_TYPES, FIELDS, NEEDED, OBJECT, PREFIX, TABLE_OF, Rules
from sources.sandbox.relm_modern_state import Workspace
from sources.sandbox.simulator import Simulator, is_missing, route
from sources.sandbox.table import Fields, Record

_PIPELINE = r"/v1/pipelines/(?P<key>[^/]+)"
_STAGE_TYPES = ("open", "won", "lost")
_NOTES = "Filters are exact. Lists run by creation time; there is no filter by date and no sort."


class Setup(Simulator):
    """Answer for everything of a workspace that is not a record."""

    tenant: Workspace
    rules: Rules
    quota: Quota

    # Pipelines and their stages

    @route("GET", "/v1/pipelines")
    def list_pipelines(self, request: Request) -> Response:
        return _set([_shown(record) for record in self.tenant.tables["pipelines"]])

    @route("POST", "/v1/pipelines")
    def create_pipeline(self, request: Request) -> Response:
        sent = _taken(request, ("key", "name", "is_default", "stages"))
        key, name = _text(sent, "key"), _text(sent, "name")
        if any(record.fields["key"] == key for record in self.tenant.tables["pipelines"]):
            raise conflict("A pipeline with this key exists", field="key")
        stages = _numbered([_stage(stage) for stage in _list(sent, "stages")])
        fields = {"key": key, "name": name, "stages": stages}
        record = self.tenant.insert("pipelines", fields, self.origin(request, sent=sent))
        if sent.get("is_default") is True:
            self._make_default(record)
        return reply(_shown(record), 201)

    @route("GET", _PIPELINE)
    def read_pipeline(self, request: Request, key: str) -> Response:
        return reply(_shown(self._pipeline(key)))

    @route("PATCH", _PIPELINE)
    def patch_pipeline(self, request: Request, key: str) -> Response:
        sent = _taken(request, ("name",))
        return self._changed(self._pipeline(key), {"name": _text(sent, "name")}, request)

    @route("DELETE", _PIPELINE)
    def delete_pipeline(self, request: Request, key: str) -> Response:
        record = self._pipeline(key)
        if record.fields["is_default"] or self._has_deals(record):
            raise conflict("The default pipeline and one with deals in it cannot be deleted")
        self.tenant.remove("pipelines", record, self.origin(request))
        return reply({"id": record.id, "object": "pipeline", "deleted": True})

    @route("POST", _PIPELINE + "/default")
    def make_default(self, request: Request, key: str) -> Response:
        record = self._pipeline(key)
        self._make_default(record)
        return reply(_shown(record))

    @route("POST", _PIPELINE + "/stages")
    def add_stage(self, request: Request, key: str) -> Response:
        record, stage = self._pipeline(key), _stage(request.json_object())
        stages = record.fields["stages"]
        if any(each["key"] == stage["key"] for each in stages):
            raise conflict("This pipeline has a stage with this key", field="key")
        place = stage.get("ordinal", len(stages))
        return self._changed(
            record, {"stages": _numbered([*stages[:place], stage, *stages[place:]])}, request
        )

    @route("POST", _PIPELINE + "/stages/reorder")
    def reorder_stages(self, request: Request, key: str) -> Response:
        record, order = self._pipeline(key), _list(_taken(request, ("order",)), "order")
        by_key = {stage["key"]: stage for stage in record.fields["stages"]}
        if sorted(map(str, order)) != sorted(by_key):
            raise invalid("order must name each stage once", field="order")
        return self._changed(record, {"stages": _numbered([by_key[each] for each in order])}, request)

    @route("PATCH", _PIPELINE + "/stages/(?P<stage>[^/]+)")
    def patch_stage(self, request: Request, key: str, stage: str) -> Response:
        record, sent = self._pipeline(key), _taken(request, ("label", "type"))
        stages = record.fields["stages"]
        if all(each["key"] != stage for each in stages):
            is_missing("stage")
        new = [_stage({**each, **sent}) if each["key"] == stage else each for each in stages]
        return self._changed(record, {"stages": _numbered(new)}, request)

    @route("DELETE", _PIPELINE + "/stages/(?P<stage>[^/]+)")
    def delete_stage(self, request: Request, key: str, stage: str) -> Response:
        record = self._pipeline(key)
        left = [each for each in record.fields["stages"] if each["key"] != stage]
        if len(left) == len(record.fields["stages"]):
            is_missing("stage")
        if self._has_deals(record, stage):
            raise conflict("There are deals in this stage")
        return self._changed(record, {"stages": _numbered(left)}, request)

    # Value sets, custom fields, types

    @route("GET", "/v1/enums")
    def list_values(self, request: Request) -> Response:
        group = request.param("group")
        rows = [record.fields for record in self.tenant.tables["enums"]]
        return _set([row for row in rows if group in (None, row["group"])])

    @route("POST", "/v1/enums")
    def create_value(self, request: Request) -> Response:
        sent = _taken(request, ("group", "value", "label"))
        group, value = _text(sent, "group"), _text(sent, "value")
        fields = {"group": group, "value": value, "label": sent.get("label") or value}
        # Making a value that is there is no error.
        if value not in self.rules.values(group):
            self.tenant.insert("enums", fields, self.origin(request, sent=sent))
        rows = [record.fields for record in self.tenant.tables["enums"]]
        return _set([row for row in rows if row["group"] == group], 201)

    @route("POST", "/v1/fields")
    def create_field(self, request: Request) -> Response:
        sent = _taken(request, ("object", "key", "label", "data_type", "enum_group", "required"))
        if sent.get("object") not in TABLE_OF:
            raise unknown_value("object", sent.get("object"), TABLE_OF)
        if sent.get("data_type", "text") not in DATA_TYPES:
            raise unknown_value("data_type", sent["data_type"], DATA_TYPES)
        registry = self.rules.registry(sent["object"])
        if _text(sent, "key") in registry or sent["key"] in FIELDS[TABLE_OF[sent["object"]]]:
            raise conflict("This object has a field with this key", field="key")
        self.tenant.insert("fields", {"label": sent["key"], **sent}, self.origin(request, sent=sent))
        return _set(list(self.rules.registry(sent["object"]).values()), 201)

    @route("POST", "/v1/types")
    def create_type(self, request: Request) -> Response:
        sent = _taken(request, ("key", "label"))
        fields = {"key": _text(sent, "key"), "label": sent.get("label") or sent["key"]}
        self.tenant.insert("types", fields, self.origin(request, sent=sent))
        return _set([record.fields for record in self.tenant.tables["types"]], 201)

    # What the workspace says of itself

    @route("GET", "/v1/schema")
    def schema(self, request: Request) -> Response:
        groups: dict[str, list[Fields]] = {}
        for record in self.tenant.tables["enums"]:
            row = record.fields
            groups.setdefault(row["group"], []).append({"value": row["value"], "label": row["label"]})
        shown = {
            "object": "schema",
            "objects": [self._described(resource) for resource in FIELDS],
            "enum_groups": groups,
            "list_controls": list(CONTROLS),
            "notes": [_NOTES],
            "automations": {},
        }
        return reply(shown)

    @route("GET", "/v1/usage")
    def usage(self, request: Request) -> Response:
        return reply(self.quota.usage())

    @route("GET", "/v1/settings")
    def read_settings(self, request: Request) -> Response:
        return reply({"object": "settings", "overage_cap_usd": self.quota.cap_usd})

    @route("PATCH", "/v1/settings")
    def patch_settings(self, request: Request) -> Response:
        sent = _taken(request, ("overage_cap_usd",))
        cap = sent.get("overage_cap_usd", self.quota.cap_usd)
        if cap is not None and (not isinstance(cap, int | float) or isinstance(cap, bool) or cap < 0):
            raise invalid("overage_cap_usd must be a number or null", field="overage_cap_usd")
        self.quota.cap_usd = cap
        return self.read_settings(request)

    # What the above is made of

    def _described(self, resource: str) -> Fields:
        registry = self.rules.registry(OBJECT[resource])
        custom = [{**row, "key": f"custom_fields.{key}", "custom": True} for key, row in registry.items()]
        return {
            "key": OBJECT[resource],
            "id_prefix": f"{PREFIX[resource]}_",
            "list_filters": list(FILTERS[resource]),
            "fields": [*_own_fields(resource), *custom],
        }

    def _pipeline(self, key: str) -> Record:
        rows = self.tenant.tables["pipelines"]
        found = [record for record in rows if key in (record.id, record.fields["key"])]
        return found[0] if found else is_missing("pipeline")

    def _changed(self, record: Record, fields: Fields, request: Request) -> Response:
        self.tenant.update("pipelines", record, fields, self.origin(request))
        # A deal shows the names of its pipeline and stage, so what was rendered is out of date.
        for deal in self.tenant.tables["deals"]:
            deal.body = None
        return reply(_shown(record))

    def _make_default(self, chosen: Record) -> None:
        for record in self.tenant.tables["pipelines"]:
            record.fields["is_default"] = record is chosen

    def _has_deals(self, pipeline: Record, stage: str | None = None) -> bool:
        deals = (deal.fields for deal in self.tenant.tables["deals"])
        return any(
            deal["pipeline"] == pipeline.fields["key"] and stage in (None, deal["stage"])
            for deal in deals
            if not deal["deleted"]
        )


def _set(rows: list[Fields], status: int = 200) -> Response:
    return reply({"object": "list", "data": rows, "has_more": False, "next_cursor": None}, status)


def _shown(record: Record) -> Fields:
    return {"id": record.id, "object": "pipeline", **record.fields}


def _own_fields(resource: str) -> list[Fields]:
    return [
        {
            "key": name,
            "data_type": "reference" if kind in FIELDS else kind,
            "enum_group": f"{OBJECT[resource]}.{name}" if kind == "enum" else None,
            "required": name == NEEDED.get(resource),
            "custom": False,
        }
        for name, kind in FIELDS[resource].items()
        if name != "custom_fields"
    ]


def _taken(request: Request, names: tuple[str, ...]) -> Fields:
    sent = request.json_object()
    for name in sent:
        if name not in names:
            raise unknown_field(name, names)
    return sent


def _text(sent: Mapping[str, Any], name: str) -> str:
    value = sent.get(name)
    if not isinstance(value, str) or not value:
        raise invalid(f"{name} is required", field=name)
    return value


def _list(sent: Mapping[str, Any], name: str) -> list[Any]:
    value = sent.get(name, [])
    if not isinstance(value, list):
        raise invalid(f"{name} must be a list", field=name)
    return value


def _stage(sent: Any) -> Fields:
    if not isinstance(sent, dict):
        raise invalid("A stage must be an object", field="stages")
    if not isinstance(sent.get("ordinal", 0), int):
        raise invalid("ordinal must be an integer", field="ordinal")
    if sent.get("type", "open") not in _STAGE_TYPES:
        raise unknown_value("type", sent["type"], _STAGE_TYPES)
    key = _text(sent, "key")
    return {"type": "open", "label": key, **sent}


def _numbered(stages: list[Fields]) -> list[Fields]:
    return [{**stage, "ordinal": place} for place, stage in enumerate(stages)]
