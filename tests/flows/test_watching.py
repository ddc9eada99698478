"""How far a run is, on a terminal and on the coordinator's page."""

import pytest
from rich.console import Console

from federated.run.status import SiteStatus, run_status, sites_of
from flows.status_page import status_page
from flows.watching import status_lines


def record(number, seconds=2.0, **other):
    return {
        "round": number,
        "sites": ["site-00"],
        "dropped": {"site-01": "late <b>by far</b>"},
        "absent": {},
        "lost": None,
        "metrics": {"val": {"auc": 0.75, "loss": None}},
        "epsilon_rdp": {"site-00": 0.5 * number},
        "seconds": {"total": seconds, "local_train": 1.5, "unmask": 0.0},
        **other,
    }


TOLD = {"site-00": {"budget": 3.0, "epsilon_ledger": 1.25}}


def status(records, state="works", told=TOLD):
    return run_status("organ", "20260101", state, 6, records, sites_of(records, told))


def text_of(found) -> str:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    for part in status_lines(found):
        console.print(part, highlight=False, markup=False)
    return console.export_text()


def test_the_time_left_follows_from_the_newest_rounds():
    assert status([record(1, 4.0), record(2, 2.0)]).seconds_left == pytest.approx(12.0)
    many = [record(1, 1000.0), *(record(n, 1.0) for n in range(2, 7))]
    assert run_status("organ", "x", "works", 9, many, []).seconds_left == pytest.approx(3.0)
    assert status([]).seconds_left is None
    assert status([record(n) for n in range(1, 7)], "done").seconds_left == 0


def test_of_a_private_run_no_time_is_told():
    private = status([record(1) | {"seconds": {"total": None, "local_train": None}}])
    assert private.seconds_left is None
    assert private.stages == {}
    assert "time left not told" in text_of(private)
    assert " s" not in text_of(private).split("\n")[0].replace("time left not told", "")


def test_a_site_has_what_is_left_of_its_budget_and_why_it_is_left_out():
    first, second = status([record(1), record(2)]).sites
    assert first == SiteStatus("site-00", 2, "", 1.0, 1.75)
    assert (second.summed, second.spent, second.left) == (0, None, None)
    lost = status([record(1, lost="nobody opened it")]).sites
    assert [site.summed for site in lost] == [0, 0]


def test_both_renderings_have_the_same_facts():
    found = status([record(1), record(2)])
    terminal, page = text_of(found), status_page(["site-00  enrolled"], [found])
    for fact in ("organ 20260101", "2 of 6 rounds done", "about 0 min 08 s left", "auc 0.750",
                 "local_train 1.5 s", "site-01", "1.75"):  # fmt: skip
        assert fact in terminal, fact
        assert fact in page, fact
    assert "unmask" not in terminal + page


def test_what_a_site_says_is_text_on_the_page_and_in_the_terminal():
    said = "<script>alert(1)</script>\x1b[2J"
    found = status([record(1, dropped={"site-01": said})])
    page = status_page([f"site-09 {said}"], [found])
    assert "<script" not in page
    assert "\x1b" not in page + text_of(found)
    assert "&lt;script&gt;" in page


def test_nothing_that_a_site_says_is_markup():
    said = "cannot read [/data/x.nii] [red]it[/red] :smile:"
    found = status([record(1) | {"dropped": {"site-01": said}}])
    assert said in " ".join(text_of(found).split())


def test_records_of_older_versions_are_shown():
    old = {k: v for k, v in record(1).items() if k not in ("absent", "lost", "epsilon_rdp")}
    assert [site.summed for site in sites_of([old], {})] == [1, 0]
