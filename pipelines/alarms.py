"""`[roundtrip.notify]`: whom to tell when runs fail, stop at a guard, or data gets old. `notify` does it."""

import shlex
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import urlsplit

from pipelines.layers import Section
from sources.core.auth import is_loopback

EVENTS = ("failure", "guard", "stale", "locked", "interrupted", "success")

_SETTINGS = ("url", "command", "on", "stale_after")


@dataclass(frozen=True, slots=True)
class Alarms:
    """Whom to tell (`url`, `command`, or both; neither: nobody) and of what (`on`, of `EVENTS`).

    The address may hold a secret, as those of chat programs do, and is never shown.
    """

    url: str = field(default="", repr=False)
    command: tuple[str, ...] = ()
    on: frozenset[str] = frozenset({"failure", "guard", "stale"})
    stale_after: timedelta = timedelta(hours=24)

    @property
    def is_set(self) -> bool:
        """Tell whether there is anybody to tell."""
        return bool(self.url or self.command)


NOBODY = Alarms()


def read_alarms(section: Section) -> Alarms:
    """Read the table; `ConfigError` names the first setting that is wrong."""
    section.refuse_unknown(_SETTINGS)
    on = section.words("on")
    for event in on or ():
        if event not in EVENTS:
            raise section.error("on", f"names {event!r}, which is not one of {', '.join(EVENTS)}")
    return Alarms(
        url=_url(section),
        command=_command(section),
        on=NOBODY.on if on is None else frozenset(on),
        stale_after=section.span("stale_after", "24h"),
    )


def _url(section: Section) -> str:
    url = section.text("url") or ""
    try:
        parts = urlsplit(url)
        is_address = bool(parts.hostname) and url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        is_address = False
    if url and not (is_address and parts.scheme in {"http", "https"}):
        raise section.error("url", "is not an https address")
    if url and parts.scheme == "http" and not is_loopback(url):
        raise section.error("url", "is plain http, which anybody on the way could read")
    return url


def _command(section: Section) -> tuple[str, ...]:
    """Read a program and its arguments: a list, or one text that is split as a shell would, without one."""
    if isinstance(section.values.get("command"), list):
        return section.words("command") or ()
    try:
        return tuple(shlex.split(section.text("command") or ""))
    except ValueError as error:
        raise section.error("command", "has a quote that does not end") from error
