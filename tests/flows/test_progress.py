import re
from io import StringIO

import pytest
from rich.console import Console

from federated.protection import CKKS, Cohort, SecAggPlus
from federated.protection.keys import PublicContext
from flows.describe import protection_lines
from flows.progress import begins, listener, shown_on

METRICS = {"auc": 0.8765, "accuracy": 0.7, "loss": 0.5}


def play(console: Console) -> str:
    begins("nobody looks yet")
    with shown_on(console):
        tell = listener()
        begins("validating the data")
        tell.round_started(1, 2, ["site-00", "site-01"])
        tell.site_done("site-00", "local-train", "loss 0.500")
        tell.round_done(1, 2, METRICS, 1.25)
    assert listener() is None
    return console.file.getvalue()


def test_plain_lines_where_there_is_no_terminal():
    shown = play(Console(file=StringIO(), force_terminal=False))
    assert shown.splitlines() == [
        "validating the data …",
        "2 rounds at 2 sites",
        "round 1/2: validation auc 0.876, accuracy 0.700, loss 0.500 (1.2 s)",
    ]


def test_a_live_display_on_a_terminal():
    shown = play(Console(file=StringIO(), force_terminal=True, width=100))
    assert "site-00 local-train loss 0.500" in shown
    assert "round 1/2: validation auc 0.876" in shown
    assert "validating the data" in shown


@pytest.mark.parametrize("width", [60, 80])
def test_beside_what_is_drawn_over_a_terminal_has_room_for_what_it_writes_itself(width):
    """Its `^C`: on a line of its own it left a bar behind, since one line too few was removed."""
    shown = play(Console(file=StringIO(), force_terminal=True, width=width))
    drawn = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).replace("\r", "\n").splitlines()
    bars = [line for line in drawn if "━" in line]
    assert len(bars) > 2
    assert max(map(len, bars)) <= width - 3


def test_a_metric_that_is_not_defined_is_left_out():
    console = Console(file=StringIO(), force_terminal=False)
    with shown_on(console):
        listener().round_done(1, 1, METRICS | {"auc": None}, 1.0)
    assert console.file.getvalue() == "round 1/1: validation accuracy 0.700, loss 0.500 (1.0 s)\n"


def test_what_protects_updates_is_told_with_its_numbers():
    assert protection_lines({"name": "plain"}) == []
    public = PublicContext(CKKS().parameters(1000, Cohort(10, 10, 20, None)), "key")
    (line,) = protection_lines(CKKS().report(Cohort(10, 10, 20, None), public))
    assert "at least 3 sites are opened, at most 400 of them" in line
    assert "40 bits of statistical security, off by" in line
    public = PublicContext(CKKS().parameters(1000, Cohort(10, 10, 20, 8)), "key")
    (line,) = protection_lines(CKKS().report(Cohort(10, 10, 20, 8), public))
    assert line.endswith("and exact")
    (line,) = protection_lines(SecAggPlus().report(Cohort(10, 10, 20, 8), None))
    assert line.endswith("7 of 10 holders of a site's shares are needed")
