"""Parts that lanes share: paths with ids, records in answers, looks by id, checks of rows before sending.

Which requests an API takes, and what its answers mean, is each CRM module's knowledge.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sources.core.bodies import is_echo, value_at
from sources.core.connector import Call, Connection, Lane, Writable
from sources.core.errors import GoneError
from sources.core.rows import Outcome, Row, Sight, Verdict

if TYPE_CHECKING:
    from sources.core.client import Answer, Client

Check = Callable[[Row], str | None]
Look = Callable[["Client", Connection, Sequence[Row], datetime], list[Sight | None]]

ALWAYS = float("inf")  # what may be repeated at any time
DELETE = "delete"  # the lane of rows that are taken away, where an API documents that
_CREATED = 201
_EMPTY_STATUSES = frozenset({_CREATED, 204})


# -- requests and answers ------------------------------------------------------------------------


def path_of(folder: str, row: Row) -> str:
    """Write the path of a row's record; an id cannot lead elsewhere."""
    return f"{folder}/{quote(row.crm_id or '', safe='')}"


def record_in(body: Any) -> Mapping[str, Any]:
    """Find the one record of an answer: bare, under `data`, or alone in a list; empty where there is none."""
    if isinstance(body, list):
        return record_in(body[0]) if len(body) == 1 else {}
    if not isinstance(body, Mapping):
        return {}
    inner = body.get("data")
    return record_in(inner) if isinstance(inner, Mapping | list) and "id" not in body else body


def id_in(body: Any, *names: str) -> str | None:
    """Find the id of an answer's record, under `id` or the first of other names that it has."""
    record = record_in(body)
    found = (record.get(name) for name in ("id", *names))
    return next((each for each in found if isinstance(each, str) and each), None)


def landed(row: Row) -> Verdict:
    """Give the verdict of a row that was carried out."""
    return "created" if row.action == "create" else "updated"


def left_open(row: Row, reason: str = "the answer does not tell this row's outcome") -> Outcome:
    """Give the outcome of a row of which the answer says nothing."""
    return Outcome(row.seq, "unknown", reason=reason)


def met(row: Row, verdict: Verdict, crm_id: str | None) -> Outcome:
    """Give the outcome of a row whose record the CRM found by its key; one not planned is open.

    What such a record held was never seen, so that nothing is known of what was replaced.
    """
    if row.action != "update" or not row.crm_id:
        return Outcome(row.seq, verdict, crm_id)
    if verdict == "created" or crm_id not in (None, row.crm_id):
        done = "made" if verdict == "created" else "changed"
        return Outcome(row.seq, "unknown", crm_id, f"the CRM {done} another record than the planned one")
    return Outcome(row.seq, verdict, crm_id)


def decode_single(rows: Sequence[Row], answer: "Answer") -> list[Outcome]:
    """Read the answer to a lane of one row: it must name the record, show a value of it, or say 201.

    `ProtocolError` for an answer that is no JSON. One that says nothing of the row leaves it open, and so
    does one that holds an error, or another record.
    """
    (row,) = rows
    is_empty = not answer.body.strip()
    if is_empty and answer.status in _EMPTY_STATUSES:
        return [_by_status(row, answer)]
    body = answer.json()
    crm_id = id_in(body)
    if crm_id is None and isinstance(body, Mapping) and (body.get("error") or body.get("errors")):
        return [left_open(row, "the answer tells of an error")]
    if crm_id is not None and row.crm_id not in (None, crm_id):
        return [left_open(row, "the answer names another record")]
    if crm_id is None and not _shows(record_in(body), row):
        return [_by_status(row, answer)]
    return [Outcome(row.seq, landed(row), crm_id or row.crm_id)]


def decode_change(rows: Sequence[Row], answer: "Answer") -> list[Outcome]:
    """Read the answer to a change of one record by its id; one without a body tells nothing."""
    return decode_single(rows, answer) if answer.body.strip() else [left_open(row) for row in rows]


def _by_status(row: Row, answer: "Answer") -> Outcome:
    """Take 201 at its word; any other success without a word of the record proves nothing."""
    is_made = answer.status == _CREATED and row.action == "create"
    return Outcome(row.seq, "created") if is_made else left_open(row)


def _shows(record: Mapping[str, Any], row: Row) -> bool:
    """Tell whether an answer shows anything of what was sent."""
    sent = ((value, value_at(record, name)) for name, value in row.fields.items())
    return any(shown not in (None, "") and is_echo(value, shown) for value, shown in sent)


# -- deleting ------------------------------------------------------------------------------------


def delete_lane(folder: str, *, gone_flag: str = "") -> Lane:
    """Make the lane that deletes records by id; one that is gone already counts as deleted.

    `gone_flag` names the field that is true in a deleted record, where the API still shows it.
    """

    def encode(rows: Sequence[Row], connection: Connection) -> Call:
        return Call("DELETE", path_of(folder, rows[0]), b"")

    def decode(rows: Sequence[Row], answer: "Answer") -> list[Outcome]:
        return [Outcome(row.seq, "deleted", row.crm_id) for row in rows]

    look_at = look_by_id(folder)

    def look(
        client: "Client", connection: Connection, rows: Sequence[Row], since: datetime
    ) -> list[Sight | None]:
        sights = look_at(client, connection, rows, since)
        return [_without_deleted(sight, gone_flag) for sight in sights]

    return Lane(DELETE, 1, encode, decode, repeat_s=ALWAYS, look=look, gone="deleted")


def _without_deleted(sight: Sight | None, gone_flag: str) -> Sight | None:
    is_deleted = sight is not None and bool((sight.record or {}).get(gone_flag))
    return replace(sight, record=None) if sight is not None and is_deleted else sight


# -- looking -------------------------------------------------------------------------------------


def one_by_one(look: Callable[["Client", Connection, Row, datetime], Sight | None]) -> Look:
    """Make a lane's look of a look at one row: ids that no answer told are asked for many rows at once."""

    def look_all(
        client: "Client", connection: Connection, rows: Sequence[Row], since: datetime
    ) -> list[Sight | None]:
        return [look(client, connection, row, since) for row in rows]

    return look_all


def look_by_id(
    folder: str,
    *,
    read: Callable[[Any, Row], Mapping[str, Any]] = lambda body, row: record_in(body),
    is_documented: bool = True,
) -> Look:
    """Make the look of a lane whose rows have ids; a 404 tells nothing where the path is not documented."""

    def look(client: "Client", connection: Connection, row: Row, since: datetime) -> Sight | None:
        if not row.crm_id:
            return None
        try:
            record = read(client.get(path_of(folder, row), resource="look").json(), row)
        except GoneError:
            return Sight() if is_documented else None
        return Sight(row.crm_id, record) if record.get("id") == row.crm_id else None

    return one_by_one(look)


# -- checks before sending -----------------------------------------------------------------------


def field_check(fields: Mapping[str, Writable], *, custom_clearable: bool = True) -> Check:
    """Make the check that a row asks of no field what the API cannot do with it."""
    custom = Writable(clearable=custom_clearable)

    def check(row: Row) -> str | None:
        return next(_impossible(row, fields, custom), None)

    return check


def _impossible(row: Row, fields: Mapping[str, Writable], custom: Writable) -> Iterator[str]:
    for name, value in row.fields.items():
        writable = fields.get(name, custom)
        if row.action == "create" and not writable.creatable:
            yield f"{name}: the API takes it for records that are there, not for new ones"
        elif row.action == "update" and not writable.updatable:
            yield f"{name}: the API cannot change it"
        elif value is None and not writable.clearable:
            yield f"{name}: the API cannot clear it"


def first_of(*checks: Check) -> Check:
    """Join checks: the first reason counts."""

    def check(row: Row) -> str | None:
        return next((reason for each in checks if (reason := each(row))), None)

    return check
