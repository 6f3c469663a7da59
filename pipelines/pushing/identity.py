"""What tells which record of a CRM a row is about: its key in the model, in the mirror, and for people.

Writes SQL expressions. What becomes of a row whose record is missing, gone or ambiguous is `outbox`'s.

A row is identified in one of three ways. `key`: by the CRM's natural key, one field or several. `row`: by a
column of the model alone, since the CRM has no natural key; its record is the one whose id the ledger holds,
so values of that column must be unique among all syncs into the object. `id`: by the id of a record that is
there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from pipelines.pushing.compare import Form, as_text, canonical, form_of, is_address, is_host, pointer
from pipelines.warehouse import quoted
from sources.core.connector import KeyForm, Write, snake_case

By = Literal["key", "row", "id"]

ID = "id"
_SEPARATOR = chr(31)  # between the parts of a key; no CRM has it in its texts
_SHOWN = " / "
_KEY_FORMS: dict[KeyForm, Form] = {"email": "key", "domain": "domain"}


@dataclass(frozen=True, slots=True)
class Identity:
    """How rows of one sync are identified: in which way, in which form, by which fields of the CRM."""

    by: By
    form: KeyForm
    fields: tuple[str, ...] = ()

    @property
    def is_composite(self) -> bool:
        """Tell whether a key has several parts."""
        return len(self.fields) > 1


def identity_of(key: str, write: Write) -> Identity:
    """Tell how a sync whose setting `key` is this identifies its rows."""
    if key == ID:
        return Identity("id", "none")
    if write.key_form == "none":
        return Identity("row", "none")
    return Identity("key", write.key_form, (write.key, *write.also_key))


def can_update(write: Write) -> bool:
    """Tell whether the API changes records that are there."""
    return bool(write.modes & {"update", "upsert"})


def key_form_of(identity: Identity, field: str, write: Write) -> Form:
    """Tell in which form a field's values are compared: a key's own form for the field that identifies."""
    form = form_of(write.fields[field].kind)
    is_key = identity.by == "key" and field == identity.fields[0]
    return _KEY_FORMS.get(identity.form, form) if is_key else form


def key_of(identity: Identity, write: Write, texts: Iterable[str]) -> str:
    """Write the key from the texts of its parts; null where one of them is missing."""
    if identity.by != "key":
        (text,) = texts
        return canonical("text", text)
    parts = (
        canonical(key_form_of(identity, field, write), text)
        for field, text in zip(identity.fields, texts, strict=True)
    )
    return f" || chr({ord(_SEPARATOR)}) || ".join(f"({part})" for part in parts)


def is_valid_key(identity: Identity, key: str) -> str:
    """Tell whether a key can be one at all."""
    if identity.form == "email":
        return is_address(key)
    return is_host(key) if identity.form == "domain" else f"{key} is not null"


def key_in_mirror(write: Write, mirror: Mapping[str, str]) -> str:
    """Write the natural key of the mirror's row named `mirror`; null where the CRM has none."""
    identity = identity_of(write.key, write)
    if identity.by != "key" or not mirror:
        return "null::varchar"
    return key_of(
        identity, write, (mirror_text(field, mirror) or "null::varchar" for field in identity.fields)
    )


def mirror_text(field: str, mirror: Mapping[str, str]) -> str | None:
    """Write the text of a top-level field in the mirror; None where the mirror cannot hold it."""
    column = snake_case(field)
    if column in mirror:
        return as_text(f"mirror.{quoted(column)}", mirror[column])
    return f"json_extract_string(mirror._extra, {pointer(field)})" if "_extra" in mirror else None


def place_in_mirror(write: Write, field: str, mirror: Iterable[str]) -> tuple[str, str] | None:
    """Find where the mirror shows a field: its column and, for a value in an object, the key in it."""
    writable = write.fields.get(field)
    if writable is not None and not writable.readable:
        return None
    top, _, custom = field.partition(".")
    own = snake_case(custom or top)
    if own in mirror and (not custom or write.custom_column):
        return own, ""
    column = (write.custom_column or snake_case(top)) if custom else "_extra"
    return (column, custom or field) if column in mirror else None


def shown_key(key: str) -> str:
    """Give a key as people read it."""
    return key.replace(_SEPARATOR, _SHOWN)


def shown_key_sql(key: str) -> str:
    """Write a key as people read it."""
    return f"replace({key}, chr({ord(_SEPARATOR)}), '{_SHOWN}')"


def exact_key_sql(key: str) -> str:
    """Write what the log keeps beside a key as people read it: the key of several parts, else null."""
    return f"case when contains({key}, chr({ord(_SEPARATOR)})) then {key} end"


def logged_key_sql(log: str, write: Write) -> str:
    """Write the key of a row of the log as it is compared; older logs have it only as people read it."""
    if not write.also_key:
        return f"{log}.key"
    return f"coalesce({log}.exact_key, replace({log}.key, '{_SHOWN}', chr({ord(_SEPARATOR)})))"
