from io import StringIO

from rich.console import Console

from flows.progress import listener, shown_on

METRICS = {"auc": 0.8765, "accuracy": 0.7, "loss": 0.5}


def play(console: Console) -> str:
    with shown_on(console):
        tell = listener()
        tell.round_started(1, 2, ["site-00", "site-01"])
        tell.site_done("site-00", "local-train", "loss 0.500")
        tell.round_done(1, 2, METRICS, 1.25)
    assert listener() is None
    return console.file.getvalue()


def test_plain_lines_where_there_is_no_terminal():
    shown = play(Console(file=StringIO(), force_terminal=False))
    assert shown.splitlines() == [
        "2 rounds at 2 sites",
        "round 1/2: validation auc 0.876, accuracy 0.700, loss 0.500 (1.2 s)",
    ]


def test_a_live_display_on_a_terminal():
    shown = play(Console(file=StringIO(), force_terminal=True, width=100))
    assert "site-00 local-train loss 0.500" in shown
    assert "round 1/2: validation auc 0.876" in shown


def test_a_metric_that_is_not_defined_is_left_out():
    console = Console(file=StringIO(), force_terminal=False)
    with shown_on(console):
        listener().round_done(1, 1, METRICS | {"auc": None}, 1.0)
    assert console.file.getvalue() == "round 1/1: validation accuracy 0.700, loss 0.500 (1.0 s)\n"
