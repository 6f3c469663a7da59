"""The closed list of reasons for which a row is not sent, each with what to do about it.

A reason may go on after a colon with the fields it is about: `invalid_value: leadScore`. What a CRM says when
it refuses a row that was sent is not among them: its own words stand with the row.
"""

from collections.abc import Mapping

REASONS: Mapping[str, str] = {
    # of the model's row
    "invalid_key": "the key is missing or malformed: correct it in the model",
    "duplicate_key": "several rows of the model have this key and differ: keep one",
    "invalid_value": "the value is not of the field's type: convert the column in the model",
    "missing_required": "a new record needs this field: give it a value in the model, or map it",
    # of the CRM's record
    "ambiguous": "several records fit the key, or several rows mean one record: merge or correct, then pull",
    "not_in_crm": 'the CRM has no such record, and mode is "update"',
    "already_in_crm": 'the CRM has the record already: pull, and it is updated unless mode is "create"',
    "cannot_update": "the CRM's API does not change records that are there",
    "not_there": "the record that this id or key once named is gone: take the row out of the model",
    "edited_on_both_sides": 'both sides changed it: settle it by hand, or set conflicts = "model_wins"',
    "edited_in_crm": "somebody edited it in the CRM after our push: it stays; `roundtrip drift` lists it",
    "edited_since_plan": "somebody edited it in the CRM since the last pull: pull, then plan again",
    "not_shown": "the CRM did not show the record when it was looked at again: pull, then push again",
    # of what we do not know yet
    "awaiting_pull": "we created it, and its id is not known yet: pull, then push again",
    "id_not_known": "no answer ever told the record's id: change it in the CRM by hand",
    "unknown_outcome": "it was sent and no answer came: pull and push again, or push --resend-unknown",
    "took_no_effect": "it was sent and is not in the CRM: the next push sends it again",
    "forgotten": "`roundtrip forget` took this person out: take the row out of the model",
    "dismissed": "somebody dismissed it: it comes back when the model changes, or with `dismiss --clear`",
    # of an undo
    "edited_since": "somebody edited it after the push: it stays as it is",
    "sent_again": "a later push wrote it again: undo that one first",
    "not_readable": "the CRM does not show this field, so what it holds is not known",
    "not_known": "what was there before was never seen, so there is nothing to write back",
    "cannot_change": "the CRM's API does not change this field",
    "cannot_clear": "the CRM's API cannot empty this field",
    "created": "this run created it: --delete-created deletes it",
    "cannot_delete": "the CRM's API deletes no such records",
    "gone": "the record is gone from the CRM",
}


def code_of(reason: str) -> str:
    """Take the code out of a reason that goes on after a colon."""
    return reason.partition(":")[0]


def remedy(reason: str) -> str:
    """Say what to do about a reason; nothing for what is not of the list."""
    return REASONS.get(code_of(reason), "")
