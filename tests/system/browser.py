"""Debian's Chromium, which opens pages as a person does and keeps what goes wrong in them."""

import os
import shutil
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_der_x509_certificate

# Whom Prefect's pages tell of visits, where nothing stops them.
PHONES_HOME = "amplitude.com"
WITHOUT = (
    "NO CHROMIUM HERE, so nothing shows that the pages work in a browser: install Debian's package "
    "with `apt-get install chromium`"
)
# In milliseconds, how long something may take to be seen, on a busy machine too.
PATIENCE = 120_000
# What a page asks that is not a network's.
INSIDE = ("data:", "blob:", "about:")
# How Chromium words an answer of 400 or more, each of which is kept by its address anyway.
SAID_ANYWAY = "Failed to load resource"


@contextmanager
def chromium(*arguments: str) -> Iterator[Any]:
    """One browser, with further arguments; the test is skipped, loudly, where there is none."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip(WITHOUT)
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        # As root it refuses to run with its own sandbox.
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        quiet = ["--disable-dev-shm-usage", "--disable-gpu", "--no-proxy-server"]
        opened = started.chromium.launch(
            executable_path=program, args=[*sandbox, *quiet, *arguments]
        )
        try:
            yield opened
        finally:
            opened.close()


def trusting(certificate: bytes) -> str:
    """The argument with which a browser takes a server's certificate (DER) for good, and no other.

    A browser that is to look over every error of a certificate instead asks anew for each of them.
    Chromium does so without end at times, as it seems where a page's style sheet is asked for by
    CORS, and says ``net::ERR_TOO_MANY_RETRIES`` after 32 times.
    """
    key = load_der_x509_certificate(certificate).public_key()
    named = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pin = b64encode(sha256(named).digest()).decode()
    return f"--ignore-certificate-errors-spki-list={pin}"


@dataclass
class Seen:
    """A page, and what went wrong in it since it was opened or last read.

    Attributes:
        page: Playwright's page.
        origin: the one origin that it may ask.
        errors: what its scripts and the browser complained of.
        failed: requests without an answer, or with one of 400 or more.
        elsewhere: requests of another origin.
    """

    page: Any
    origin: str
    folder: Path
    errors: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Begin to keep what goes wrong."""
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._asked)
        self.page.on("requestfailed", self._broke)
        self.page.on("response", self._answered)
        self.page.on("websocket", lambda opened: self._refuse_elsewhere(opened.url))

    def open(self, path: str) -> None:
        """Open a path of the origin."""
        self.page.goto(f"{self.origin}{path}", wait_until="load")

    def see(self, text: str, *, exact: bool = True) -> None:
        """Wait until a text can be seen in the page."""
        found = self.page.get_by_text(text, exact=exact).filter(visible=True).first
        found.wait_for(state="visible")

    def settle(self) -> None:
        """Wait until nothing has been asked for half a second."""
        self.page.wait_for_load_state("networkidle")

    def keep(self, name: str) -> None:
        """Keep a picture of what can be seen."""
        self.page.screenshot(path=self.folder / f"{name}.png")

    def went_wrong(self) -> list[str]:
        """All that went wrong since it was last read."""
        found = [*self.errors, *self.failed, *self.elsewhere]
        for each in (self.errors, self.failed, self.elsewhere):
            each.clear()
        return found

    def _said(self, message: Any) -> None:
        kept_in = "Content Security Policy" in message.text and PHONES_HOME in message.text
        if message.type == "error" and SAID_ANYWAY not in message.text and not kept_in:
            self.errors.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _asked(self, request: Any) -> None:
        self._refuse_elsewhere(request.url)

    def _refuse_elsewhere(self, url: str) -> None:
        parts = urlsplit(url)
        own = urlsplit(self.origin)
        if not url.startswith(INSIDE) and parts.netloc != own.netloc:
            self.elsewhere.append(f"asks elsewhere: {url}")

    def _broke(self, request: Any) -> None:
        # What Prefect's pages would tell others is stopped in the browser, by what guards them.
        if request.failure == "csp" and urlsplit(request.url).netloc.endswith(PHONES_HOME):
            self.elsewhere = [each for each in self.elsewhere if not each.endswith(request.url)]
        # The page itself takes back what it no longer needs, when another one is opened.
        elif request.failure != "net::ERR_ABORTED":
            self.failed.append(f"{request.failure}: {request.method} {request.url}")

    def _answered(self, response: Any) -> None:
        if response.status >= 400:
            self.failed.append(f"{response.status}: {response.request.method} {response.url}")


@contextmanager
def seen(browser: Any, origin: str, folder: Path, login: tuple[str, str]) -> Iterator[Seen]:
    """A page of a browser without any history, which answers where a server asks it for a login.

    Args:
        browser: that of :func:`chromium`.
        origin: the one origin that its pages may ask, as ``https://localhost:8443``.
        folder: where pictures are kept.
        login: the user and the password.
    """
    user, password = login
    asked = {"username": user, "password": password, "origin": origin}
    # What moves on a page while it loads is drawn by the processor, and nobody looks at it.
    context = browser.new_context(
        http_credentials=asked,
        viewport={"width": 1280, "height": 900},
        reduced_motion="reduce",
    )
    context.set_default_timeout(PATIENCE)
    try:
        opened = Seen(context.new_page(), origin, folder)
        opened.watch()
        yield opened
    finally:
        context.close()
