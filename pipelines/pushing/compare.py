"""SQL expressions that compare values: canonical forms, what counts as an echo, the three-way verdict.

Composes text only. Which tables the expressions run over is left to `plan` and `ledger`.
"""

import json
from dataclasses import dataclass
from typing import Literal

from pipelines.warehouse import literal
from sources.core.connector import Kind

Form = Literal["text", "number", "bool", "timestamp", "json", "key", "domain"]

_FORMS: dict[Kind, Form] = {
    "text": "text",
    "bigint": "number",
    "double": "number",
    "decimal": "number",
    "bool": "bool",
    "timestamp": "timestamp",
    "json": "json",
}
# What surrounds an address in spreadsheets: spaces, tabs, line breaks, no-break spaces.
_BLANKS = "' ' || chr(9) || chr(10) || chr(13) || chr(160)"
# Neither spaces nor invisible characters: a mark of byte order before an address would make another record.
_ADDRESS = (
    r'^[^@\s\p{Z}\p{C},;:<>()"\[\]\\]+@'
    r"([\p{L}\p{N}_]([\p{L}\p{N}_-]*[\p{L}\p{N}_])?\.)+[\p{L}\p{N}-]{2,}$"
)
_HOST = r"^([\p{L}\p{N}_]([\p{L}\p{N}_-]*[\p{L}\p{N}_])?\.)+[\p{L}\p{N}-]{2,}$"
_HOST_IN = r"^(?:(?:[a-z][a-z0-9+.-]*:)?//)?(?:www\.)?([^/?#:]*)"  # of a domain or an address on the web
_NUMBER = r"^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$"  # as JSON spells it
_SHORTEST_CUT = 40  # a shorter text that begins like ours is an edit, a longer one was cut by the CRM


@dataclass(frozen=True, slots=True)
class Policy:
    """When a field is written: `write` and `nulls` of its rule, and who wins a conflict."""

    write: str = "always"
    clears: bool = False
    model_wins: bool = False


def form_of(kind: Kind) -> Form:
    """Tell in which canonical form values of a column kind are compared."""
    return _FORMS[kind]


def form_of_type(duckdb_type: str) -> Form:
    """Tell the form for a custom field, whose type nobody declares: the model column's own."""
    name = duckdb_type.upper()
    if name.endswith("]") or name.startswith(("STRUCT", "MAP", "JSON", "UNION")):
        return "json"
    if name.startswith("TIMESTAMP"):
        return "timestamp"
    if name == "BOOLEAN":
        return "bool"
    if name.startswith(("DECIMAL", "FLOAT", "DOUBLE", "REAL")) or name.endswith(("INT", "INTEGER")):
        return "number"
    return "text"


def kind_of_type(duckdb_type: str) -> Kind:
    """Tell the kind of field that holds a model column's values."""
    form = form_of_type(duckdb_type)
    if form == "number":
        name = duckdb_type.upper()
        return "bigint" if "INT" in name else "decimal" if name.startswith("DECIMAL") else "double"
    return next(kind for kind, each in _FORMS.items() if each == form)


def email_key(value: str) -> str:
    """Trim and lower-case an address, for matching only; letters with accents count however composed."""
    # Trimming is dear: most addresses begin and end with a visible character of ASCII.
    is_trimmed = " and ".join(f"{end} >= '!' and {end} < chr(127)" for end in (value, f"right({value}, 1)"))
    key = f"case when {is_trimmed} then lower({value}) else nullif(lower(trim({value}, {_BLANKS})), '') end"
    return f"nfc_normalize({key})"


def is_address(key: str) -> str:
    """Tell whether an email key can be an address at all."""
    return f"coalesce(length({key}) <= 254 and regexp_matches({key}, {literal(_ADDRESS)}), false)"


def domain_key(value: str) -> str:
    """Take the bare host out of a domain or web address, lower-case, for matching only."""
    host = f"regexp_extract(lower(trim({value}, {_BLANKS})), {literal(_HOST_IN)}, 1)"
    return f"nullif(rtrim({host}, '.'), '')"


def is_host(key: str) -> str:
    """Tell whether a domain key can be a host with a dot at all."""
    return f"coalesce(length({key}) <= 253 and regexp_matches({key}, {literal(_HOST)}), false)"


def as_text(value: str, duckdb_type: str) -> str:
    """Write a model's value as text; times in ISO 8601 and UTC, nested values as JSON."""
    form = form_of_type(duckdb_type)
    if form == "timestamp":
        return _iso(f"({value})::timestamptz")
    if form == "json":
        return f"to_json({value})::varchar"
    return f"({value})::varchar"


def canonical(form: Form, text: str) -> str:
    """Write a text in the form in which equal values are equal texts; empty and null are both null.

    The canonical form of a canonical form is itself. What does not fit its type stays the text it is.
    """
    if form == "key":
        return email_key(text)
    if form == "domain":
        return domain_key(text)
    if form == "number":
        return f"coalesce({_number(text)}, nullif(trim({text}), ''))"
    if form == "bool":
        return f"coalesce(try_cast({text} as boolean)::varchar, nullif({text}, ''))"
    if form == "timestamp":
        return f"coalesce({_iso(f'try_cast({text} as timestamptz)')}, nullif({text}, ''))"
    if form == "json":
        return f"nullif(nullif({text}, ''), 'null')"
    return f"nullif({text}, '')"


def misfits(kind: Kind, canonical_text: str) -> str:
    """Tell whether a value cannot be one of a field's type, so that the CRM would refuse the row."""
    number = f"try_cast({canonical_text} as decimal(38, 9))"
    checks: dict[Kind, str] = {
        "bigint": f"{number} is null or {number} <> floor({number})",
        "double": f"{number} is null",
        "decimal": f"{number} is null",
        "bool": f"{canonical_text} not in ('true', 'false')",
        "timestamp": f"try_cast({canonical_text} as timestamptz) is null",
    }
    return f"({canonical_text} is not null and ({checks.get(kind, 'false')}))"


def as_json(form: Form, text: str) -> str:
    """Write a canonical text as JSON text: numbers without float noise, times as text."""
    quoted_text = f"to_json({text})::varchar"
    if form == "number":
        typed = f"case when regexp_matches({text}, {literal(_NUMBER)}) then {text} else {quoted_text} end"
    elif form == "bool":
        typed = f"case when {text} in ('true', 'false') then {text} else {quoted_text} end"
    elif form == "json":
        typed = f"case when json_valid({text}) then {text} else {quoted_text} end"
    else:
        typed = quoted_text
    return f"coalesce({typed}, 'null')"


def json_object(members: list[tuple[str, str, str]]) -> str:
    """Write a JSON object of those members (name, JSON text, condition) whose condition holds."""
    if not members:
        return "'{}'"
    parts = [
        f"case when {condition} then {literal(json.dumps(name) + ': ')} || {value} end"
        for name, value, condition in members
    ]
    return "'{' || concat_ws(', ', " + ", ".join(parts) + ") || '}'"


def pointer(*path: str) -> str:
    """Write a JSON pointer as a SQL literal; it takes any key, dots and quotes included."""
    return literal("".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path))


def is_echo(sent: str, shown: str) -> str:
    """Tell whether a CRM that took `sent` may show `shown`: trimmed, re-cased, rounded, cut or reordered."""
    plain_sent, plain_shown = _plain(sent), _plain(shown)
    rounded = (
        f"({_decimals(shown)} < {_decimals(sent)}"
        f" and abs(try_cast({sent} as double) - try_cast({shown} as double)) < pow(10, -{_decimals(shown)}))"
    )
    times = [
        f"date_trunc('{unit}', try_cast({sent} as timestamptz))" for unit in ("microsecond", "second", "day")
    ]
    has_date = "regexp_matches({}, '^\\d{{4}}-\\d\\d-\\d\\d')".format
    same_time = (
        f"({has_date(sent)} and {has_date(shown)}"
        f" and try_cast({shown} as timestamptz) in ({', '.join(times)}))"
    )
    cut = f"(length({plain_shown}) >= {_SHORTEST_CUT} and starts_with({plain_sent}, {plain_shown}))"
    same_members = f"starts_with({sent}, '{{') and {_members(sent)} = {_members(shown)}"
    same_number = f"{_number(sent)} = {_number(shown)}"
    return (
        f"coalesce({plain_sent} = {plain_shown}, nullif({sent}, '') is null and nullif({shown}, '') is null)"
        f" or coalesce({same_number}, false) or coalesce({rounded}, false)"
        f" or coalesce({same_time}, false) or coalesce({cut}, false) or coalesce({same_members}, false)"
    )


def verdict(policy: Policy, number: int) -> str:
    """Judge one field of a record that the CRM has: write, rest, drift, adopt or conflict.

    Reads the numbered columns `m` (model), `c` (CRM), `s` and `e` (sent, echo) and `is_sent`.
    """
    m, c, s, e = (f"{letter}{number}" for letter in "mcse")
    news, clash = "'write'", "'write'" if policy.model_wins else "'conflict'"
    if policy.write == "if_empty":
        news, clash = (f"case when {c} is null then {then} else 'rest' end" for then in (news, clash))
    elif policy.write == "on_create":
        news = clash = "'rest'"
    skips = "" if policy.clears else f"when {m} is null then 'rest'"
    same = "is not distinct from"
    return f"""
    case
        {skips}
        when not is_sent{number} then case when {m} {same} {c} then 'rest' else {news} end
        when {m} {same} {s} then case when {c} {same} {e} then 'rest' else 'drift' end
        when {c} {same} {e} then case when {m} {same} {c} then 'rest' else {news} end
        when {c} {same} {m} then 'adopt'
        else {clash}
    end
    """


def _number(text: str) -> str:
    # Nine decimals take the noise off doubles; a plain decimal text always has them, so they can be trimmed.
    return f"rtrim(rtrim(try_cast({text} as decimal(38, 9))::varchar, '0'), '.')"


def _decimals(text: str) -> str:
    return f"length(coalesce(nullif(split_part({_number(text)}, '.', 2), ''), ''))"


def _members(text: str) -> str:
    """Write an object's members that have a value, whatever their order."""
    members = f"map_entries(try_cast({text} as json)::map(varchar, json))"
    # A text that is no object has none: it must not even be read as one.
    is_object = f"starts_with({text}, '{{') and json_valid({text})"
    given = f"list_filter({members}, lambda member: member.value::varchar <> 'null')"
    return f"case when {is_object} then list_sort({given}) end"


def _plain(text: str) -> str:
    return f"lower(regexp_replace(trim({text}, {_BLANKS}), '\\s+', ' ', 'g'))"


def _iso(moment: str) -> str:
    whole = f"strftime({moment} at time zone 'UTC', '%Y-%m-%dT%H:%M:%S')"
    micros = f"rtrim(strftime({moment} at time zone 'UTC', '.%f'), '0')"
    return f"{whole} || rtrim({micros}, '.') || 'Z'"
