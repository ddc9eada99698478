"""site: a hospital's part in a consortium, and what a person there decides of runs."""

import signal
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import Program, app, whole_number
from flows.cli.telling import tell

site_app = Program(
    no_args_is_help=True,
    help="A site of a consortium: its life, and a person's decisions.",
    epilog="Example: consilium site status",
)
app.add_typer(site_app, name="site")

RunId = Annotated[str, typer.Argument(help="The run's id.")]
Home = Annotated[Path | None, typer.Option(help="The site's home, if not CONSILIUM_HOME.")]


@site_app.command(
    epilog="Example: consilium site init clinic-north --kit consilium-kit.json --data /data/fl"
)
def init(
    name: Annotated[str, typer.Argument(help="The site's name in the consortium.")],
    kit: Annotated[Path, typer.Option(help="The coordinator's kit.")],
    data: Annotated[Path, typer.Option(help="The folder that the site's data sets lie in.")],
    policy: Annotated[
        Path | None, typer.Option(help="What the site takes part in; nothing if left out.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the enrolment request is written.")] = Path(),
    generated: Annotated[
        bool, typer.Option("--generated", help="The data are generated ones; results say so.")
    ] = False,
) -> None:
    """Make the site's home with a key that never leaves it, and a request for enrolment."""
    from federated.exchange.kit import Kit
    from flows.site_life import make_site, request_file

    home = make_site(name, kit, data, policy, generated=generated)
    request = request_file(home, out)
    tell(f"site {name} in {home.root}")
    tell(f"fingerprint of this site    {home.identity().public.fingerprint}")
    tell(f"fingerprint of coordinator  {Kit.read(kit).coordinator.fingerprint}")
    tell(f"Send {request} to the coordinator, and compare both fingerprints by telephone.")
    if policy is None:
        tell(f"It takes part in nothing yet: say in {home.policy_path} in what, and then:")
    tell("consilium site check")


@site_app.command(epilog="Example: consilium site check")
def check(home: Home = None) -> None:
    """Look at all that the site needs, from the network to its data, without taking part."""
    from flows.site_life import check_site, site_home

    healthy = True
    for finding in check_site(site_home(home)):
        healthy = healthy and finding.good
        tell(f"{'ok   ' if finding.good else 'WRONG'} {finding.text}")
    if not healthy:
        raise typer.Exit(1)


@site_app.command(epilog="Example: consilium site start")
def start(
    home: Home = None,
    prefect_port: Annotated[
        int,
        typer.Option(
            help="The loopback port of the site's Prefect; 0 for any.", **whole_number(0, 65535)
        ),
    ] = 0,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            help="Also serve numbers for Prometheus at this loopback port.",
            **whole_number(1, 65535),
        ),
    ] = None,
) -> None:
    """Take part in the consortium, by the site's policy, until stopped with Ctrl-C."""
    from flows.ending import end_now
    from flows.preflight import require_servers_and_folders
    from flows.server import configured_api, require_let_in
    from flows.site_life import run_site, site_home, site_prefect
    from flows.site_metrics import serving_metrics

    place, stop = site_home(home), threading.Event()
    configured = configured_api()
    require_servers_and_folders(configured, tracked=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as stack:
        if configured:
            require_let_in(configured)
            tell(f"Prefect of this site: {configured}")
        else:
            api, login = stack.enter_context(site_prefect(place, prefect_port, tell))
            tell(f"Prefect of this site: {api.removesuffix('/api')}, login in {login}")
        if metrics_port:
            stack.enter_context(serving_metrics(place, metrics_port))
        run_site(place, tell, stop)
    # A stage that runs is begun anew, or was stored, when the site is started again.
    end_now()


@site_app.command(epilog="Example: consilium site status")
def status(home: Home = None) -> None:
    """Show what the site's process does, and the last lines of the audit log."""
    from flows.site_life import site_home, status_lines

    for line in status_lines(site_home(home)):
        tell(line)


@site_app.command(epilog="Example: consilium site pause")
def pause(home: Home = None) -> None:
    """Have the site do nothing more until `consilium site resume`."""
    from flows.site_life import set_paused, site_home

    tell(set_paused(site_home(home), paused=True))


@site_app.command(epilog="Example: consilium site resume")
def resume(home: Home = None) -> None:
    """Let a paused site take part again."""
    from flows.site_life import set_paused, site_home

    tell(set_paused(site_home(home), paused=False))


@site_app.command(epilog="Example: consilium site show --home runs/adrenal/RUN/sites/site-00")
def show(home: Home = None) -> None:
    """Show which runs were proposed to the site and wait for a person's decision."""
    from flows.site import open_home, proposal_lines

    for line in proposal_lines(open_home(home)):
        tell(line)


@site_app.command(epilog="Example: consilium site approve 20261126-101010-ab12")
def approve(run: RunId, home: Home = None) -> None:
    """Let the site take part in a run as it is proposed now."""
    from flows.site import decision_line, open_home

    tell(decision_line(open_home(home), run, "approved"))


@site_app.command(epilog="Example: consilium site refuse 20261126-101010-ab12")
def refuse(run: RunId, home: Home = None) -> None:
    """Keep the site out of a run."""
    from flows.site import decision_line, open_home

    tell(decision_line(open_home(home), run, "refused"))
