"""Runs the sandbox until told to stop, for `roundtrip sandbox`."""

import signal
from collections.abc import Callable
from threading import Event

from sources.sandbox.server import Sandbox


def serve(
    *, port: int = 0, records: int = 50, seed: int = 1, announce: Callable[[Sandbox], None] | None = None
) -> None:
    """Serve on loopback until SIGINT or SIGTERM; must be called from the main thread.

    `announce` is called once when the sandbox answers; by default the settings are printed as exports.
    """
    stopped = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with Sandbox(port=port, records=records, seed=seed) as box:
        (announce or print_settings)(box)
        stopped.wait()


def print_settings(box: Sandbox) -> None:
    """Print the settings as a shell takes them."""
    for name, value in box.settings().items():
        print(f"export {name}={value}", flush=True)
