"""A real Chromium, spoken to by its own protocol: pages as people see them.

Debian's package, or whatever `chromium` is on the path; tests that need it are skipped without.
"""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome")
FOUND = next(filter(None, map(shutil.which, NAMES)), None)
START = 60.0
# Of what axe-core finds, what nobody may be left with.
SERIOUS = ("serious", "critical")


@dataclass
class Page:
    """A tab of the browser; ``said`` is what its console and its policy have said."""

    socket: ClientConnection
    said: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    loaded: int = 0
    _last: int = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What the browser answers to a command."""
        self._last += 1
        self.socket.send(json.dumps({"id": self._last, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv(timeout=START))
            self._note(message)
            if message.get("id") == self._last:
                assert "error" not in message, message
                return dict(message["result"])

    def _note(self, message: Mapping[str, Any]) -> None:
        method, told = message.get("method"), message.get("params", {})
        if method == "Log.entryAdded":
            self.said.append(told["entry"]["text"])
        elif method == "Runtime.consoleAPICalled":
            self.said.append(str([one.get("value") for one in told["args"]]))
        elif method == "Runtime.exceptionThrown":
            self.said.append(str(told["exceptionDetails"].get("text")))
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Page.loadEventFired":
            self.loaded += 1

    def show(
        self, place: Path | str, width: int = 1280, dark: bool = False, media: str = ""
    ) -> None:
        """Load a file, or an address, at a width in pixels, and wait until it is there."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        before = self.loaded
        self.call(
            "Page.navigate", url=place if isinstance(place, str) else place.resolve().as_uri()
        )
        while self.loaded == before:
            self._note(json.loads(self.socket.recv(timeout=START)))

    def run(self, script: str) -> Any:
        """The value of an expression, awaited."""
        result = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def faults(self) -> list[str]:
        """The serious faults of accessibility that axe-core finds in the page as it is now."""
        self.run(f"{_axe()}; 0")
        # Of rules that all keep to it says one place alone, and need not name the others.
        asked = "axe.run({resultTypes: ['violations']}).then((told) => JSON.stringify(told))"
        found = json.loads(self.run(asked))
        assert len(found["passes"]) > 5, "axe-core has looked at nothing"
        return [
            f"{one['id']}: {one['help']}: {[node['html'][:200] for node in one['nodes'][:3]]}"
            for one in found["violations"]
            if one["impact"] in SERIOUS
        ]

    def picture(self, path: Path) -> None:
        """Keep the whole page as a PNG file."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def printed(self, path: Path) -> None:
        """Keep the page as a PDF file, as it would be printed."""
        told = self.call("Page.printToPDF", preferCSSPageSize=True)
        path.write_bytes(base64.b64decode(told["data"]))


@cache
def _axe() -> str:
    """axe-core, which a package of the extra `dev` carries."""
    return (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


@contextmanager
def browser() -> Iterator[Page]:
    """A tab of a Chromium of its own, which is ended afterwards."""
    assert FOUND is not None
    # Processes of a browser that has ended may still write for a moment.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            *(FOUND, "--headless=new", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"),
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
        ]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, stdout=quiet, stderr=quiet) as process:
            try:
                with connect(_address(Path(profile), process), max_size=None) as socket:
                    page = Page(socket)
                    for domain in ("Page", "Runtime", "Log", "Network"):
                        page.call(f"{domain}.enable")
                    yield page
            finally:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                process.kill()


def _address(profile: Path, process: "subprocess.Popen[bytes]") -> str:
    """Where the browser's only tab listens, once it does."""
    import httpx

    file, until = profile / "DevToolsActivePort", time.monotonic() + START
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError, IndexError, httpx.HTTPError, StopIteration):
            port = file.read_text().split()[0]
            tabs = httpx.get(f"http://127.0.0.1:{port}/json", trust_env=False).json()
            return next(t["webSocketDebuggerUrl"] for t in tabs if t["type"] == "page")
        time.sleep(0.1)
    raise AssertionError("Chromium does not start.")
