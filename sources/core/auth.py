"""The key of a connection: how it is carried, where it may go, and that it is never shown.

Sending it is left to `core.client`. What vendors say of a refusal is made fit to be shown here as well:
they echo keys and e-mail addresses.
"""

import ipaddress
import re
from dataclasses import InitVar, dataclass, field
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from sources.core.errors import AuthError, ConfigError

_EMAIL = re.compile(r"[^\s@\"'<>(),;:=/]+(?:@|%40)[^\s@\"'<>(),;:=/]+", re.IGNORECASE)
_MAX_SHOWN_CHARS = 300
_MAX_READ_CHARS = 64 * 1024


class Secret:
    """Hold a text that no print, log or traceback shows."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return "…"

    def reveal(self) -> str:
        """Give the text itself."""
        return self._text


@dataclass(frozen=True, slots=True)
class Auth:
    """The header that carries the key: `Auth("Authorization", "Bearer ", key)`."""

    header: str
    prefix: str
    key: InitVar[str]
    secret: Secret = field(init=False, repr=False, compare=False)

    def __post_init__(self, key: str) -> None:
        object.__setattr__(self, "secret", Secret(key))

    def headers(self) -> dict[str, str]:
        """Give the header to send with each request."""
        return {self.header: self.prefix + self.secret.reveal()}

    def masked(self, text: bytes) -> bytes:
        """Take the key out of a text, plain or as an address spells it."""
        key = self.secret.reveal()
        for form in (key, quote(key, safe="")) if key else ():
            text = text.replace(form.encode(), "…".encode())
        return text


def presentable(text: str, auth: Auth | None) -> str:
    """Make a foreign text fit to be shown: one line, no key, no e-mail address, 300 characters."""
    text = text[:_MAX_READ_CHARS]
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    if auth is not None:
        text = auth.masked(text.encode()).decode()
    text = without_addresses(text[: 4 * _MAX_SHOWN_CHARS])
    return text if len(text) <= _MAX_SHOWN_CHARS else text[: _MAX_SHOWN_CHARS - 1] + "…"


def without_addresses(text: str) -> str:
    """Take e-mail addresses out of a text."""
    return _EMAIL.sub("…", text)


def key_hint(connection: str) -> str:
    """Say where the key of a connection is set."""
    variable = f"SOURCES__{connection.upper()}__API_KEY"
    return f"Set sources.{connection}.api_key in .dlt/secrets.toml or {variable}."


def check_key(connection: str, auth: Auth, hint: str = "") -> None:
    """Refuse a key that no header can carry, before an HTTP library names it in an error of its own."""
    key = auth.secret.reveal()
    hint = hint or key_hint(connection)
    if not key:
        raise AuthError("no key is set", connection=connection, hint=hint)
    if not all("!" <= char <= "~" for char in key):
        what = "the key holds a space, a line break or a letter that no key has"
        raise AuthError(what, connection=connection, hint=hint)


def check_base_url(connection_name: str, url: str) -> None:
    """Refuse an address to which a key must not go; plain http only reaches this machine."""
    problem = _problem(url)
    if problem:
        setting = f"sources.{connection_name}.base_url"
        hint = f"Set {setting} to an address such as https://crm.example/v1."
        raise ConfigError(f"{setting} {problem}", connection=connection_name, hint=hint)


def is_loopback(url: str) -> bool:
    """Say whether an address names this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def home_address(url: str, location: str) -> str | None:
    """Give the address a redirect leads to, None when it is not of the same origin."""
    try:
        target = urljoin(url, location)
        here, there = urlsplit(url), urlsplit(target)
    except ValueError:
        return None
    is_same = (here.scheme, here.netloc) == (there.scheme, there.netloc)
    is_plain = location.isprintable() and "\\" not in location
    return target if location and is_plain and is_same else None


def is_plain_path(path: str) -> bool:
    """Say whether a path is what it looks like: an id in it must not lead to another one."""
    segments = unquote(path).strip("/").split("/")
    return path.isprintable() and not re.search(r"[?#\\\s]", path) and not {"", ".", ".."} & set(segments)


# The address is not quoted in what is said of it: it may hold a password.
def _problem(url: str) -> str:
    if any(char <= " " or char in '\\"<>\x7f' for char in url):
        return "holds a character that no address has"
    try:
        parts = urlsplit(url)
        is_address = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or parts.scheme not in ("http", "https"):
        return "is not an https address"
    if parts.scheme == "http" and not is_loopback(url):
        return "is plain http, which would send the key readable for all"
    return _extra(parts)


def _extra(parts: SplitResult) -> str:
    if "@" in parts.netloc:
        return "holds a user name or password"
    if parts.query or parts.fragment:
        return "holds a query"
    return ""
