"""A headless Chromium, spoken to over a pipe by its own protocol, for the tests of the page."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --disable-extensions --disable-dev-shm-usage"
    " --remote-debugging-pipe"
).split()
NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """Find a Chromium on the path."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One browser with one page; `events` are what it told meanwhile."""

    def __enter__(self) -> Self:
        self._profile = tempfile.TemporaryDirectory(prefix="roundtrip-browser-", ignore_cleanup_errors=True)
        here_reads, self._to = os.pipe()
        self._from, here_writes = os.pipe()
        program = chromium()
        assert program is not None
        options = [*FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"]
        # The browser reads from descriptor 3 and writes to 4, wherever Python has put our ends. It is bash
        # that moves them, since other shells know descriptors of one digit only.
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec 3<&{here_reads} 4>&{here_writes}; exec "$0" "$@"', program, *options],
            pass_fds=(here_reads, here_writes),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(here_reads)
        os.close(here_writes)
        self._rest, self._number, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        pages = self.call("Target.getTargets")["targetInfos"]
        target = next(each["targetId"] for each in pages if each["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{part}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(30)
        os.close(self._to)
        os.close(self._from)
        self._profile.cleanup()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give an order and wait for its answer."""
        self._number += 1
        order: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            order["sessionId"] = self._session
        os.write(self._to, json.dumps(order).encode() + b"\0")
        while (message := self._next()).get("id") != self._number:
            self.events.append(message)
        assert "error" not in message, message["error"]
        found: dict[str, Any] = message["result"]
        return found

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            read = os.read(self._from, 1 << 16)
            assert read, "the browser has gone"
            self._rest += read
        line, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        return found

    def open(self, page: Path, *, width_px: int = 1280, scheme: str = "light") -> None:
        """Show a file at a width, in the light or in the dark, and wait until it is there."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width_px,
            height=800,
            deviceScaleFactor=1,
            mobile=width_px < 600,
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def ask(self, expression: str) -> Any:
        """Evaluate an expression in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def requests(self) -> list[str]:
        """List the addresses that the page asked for since it was opened."""
        sent = [each for each in self.events if each.get("method") == "Network.requestWillBeSent"]
        return [each["params"]["request"]["url"] for each in sent]

    def complaints(self) -> list[str]:
        """List what the page brought onto the console."""
        kinds = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        return [json.dumps(each["params"]) for each in self.events if each.get("method") in kinds]

    def picture(self) -> bytes:
        """Take a picture of the whole page as PNG."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(found["data"])

    def printed(self) -> bytes:
        """Print the page to PDF."""
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"])
