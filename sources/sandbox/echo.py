"""What a CRM does to a value between taking and keeping it: trim, re-case, round, reorder."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Echo:
    """Say how values are bent on write; names are the CRM's own fields. Empty: kept as sent."""

    trims: bool = False
    lower: tuple[str, ...] = ()
    upper: tuple[str, ...] = ()
    digits: int | None = None
    cuts_text_at: int | None = None
    reorders: bool = False  # the members of objects, which have no order

    def fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields as the CRM would keep them."""
        if self == KEPT_AS_SENT:
            return dict(fields)
        return {name: self._value(name, value) for name, value in fields.items()}

    def _value(self, name: str, value: Any) -> Any:
        if isinstance(value, str):
            return self._text(name, value)
        if isinstance(value, float) and self.digits is not None:
            return round(value, self.digits)
        if isinstance(value, dict) and self.reorders:
            return {key: self._value(key, value[key]) for key in sorted(value, reverse=True)}
        return value

    def _text(self, name: str, text: str) -> str:
        text = text.strip() if self.trims else text
        if name in self.lower:
            text = text.lower()
        if name in self.upper:
            text = text.upper()
        return text[: self.cuts_text_at]


KEPT_AS_SENT = Echo()
