"""Pages of runs, comparisons, releases and a coordinator in a real browser, as people see them."""

from pathlib import Path

import pytest

from federated.release.card_text import card_page
from federated.report.comparison_page import comparison_page
from federated.report.run_page import run_page
from flows.status_page import status_page
from tests.browser import FOUND, Page, browser
from tests.federated.release.test_card import card
from tests.federated.report.made_runs import DP_SGD, made_comparison, made_run
from tests.federated.report.test_run_page import with_confusion
from tests.flows.test_watching import record, status

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(FOUND is None, reason="there is no Chromium (apt-get install chromium)"),
]
WIDTHS = (1280, 390)
# The longest names of classes that a set here has so many of.
ORGANS = (
    *("bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right"),
    *("liver", "lung-left", "lung-right", "pancreas", "spleen"),
)
# Labels as people combine and vary them, and one that has no place to break.
LONG = (
    "fedprox+tl+medhe+bfv-100:mu=0.1;server_lr=0.001;local_epochs=5",
    "scaffold_" + "0123456789abcdef" * 4,
)


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    under_way = status([record(1), record(2)])
    calibrates = {"calibration": "temperature", "conformal": {"alpha": 0.2}}
    made = {
        "private": run_page(made_run(changes={"privacy": DP_SGD})),
        "many": run_page(made_run(classes=ORGANS, sites=[f"site-{n:02d}" for n in range(9)])),
        "segmented": run_page(
            made_run("segmentation", ("background", "anterior", "posterior"), source="phantom")
        ),
        "collapsed": run_page(with_confusion(made_run(), [[180, 0], [60, 0]])),
        "status": status_page(["site-00  enrolled", "site-01  suspended"], [under_way]),
        "calibrated": run_page(made_run(changes={"evaluation": calibrates})),
        "card": card_page(card(made_run())),
        "compared": comparison_page(
            made_comparison(["fedavg", "fedprox:mu=0.1", "local"], 3, {"fedprox:mu=0.1": 4.0})
        ),
        "labelled": comparison_page(made_comparison(["fedavg", *LONG], 3, {LONG[1]: 4.0})),
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


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_no_serious_fault(page: Page, pages, width, dark):
    for name, path in pages.items():
        page.show(path, width, dark)
        assert page.faults() == [], name


def test_axe_finds_what_nobody_could_read_or_hear(page: Page, tmp_path):
    """Otherwise the test above could never fail."""
    grey = "<style>p { color: #bbb; background: #fff }</style><p>Hardly to be seen</p>"
    faulty = f"<!doctype html><html><title>x</title><main>{grey}<img src='data:,'></main></html>"
    (tmp_path / "faulty.html").write_text(faulty)
    page.show(tmp_path / "faulty.html")
    found = {fault.partition(":")[0] for fault in page.faults()}
    assert found >= {"color-contrast", "image-alt", "html-has-lang"}


CUT = "(e) => e.scrollWidth > e.clientWidth"
CUE = "getComputedStyle(e.firstElementChild, '::before')"


def test_a_table_that_is_cut_off_says_so_and_scrolls_by_keyboard(page: Page, pages):
    """And one that is whole says nothing."""
    for name, path in pages.items():
        for width in WIDTHS:
            page.show(path, width)
            page.run("window.cut = [...document.querySelectorAll('.scroll')]; 0")
            told = page.run(
                f"cut.map((e) => [({CUT})(e), parseFloat({CUE}.height), e.ariaLabel, e.tabIndex])"
            )
            for is_cut, height, label, tab in told:
                assert (height > 15) == is_cut, (name, width, label, height)
                assert tab == 0
            if name == "many" and width == 390:
                assert any(is_cut for is_cut, *_ in told)
    page.run("window.one = cut.find((e) => e.scrollWidth > e.clientWidth); one.focus(); 0")
    for kind in ("keyDown", "keyUp"):
        key = {"key": "ArrowRight", "code": "ArrowRight", "windowsVirtualKeyCode": 39}
        page.call("Input.dispatchKeyEvent", type=kind, **key)
    moved = "new Promise((done) => setTimeout(() => done(one.scrollLeft), 300))"
    assert page.run(moved) > 0


def test_the_main_metrics_are_whole_on_a_phone(page: Page, pages):
    page.show(pages["private"], 390)
    place = "document.querySelector('[aria-label=\"Metrics over the cases of all sites\"]')"
    assert page.run(f"{place}.scrollWidth <= {place}.clientWidth")
    # And where a table is not, there is a shadow at the edge that it goes on beyond.
    assert page.run(f"getComputedStyle({place}).backgroundImage.split('linear').length") == 5


def test_a_confusion_of_eleven_classes_is_whole_at_1280_pixels(page: Page, pages):
    page.show(pages["many"], 1280)
    place = "document.querySelector('table.confusion').closest('.scroll')"
    assert page.run(f"{place}.scrollWidth <= {place}.clientWidth")
    heads = "[...document.querySelectorAll('table.confusion thead th span')]"
    assert page.run(f"{heads}.map((e) => e.textContent)") == [*ORGANS]
    # Each stands over its column, and is not cut.
    assert page.run(f"{heads}.every((e) => e.scrollHeight <= e.clientHeight + 1)")


def test_long_labels_are_whole_on_a_phone_beside_what_they_label(page: Page, pages):
    page.show(pages["labelled"], 390)
    rights = "[...document.querySelectorAll('{}')].map((one) => one.getBoundingClientRect().right)"
    for labels, most in ((".legend li", 390), (".named > span", 235), ("li, p, figcaption", 390)):
        found = page.run(rights.format(labels))
        assert len(found) > 2
        assert max(found) <= most, labels
    # A short one takes no more room than it has letters for.
    assert page.run(rights.format(".named > span"))[0] < 120
