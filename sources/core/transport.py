"""Kept connections to one host, each for one request at a time.

httpx's own pool asks every idle connection with each request whether it still stands: with 32 of them that
takes longer than the request. What a request says, and what its answer means, is `core.client`'s.
"""

import contextlib
import functools
import logging
import os
import ssl
import threading
from collections.abc import Iterator
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import urlsplit

import httpx

from sources.core.auth import is_loopback
from sources.core.errors import ConfigError

_MOST = 64  # requests at once; more wait for their turn

# Both log addresses with their query, and at DEBUG the headers with the key.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class Transport:
    """Send requests and give their answers unread; safe to share between threads.

    The connection that was used last is used first, so that as few are kept open as requests are under way.
    """

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._turns = threading.BoundedSemaphore(_MOST)
        self._opened: list[httpx.Client] = []
        self._idle: list[httpx.Client] = []

    @contextlib.contextmanager
    def send(self, request: httpx.Request) -> Iterator[httpx.Response]:
        """Send a request as it is; the answer's body may be read within the block.

        `ConfigError` where the environment names authorities or proxies that cannot be used.
        """
        with self._turns:
            http = self._take()
            try:
                with contextlib.closing(http.send(request, stream=True)) as response:
                    yield response
            finally:
                self._idle.append(http)

    def close(self) -> None:
        """Close the connections; a request on its way ends with an error when its answer comes."""
        for http in self._opened:
            http.close()

    def _take(self) -> httpx.Client:
        try:
            return self._idle.pop()
        except IndexError:
            return self._open()

    def _open(self) -> httpx.Client:
        try:
            http = httpx.Client(
                verify=_authorities(self._base_url),
                limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                trust_env=not is_loopback(self._base_url),  # for the proxies; none stands before this machine
            )
        except (OSError, ValueError, ImportError, httpx.InvalidURL) as error:
            # Not with its words, nor as the cause: an address of a proxy may hold a password.
            raise ConfigError(
                f"the environment's settings for connections cannot be used ({type(error).__name__})",
                hint="Check SSL_CERT_FILE, SSL_CERT_DIR, HTTPS_PROXY and ALL_PROXY.",
            ) from None
        self._opened.append(http)
        return http


def _authorities(base_url: str) -> ssl.SSLContext:
    """Give those that may vouch for a server: read once for all connections, and nobody for plain HTTP."""
    if urlsplit(base_url).scheme == "http":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return _read_authorities(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@functools.cache
def _read_authorities(*_: str | None) -> ssl.SSLContext:
    return httpx.create_ssl_context()
