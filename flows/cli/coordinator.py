"""coordinator init, start, status: the one who orders the rounds of a consortium."""

import os
from pathlib import Path
from typing import Annotated

import typer

from federated.errors import ConsiliumError
from flows.cli.options import PARAMS, RUNS, Params, Program, Runs, app, whole_number
from flows.cli.telling import tell

coordinator_app = Program(
    no_args_is_help=True,
    help="The coordinator of a consortium of real sites.",
    epilog="Example: consilium coordinator status",
)
app.add_typer(coordinator_app, name="coordinator")
KIT = Path("consilium-kit.json")


@coordinator_app.command(
    epilog="Example: consilium coordinator init --name fl.example.org --port 8443"
)
def init(
    names: Annotated[
        list[str], typer.Option("--name", help="A host name or address that sites call.")
    ],
    port: Annotated[int, typer.Option(help="The one port.", **whole_number(1, 65535))] = 8443,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "0.0.0.0",  # noqa: S104 - its sites are elsewhere
    url: Annotated[
        str, typer.Option(help="How sites reach it, if not https://NAME:PORT: behind a proxy.")
    ] = "",
    certificate: Annotated[
        Path | None, typer.Option(help="A certificate (PEM) of another authority.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="The private key of --certificate.")] = None,
    kit: Annotated[Path, typer.Option(help="Where the kit for sites is written.")] = KIT,
) -> None:
    """Make the coordinator's home, with its key and certificates, and the kit for its sites."""
    from federated.files import require_writable
    from federated.run.coordinator_home import CoordinatorHome
    from flows.coordinator_life import Address, make_coordinator

    if (certificate is None) != (key is None):
        raise ConsiliumError("--certificate and --key belong together: give both, or none.")
    require_writable(kit.parent, "of --kit", private=False)
    files = [str(path.resolve()) if path else "" for path in (certificate, key)]
    address = Address(
        tuple(names), host, port, url or f"https://{_in_url(names[0])}:{port}", *files
    )
    made = make_coordinator(CoordinatorHome.default(), address)
    made.write(kit)
    tell(f"coordinator {made.url}")
    tell(f"fingerprint {made.coordinator.fingerprint}")
    tell(f"Give {kit} to each site; its people compare the fingerprint with you by telephone.")
    tell("Then: consilium coordinator start")


@coordinator_app.command(epilog="Example: consilium coordinator start")
def start(
    env: Annotated[
        bool, typer.Option("--env", help="Print what a shell needs for its servers, no more.")
    ] = False,
    host: Annotated[str, typer.Option(help="Another address to listen on.")] = "",
    port: Annotated[int, typer.Option(help="Another port.", **whole_number(0, 65535))] = 0,
    params: Params = PARAMS,
    runs: Runs = RUNS,
) -> None:
    """Serve the exchange, Prefect and MLflow at one port, and a deployment for every experiment.

    A run of the consortium is begun by: prefect deployment run fl-round/NAME
    """
    from dataclasses import replace

    from federated.run.coordinator_home import CoordinatorHome
    from flows.coordinator_life import address_of, run_coordinator
    from flows.coordinator_logins import exports

    home = CoordinatorHome.default()
    address = address_of(home)
    if env:
        authority = None if address.chain else home.tls_path / "authority.pem"
        print("\n".join(exports(home, address.url, authority)))
        return
    os.environ.pop("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", None)
    address = replace(address, host=host or address.host, port=port or address.port)
    run_coordinator(home, address, params, runs, tell)


@coordinator_app.command(epilog="Example: consilium coordinator status")
def status(runs: Runs = RUNS) -> None:
    """Show who is enrolled, when each site was heard of last, and the runs that are going on."""
    from federated.run.coordinator_home import CoordinatorHome
    from flows.coordinator_life import status_lines

    for line in status_lines(CoordinatorHome.default(), runs):
        tell(line)


def _in_url(name: str) -> str:
    return f"[{name}]" if ":" in name else name
