"""The pages of runs and comparisons in a real browser, as people see them.

axe-core is looked for where npm puts it: `npm install --prefix build/browser axe-core`. It is never
a part of a page, nor of this project.
"""

import json
from pathlib import Path

import pytest

from federated.report.comparison_page import comparison_page
from federated.report.run_page import run_page
from tests.browser import FOUND, Page, browser
from tests.conftest import PROJECT
from tests.federated.report.made_runs import DP_SGD, made_comparison, made_run

AXE = PROJECT / "build" / "browser" / "node_modules" / "axe-core" / "axe.min.js"
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(FOUND is None, reason="there is no Chromium (apt-get install chromium)"),
]
WIDTHS = (1280, 390)
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    classes = [f"organ {letter}" for letter in "abcdefghijk"]
    made = {
        "private": run_page(made_run(changes={"privacy": DP_SGD})),
        "many": run_page(made_run(classes=classes, sites=[f"site-{n:02d}" for n in range(9)])),
        "segmented": run_page(
            made_run("segmentation", ("background", "anterior", "posterior"), source="phantom")
        ),
        "compared": comparison_page(
            made_comparison(["fedavg", "fedprox:mu=0.1", "local"], 3, {"fedprox:mu=0.1": 4.0})
        ),
    }
    for name, html in made.items():
        (folder / f"{name}.html").write_text(html)
    return {name: folder / f"{name}.html" for name in made}


@pytest.fixture(scope="module")
def page():
    with browser() as tab:
        yield tab


def test_pages_load_nothing_and_say_nothing_on_the_console(page: Page, pages):
    for path in pages.values():
        page.show(path)
    assert page.said == []
    assert all(url.startswith(("file:", "data:")) for url in page.requests), page.requests


def test_no_page_is_wider_than_the_window(page: Page, pages):
    for name, path in pages.items():
        for width in WIDTHS:
            page.show(path, width)
            assert page.run("document.documentElement.scrollWidth") <= width, (name, width)


def test_the_style_is_applied_and_follows_light_and_dark(page: Page, pages):
    colours = []
    for dark in (False, True):
        page.show(pages["private"], dark=dark)
        colours.append(page.run("getComputedStyle(document.body).backgroundColor"))
    assert colours[0] == "rgb(255, 255, 255)"
    assert colours[1] == "rgb(17, 22, 28)"
    page.show(pages["private"], dark=True, media="print")
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.run("getComputedStyle(document.querySelector('nav')).display") == "none"


def test_markup_that_got_into_a_page_by_mistake_does_nothing(page: Page, pages, tmp_path):
    evil = "<script>document.title = 'taken'</script><p id=p style='color: red'>x</p>"
    evil += "<img src=x onerror=\"document.title = 'taken'\">"
    html = pages["private"].read_text().replace("<main", f"{evil}<main")
    (tmp_path / "evil.html").write_text(html)
    page.show(tmp_path / "evil.html")
    assert page.run("document.title").endswith("report")
    assert page.run("getComputedStyle(document.querySelector('#p')).color") != "rgb(255, 0, 0)"
    # It was stopped, and said so.
    assert any("Content Security Policy" in said for said in page.said)
    page.said.clear()


def test_a_column_sorts_up_and_down_by_its_numbers(page: Page, pages):
    page.show(pages["compared"])
    labels = "[...document.querySelectorAll('table.sortable')[0].tBodies[0].rows]"
    labels += ".map((row) => row.cells[0].textContent.trim())"
    press = "document.querySelectorAll('table.sortable')[0].tHead.rows[0].cells[2]"
    press += ".querySelector('button').click()"
    page.run(press)
    assert page.run(labels) == ["local", "fedprox:mu=0.1", "fedavg"]
    page.run(press)
    assert page.run(labels) == ["fedavg", "fedprox:mu=0.1", "local"]
    assert page.run("document.querySelectorAll('th[aria-sort]').length") == 1


def test_pages_print_as_pdf(page: Page, pages, tmp_path):
    page.show(pages["private"])
    page.printed(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.skipif(not AXE.is_file(), reason="there is no axe-core in build/browser")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_no_serious_fault(page: Page, pages, dark):
    for name, path in pages.items():
        for width in WIDTHS:
            page.show(path, width, dark)
            page.run(AXE.read_text() + "; 0")
            found = json.loads(page.run("axe.run().then((told) => JSON.stringify(told))"))
            serious = [
                (one["id"], [node["html"][:200] for node in one["nodes"][:3]])
                for one in found["violations"]
                if one["impact"] in SERIOUS
            ]
            assert not serious, (name, width, serious)
            assert len(found["passes"]) > 20
