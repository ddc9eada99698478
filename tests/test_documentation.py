"""README and docs: links that lead somewhere, a site that builds, pages of the program."""

import hashlib
import os
import re
import subprocess
import sys
import threading
import tomllib
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flows.reference import pages
from tests.browser import FOUND, browser
from tests.conftest import PROJECT
from tests.documented_commands import PAGES

LINK = re.compile(r"!?\[[^\]]*\]\(([^)#\s]*)(#[^)\s]*)?\)")
CODE = re.compile(r"^ *```.*?^ *```$|`[^`]*`", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as a forge makes them."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    made = set()
    for title in HEADING.findall(text):
        plain = re.sub(r"[^\w\- ]", "", title.lower().strip())
        made |= {plain.replace(" ", "-"), re.sub(r"[-\s]+", "-", plain)}
    return made


def broken(page: Path) -> list[str]:
    """The links of a page that lead to no file, or to no heading of it."""
    found = []
    for path, anchor in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        if path.startswith(("http:", "https:", "mailto:")):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (
            anchor and target.suffix == ".md" and anchor[1:] not in anchors(target)
        ):
            found.append(f"{page.relative_to(PROJECT)}: {path}{anchor}")
    return found


def test_every_link_leads_to_a_file_and_a_heading_that_are_there():
    everywhere = [*PAGES, PROJECT / "CHANGELOG.md"]
    assert [link for page in everywhere for link in broken(page)] == []


def test_a_link_that_leads_nowhere_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.PROJECT", tmp_path)
    (tmp_path / "other.md").write_text("# One\n")
    page = tmp_path / "page.md"
    page.write_text("# P\n[a](no.md) [b](other.md#two) [c](other.md#one) [d](#p) ![e](e.png)\n")
    assert broken(page) == ["page.md: no.md", "page.md: other.md#two", "page.md: e.png"]


@pytest.mark.parametrize("name", ["cli.md", "params.md", "api.md"])
def test_the_reference_is_that_of_the_program(name):
    """Otherwise: make reference."""
    assert (PROJECT / "docs" / "reference" / name).read_text(encoding="utf-8") == pages()[name]


def test_the_badges_say_what_the_project_says():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    shown = {
        name: (PROJECT / "docs" / "pictures" / f"{name}.svg").read_text(encoding="utf-8")
        for name in ("licence", "python")
    }
    assert f": {project['license']}<" in shown["licence"]
    assert f": {project['requires-python'].replace('>=', '≥ ')}<" in shown["python"]


def test_a_table_of_results_between_marks_is_that_of_the_command_above_it():
    """Its mark is a digest of the command: `consilium compare --results FILE` writes both."""
    pages = (PROJECT / "docs").rglob("results*/*.md")
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    marked = re.findall(r"<!-- table (\w+) -->\n(.*)\n(?s:.*?)<!-- end of table \1 -->", text)
    assert len(marked) >= 4
    for mark, command in marked:
        assert hashlib.sha256(command.encode()).hexdigest()[:8] == mark, command


class Loads(HTMLParser):
    """What a page has a browser load, without being asked."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video"):
            self.found.append(given.get("src") or "")
        elif tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.found.append(given.get("href") or "")
        if "mermaid" in (given.get("class") or ""):
            self.found.append("https: the theme loads what draws such a diagram")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The documentation as a site, built as `make docs` does.

    Without `--quiet`, by which MkDocs hears of no warning, and `--strict` finds nothing.
    """
    folder = tmp_path_factory.mktemp("site")
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    pytest.importorskip("mkdocstrings", reason="the extra docs is not installed")
    (flags,) = re.findall(
        r"-m mkdocs build (.*)$", (PROJECT / "Makefile").read_text(), re.MULTILINE
    )
    assert flags == "--strict"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", flags, "-d", str(folder)],
        cwd=PROJECT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(site):
    built = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    docs = PROJECT / "docs"
    wanted = {
        page.relative_to(docs).with_suffix(".html").as_posix().replace("README", "index")
        for page in docs.rglob("*.md")
    }
    assert built >= wanted | {"changelog.html", "contributing.html", "security.html"}
    for name in built:
        page = Loads()
        page.feed((site / name).read_text(encoding="utf-8"))
        assert [each for each in page.found if re.match(r"https?:|//", each)] == [], name
    api = (site / "reference" / "api.html").read_text(encoding="utf-8")
    assert "load_experiment" in api
    assert "Resolve an experiment of params.yaml" in api


@pytest.fixture(scope="module")
def served(site):
    """The address of the site, from this machine alone."""
    answer = partial(SimpleHTTPRequestHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), answer) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.skipif(FOUND is None, reason="there is no Chromium (apt-get install chromium)")
def test_pages_of_the_site_work_in_a_browser_and_can_be_read_by_everybody(served):
    """Those that people land on, and one of each kind: commands, settings, results."""
    names = ("index", "tutorial", "reference/cli", "how-to/calibration", "results/adrenal")
    with browser() as page:
        for dark in (False, True):
            # Or the theme goes on with what it chose before.
            page.show(f"{served}/index.html", dark=dark)
            page.run("localStorage.clear()")
            for name in names:
                for width in (1280, 390):
                    page.show(f"{served}/{name}.html", width, dark)
                    shown = page.run("getComputedStyle(document.body).backgroundColor")
                    assert (sum(map(int, re.findall(r"\d+", shown)[:3])) < 300) == dark, name
                    wide = page.run("document.documentElement.scrollWidth")
                    assert wide <= width, (name, width, wide)
                    assert page.faults() == [], (name, dark, width)
        assert page.said == []
        assert all(url.startswith((served, "data:", "blob:")) for url in page.requests)


@pytest.mark.skipif(FOUND is None, reason="there is no Chromium (apt-get install chromium)")
def test_docs_load_from_a_disk_without_console_errors_and_can_be_searched(site):
    result = "[...document.querySelectorAll('.md-search-result__item a')].map((a) => a.href).join()"
    with browser() as page:
        for name in ("index", "tutorial", "how-to/release", "reference/cli"):
            page.show(site / f"{name}.html")
            # As somebody types it, who waits for an answer.
            page.run("document.querySelector('label[for=__search]').click()")
            page.run(
                "(() => { const field = document.querySelector('.md-search__input'); field.focus();"
                " field.value = 'dossier'; field.dispatchEvent(new KeyboardEvent('keyup')); })()"
            )
            found = page.run(
                f"new Promise((done) => {{ const look = () => {result} ? done({result})"
                " : setTimeout(look, 50); look(); setTimeout(() => done('nothing'), 20000); })"
            )
            assert "release.html" in found, name
        assert page.said == []
        assert all(url.startswith(("file:", "data:", "blob:", "about:")) for url in page.requests)
