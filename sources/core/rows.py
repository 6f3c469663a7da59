"""A row on its way to a CRM, and what became of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

Action = Literal["create", "update", "delete"]
Match = Literal["new", "key", "id"]
Verdict = Literal["created", "updated", "deleted", "unchanged", "rejected", "conflict", "unknown", "absent"]


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a batch, in the plan's order.

    `fields` are the changes (CRM field -> value, dots for nested custom fields) and `before` what they
    replace. `known` is the CRM's record as far as it is known, used to complete bodies for APIs that
    replace. `match` says by what the record is found: a `new` one has never been seen, `key` names exactly
    one record, `id` must be used because the key would miss the record or hit another one. `unseen` fields
    of `before` were accepted by the CRM and never seen since: it may show them otherwise.
    """

    seq: int
    key: str
    crm_id: str | None
    action: Action
    fields: Mapping[str, Any]
    before: Mapping[str, Any] = field(default_factory=dict)
    known: Mapping[str, Any] = field(default_factory=dict)
    match: Match = "key"
    unseen: tuple[str, ...] = ()


class Outcome(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What became of one row; `crm_id` where the answer tells it.

    `absent` means that the row certainly took no effect and may be sent again, `conflict` that nothing was
    written, for its record is not as planned any more.
    """

    seq: int
    verdict: Verdict
    crm_id: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Sight:
    """What a look showed for one row: its record; an id alone: no change since; neither: no record."""

    crm_id: str | None = None
    record: Mapping[str, Any] | None = None
