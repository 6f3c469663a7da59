"""The bodies Reevo's v1 takes, and the 422 with `detail` for those that do not fit."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from sources.sandbox.exchange import Refusal, Request
from sources.sandbox.reevo_rules import CATEGORIES, TASK_WORDS
from sources.sandbox.reevo_values import is_address, is_amount, is_uuid, is_zoned
from sources.sandbox.table import Fields

Place: TypeAlias = tuple[str | int, ...]
Detail: TypeAlias = dict[str, Any]

_URLS = ("linkedin_url", "facebook_url", "zoominfo_url", "x_url")
_ACCOUNT = {
    **dict.fromkeys(("owner_email", "official_website", "domain_name", *_URLS), "text"),
    "custom_fields": "custom",
}
_DEAL = {
    "owner_email": "text",
    "primary_contact_email": "text",
    "amount": "decimal",
    "custom_fields": "custom",
}

# Endpoint -> field -> kind; a star marks what is required. A kind that is no type lists the words it allows.
BODIES: dict[str, dict[str, str]] = {
    "account_contact": {
        "email": "email*",
        **dict.fromkeys(("first_name", "last_name", "middle_name", "phone_number", "title"), "text"),
        **dict.fromkeys(("department", "company", "contact_owner_email", "account_owner_email"), "text"),
        **{f"{side}_{url}": "text" for side in ("contact", "account") for url in _URLS},
        "account_website": "text",
        "account_custom_fields": "custom",
        "contact_custom_fields": "custom",
    },
    "accounts": {"name": "text*", **_ACCOUNT},
    "accounts.patch": {"name": "text", **_ACCOUNT},
    "accounts.search": {"domain_name": "text*", "limit": "whole", "offset": "whole"},
    "contacts.search": {
        "contact_email": "text",
        "owner_email": "text",
        "limit": "whole",
        "offset": "whole",
    },
    "opportunities": {"display_name": "text*", "account_id": "uuid*", "pipeline_name": "text", **_DEAL},
    "opportunities.patch": {
        "display_name": "text",
        "account_id": "uuid",
        **_DEAL,
        "additional_contact_emails": "list of text",
        "next_step_details": "text",
        "next_step_due_at": "zoned",
    },
    "opportunities.search": {
        "display_name": "text",
        "account_id": "uuid",
        "owner_email": "email",
        "status": "PROSPECT DEAL",
        "stage_name": "text",
        "limit": "whole",
        "offset": "whole",
    },
    "shift_stage": {
        "target_stage_name": "text*",
        "closed_reason_names": "list of text",
        "closed_reason_custom_detail": "text",
    },
    "tasks": {
        "title": "text*",
        "owner_email": "email*",
        **{name: " ".join(words) for name, words in TASK_WORDS.items()},
        "due_at": "zoned",
        "note": "text",
        "account_id": "uuid",
        "contact_emails": "list of email",
        "opportunity_name": "text",
    },
    "manual_activities": {
        "metadata": "object*",
        "account_id": "uuid",
        "contact_ids": "list of uuid",
        "pipeline_id": "uuid",
        "sequence_id": "uuid",
    },
    "manual_activities.metadata": {
        "activity_time": "zoned*",
        "subject": "text*",
        "description": "text*",
        "category": " ".join(CATEGORIES),
    },
    "users.search": {"email": "email*"},
    "mailboxes.search": {"owner_user_email": "email*"},
    "sequence_enrollments": {"contact_email": "email*", "sequence_id": "uuid*", "mailbox_email": "text"},
}


def read(request: Request, name: str) -> Fields:
    """Return the known fields of a body; raises `Refusal` 422 that names every field that does not fit."""
    try:
        sent = request.json()
    except Refusal as refusal:
        raise unprocessable([_detail("json_invalid", ("body", 0), "JSON decode error", {})]) from refusal
    return checked(sent, name, ("body",))


def checked(sent: Any, name: str, place: Place) -> Fields:
    """Return the known fields of an object; raises `Refusal` 422."""
    if not isinstance(sent, dict):
        message = "Input should be a valid dictionary"
        raise unprocessable([_detail("model_attributes_type", place, message, sent)])
    model = BODIES[name]
    wrong = [row for field, kind in model.items() for row in _wrong(sent, field, kind, place)]
    if wrong:
        raise unprocessable(wrong)
    return {field: value for field, value in sent.items() if field in model}


def unprocessable(details: list[Detail]) -> Refusal:
    """Return the refusal of a request that does not fit."""
    return Refusal(422, "validation", "", errors={"detail": details})


def missing(place: Place, given: Any) -> Detail:
    """Return the entry for what is required and not there."""
    return _detail("missing", place, "Field required", given)


def path_id(text: str, name: str) -> str:
    """Return an id from a path; raises `Refusal` 422 for one that is no UUID."""
    if not is_uuid(text):
        kind, message = _SAYS["uuid"]
        raise unprocessable([_detail(kind, ("path", name), message, text)])
    return text


def _wrong(sent: Mapping[str, Any], field: str, kind: str, place: Place) -> list[Detail]:
    is_required, kind, here = kind.endswith("*"), kind.removesuffix("*"), (*place, field)
    if field not in sent:
        return [missing(here, sent)] if is_required else []
    value = sent[field]
    if value is None and not is_required:
        return []
    if not kind.startswith("list of "):
        return _misfit(kind, value, here)
    if not isinstance(value, list):
        return [_detail("list_type", here, "Input should be a valid list", value)]
    inner = kind.removeprefix("list of ")
    return [row for at, item in enumerate(value) for row in _misfit(inner, item, (*here, at))]


def _misfit(kind: str, value: Any, place: Place) -> list[Detail]:
    if kind in _FITS:
        return [] if _FITS[kind](value) else [_detail(_SAYS[kind][0], place, _SAYS[kind][1], value)]
    if value in kind.split():
        return []
    return [_detail("enum", place, f"Input should be one of: {kind}", value)]


def _detail(kind: str, place: Place, message: str, given: Any) -> Detail:
    return {"type": kind, "loc": list(place), "msg": message, "input": given}


def _is_custom(value: Any) -> bool:
    return isinstance(value, dict) and all(
        item is None
        or isinstance(item, str)
        or (isinstance(item, list) and all(isinstance(one, str) for one in item))
        for item in value.values()
    )


_FITS: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "email": is_address,
    "uuid": is_uuid,
    "zoned": is_zoned,
    "decimal": is_amount,
    "whole": lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
    "custom": _is_custom,
    "object": lambda value: isinstance(value, dict),
}
_SAYS = {
    "text": ("string_type", "Input should be a valid string"),
    "email": ("value_error", "value is not a valid email address"),
    "uuid": ("uuid_parsing", "Input should be a valid UUID"),
    "zoned": ("timezone_aware", "Input should have timezone info"),
    "decimal": ("decimal_type", "Input should be a number"),
    "whole": ("int_type", "Input should be a valid integer, zero or more"),
    "custom": ("dict_type", "Input should map field names to a string or a list of strings"),
    "object": ("model_attributes_type", "Input should be a valid dictionary"),
}
