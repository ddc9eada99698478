"""A page of a coordinator that says how its sites and its runs are, for a browser.

It has no script and asks for nothing. Who wants it to has it loaded anew by itself, which can be
stopped: a page that changes under them is lost on those who read it slowly, or have it read aloud.
What sites have said is in it as text, whatever it holds.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from federated.errors import ConsiliumError, printable
from federated.run.coordinator_home import CoordinatorHome
from federated.run.runs import newest_first
from federated.run.status import RunStatus, Unreadable, status_or_why
from flows.members import members_lines
from flows.progress import counted
from flows.watching import epsilon, time_left

# In seconds, after which it is loaded anew where that is asked for; and how many runs are on it.
ANEW, MOST_RUNS = 15, 10
STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem;
  background: Canvas; color: CanvasText }
table { border-collapse: collapse; width: 100% } progress { width: 100% }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8885 }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
.scroll { overflow-x: auto; container-type: inline-size }
.whole { width: fit-content; min-width: 100% }
.whole::before { content: "→ scroll sideways for more columns"; display: block; overflow: hidden;
  position: sticky; left: 0; aspect-ratio: 10;
  width: clamp(0px, (100% - 100cqw - 1px) * 100, 250px);
  font-size: 14px; line-height: 25px; white-space: nowrap }
li, p { overflow-wrap: anywhere }
"""


def status_of_coordinator(home: CoordinatorHome, runs: Path, anew: bool = False) -> str:
    """The page, as of now.

    Args:
        home: the coordinator's.
        runs: the folder that holds all runs.
        anew: whether a browser is to load it anew by itself.
    """
    try:
        sites = list(members_lines(home))
    except ConsiliumError as error:
        sites = [str(error)]
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    newest = newest_first(runs)[:MOST_RUNS]
    return status_page(sites, map(status_or_why, newest), when, anew)


def status_page(
    sites: Sequence[str],
    statuses: Iterable[RunStatus | Unreadable],
    when: str = "now",
    anew: bool = False,
) -> str:
    """The page as HTML.

    Args:
        sites: lines on the enrolled ones.
        statuses: of the runs that are on it.
        when: as of which time it is.
        anew: whether a browser is to load it anew by itself.
    """
    refresh = f'<meta http-equiv="refresh" content="{ANEW}">' if anew else ""
    again = (
        f'It is loaded anew every {ANEW} s. <a href="/status">Stop that</a>'
        if anew
        else '<a href="/status">Load it again</a> · '
        f'<a href="/status/anew">Have it loaded anew every {ANEW} s</a>'
    )
    lines = "".join(f"<li>{_text(line)}</li>" for line in sites)
    runs = "".join(map(_run, statuses)) or "<p>There is no run yet.</p>"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'{refresh}<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>Consilium</title><style>{STYLE}</style></head>'
        f"<body><main><h1>Consilium</h1><p>As of {_text(when)}. {again}</p>"
        f"<h2>Sites</h2><ul>{lines}</ul><h2>Runs</h2>{runs}"
        '<p><a href="/prefect/">Prefect</a> · <a href="/mlflow/">MLflow</a></p>'
        "</main></body></html>"
    )


def _run(status: RunStatus | Unreadable) -> str:
    head = f"{status.experiment} {status.run}"
    if isinstance(status, Unreadable):
        return f"<section><h3>{_text(head)}</h3><p>{_text(status.why)}</p></section>"
    label = f"{status.done} of {counted(status.rounds, 'round')} done"
    metrics = ", ".join(f"{name} {value:.3f}" for name, value in status.metrics.items())
    stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in status.stages.items())
    rows = "".join(
        f'<tr><th scope="row">{_text(site.name)}</th><td class="n">{site.summed}</td>'
        f'<td class="n">{epsilon(site.spent)}</td><td class="n">{epsilon(site.left)}</td>'
        f"<td>{_text(site.why_not)}</td></tr>"
        for site in status.sites
    )
    return (
        f"<section><h3>{_text(head)}</h3><p>{_text(status.state)}: {_text(label)}, "
        f"{_text(time_left(status))}</p>"
        f'<progress aria-label="{_text(label)}" max="{status.rounds}" value="{status.done}">'
        "</progress>"
        + (f"<p>Validation: {_text(metrics)}</p>" if metrics else "")
        + (f"<p>The newest round: {_text(stages)}</p>" if stages else "")
        + f'<div class="scroll" tabindex="0" role="region" aria-label="Sites of {_text(head)}">'
        '<div class="whole"><table><thead><tr><th scope="col">site</th><th scope="col" class="n">'
        'rounds in the sum</th><th scope="col" class="n">ε spent</th><th scope="col" class="n">'
        f'ε left</th><th scope="col">why not</th></tr></thead><tbody>{rows}</tbody></table>'
        "</div></div></section>"
    )


def _text(told: str) -> str:
    return escape(printable(told))
