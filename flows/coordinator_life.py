"""The life of a consortium's coordinator: how its home is made, who is enrolled, and its servers.

A coordinator's home lies below ``CONSILIUM_HOME``, in ``coordinator``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from federated.errors import ConsiliumError, unreadable
from federated.exchange.enrolment import Enrolment
from federated.exchange.https.begun import BegunRuns
from federated.exchange.https.certificates import Authority, Certificates, given_certificates
from federated.exchange.https.office import MembersFile, Office, RefusalLog
from federated.exchange.identity import PublicIdentity
from federated.exchange.journal import JournalledExchange
from federated.exchange.kit import Kit, read_request
from federated.files import PRIVATE, locked, make_folders, read_json, write_json
from federated.provenance import code_digest, own_program, own_versions
from federated.run.coordinator_home import CoordinatorHome
from flows.members import members_lines


@dataclass(frozen=True)
class Address:
    """Where a coordinator listens, and how it is reached.

    Attributes:
        names: the host names and addresses that its certificate is for, the first one first.
        host: the address that it listens on.
        port: the port.
        url: how sites reach it, where that is another address: behind a reverse proxy.
        chain: the file of given certificates; empty for those of the consortium's own authority.
        key: the file of their private key.
    """

    names: tuple[str, ...]
    host: str
    port: int
    url: str
    chain: str = ""
    key: str = ""


def make_coordinator(home: CoordinatorHome, address: Address) -> Kit:
    """Make the home of a coordinator, with its key and its certificates; return its kit.

    What is there already stays; where it listens can be changed.

    Raises:
        ConsiliumError: a name is none, a certificate cannot be used, or others can open the home.
    """
    identity = home.make_identity()
    for folder in (home.exchange_path, home.seen_path):
        make_folders(folder, private=True)
    certificates_of(home, address)
    write_json(home.settings_path, asdict(address), PRIVATE)
    authority = "" if address.chain else Authority(home.tls_path).certificate()
    return Kit(address.url, authority, identity.public)


def address_of(home: CoordinatorHome) -> Address:
    """Where a coordinator listens.

    Raises:
        ConsiliumError: there is no coordinator, or its settings cannot be read.
    """
    home.identity()
    try:
        value = dict(read_json(home.settings_path))
        return Address(**(value | {"names": tuple(value["names"])}))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise unreadable(home.settings_path, error) from error


def certificates_of(home: CoordinatorHome, address: Address) -> Certificates:
    """What the coordinator's server shows.

    Raises:
        ConsiliumError: a file cannot be read, or a name is none.
    """
    if address.chain:
        return given_certificates(Path(address.chain), Path(address.key))
    return Authority(home.tls_path).certificates(address.names)


def run_coordinator(
    home: CoordinatorHome,
    address: Address,
    params: Path,
    runs: Path,
    say: Callable[[str], None],
) -> None:
    """Serve the exchange, Prefect, MLflow and a deployment for every experiment, until it is ended.

    Args:
        home: the coordinator's.
        address: where it listens.
        params: the parameter file.
        runs: the folder that holds all runs.
        say: tells a person something.

    Raises:
        ConsiliumError: a database, a certificate or the port cannot be used.
    """
    # Servers take seconds to import, and are not needed to make a coordinator or to enrol a site.
    from federated.exchange.https.server import exchange_app
    from flows.coordinator_front import Told
    from flows.coordinator_metrics import CoordinatorMetrics
    from flows.coordinator_server import front_server, servers_behind, serving_deployments
    from flows.databases import databases_of

    certificates = certificates_of(home, address)
    databases = databases_of(home)
    office = office_of(home)
    say(f"starting Prefect and MLflow, some 20 seconds; their data: {databases.told}")
    with servers_behind(home, databases) as behind:
        server = front_server(
            home, exchange_app(office), behind, certificates, address.host, address.port,
            refused_connections(home, office),
            Told(CoordinatorMetrics(home).text, partial(_status_page, home, runs)),
        )  # fmt: skip
        with serving_deployments(home, behind, params, runs):
            say(f"coordinator at {address.url}, port {server.port} of {address.host}")
            say(f"Prefect {address.url}/prefect/   MLflow {address.url}/mlflow/")
            say(f"sites and runs: {address.url}/status")
            say("`consilium coordinator start --env` prints what another terminal needs")
            server.run()


def _status_page(home: CoordinatorHome, runs: Path, anew: bool) -> str:
    """The page on sites and runs; records of runs are read with torch, which nobody else needs."""
    from flows.status_page import status_of_coordinator

    return status_of_coordinator(home, runs, anew)


def office_of(home: CoordinatorHome) -> Office:
    """What the exchange's server serves: the enrolled sites, and of them what belongs to a run.

    Raises:
        ConsiliumError: there is no coordinator.
    """
    identity, exchange = home.identity().public, JournalledExchange(home.exchange_path)
    return Office(
        identity.consortium,
        MembersFile(home.members_path),
        exchange,
        home.audit,
        home.seen_path,
        versions=own_versions() | {"code": code_digest()},
        accepts=BegunRuns(exchange, identity),
    )


def refused_connections(home: CoordinatorHome, office: Office) -> Callable[[str, str], None]:
    """What a server tells of connections that it refuses: an address, and why.

    Whoever connects is nobody that is known, and may do so at any rate: the audit log has so many
    lines a minute of all of them together as the office allows a party, and how many more.
    """
    log = RefusalLog(home.audit, office.limits.audit_lines, office.clock, "connection")
    return lambda address, why: log.add("", why, address=address)


def enrol(home: CoordinatorHome, file: Path, fingerprint: str | None) -> PublicIdentity:
    """Enrol the site that has written a request; return who it is.

    Args:
        home: the coordinator's.
        file: the request.
        fingerprint: what was told by telephone; it is compared where it is given.

    Raises:
        ConsiliumError: the request is none, its fingerprint is another one, or another site has
            its name or its key.
    """
    home.identity()
    found = read_request(file)
    if fingerprint is not None and _digits(fingerprint) != _digits(found.fingerprint):
        raise ConsiliumError(
            f"The fingerprint of {found.name} in {file} is {found.fingerprint}, and not "
            f"{fingerprint}. The file is not the one that the site has written: it is not enrolled."
        )
    _change(home, lambda members: members.enrol(found))
    home.audit.add("enrolled", site=found.name, fingerprint=found.fingerprint)
    return found


def suspend(home: CoordinatorHome, name: str) -> None:
    """Take nothing of a site any more, and give it nothing, until it is enrolled again.

    Raises:
        ConsiliumError: there is no such site.
    """
    _change(home, lambda members: members.suspend(name))
    home.audit.add("suspended", site=name)


def remove(home: CoordinatorHome, name: str) -> None:
    """Forget a site.

    Raises:
        ConsiliumError: there is no such site.
    """
    _change(home, lambda members: members.remove(name))
    home.audit.add("removed", site=name)


def _digits(fingerprint: str) -> str:
    return "".join(fingerprint.split()).replace(":", "").lower()


def _change(home: CoordinatorHome, change: Callable[[Enrolment], Enrolment]) -> None:
    """Change the list of members, as one process at a time does."""
    home.identity()
    with locked(home.root / "members.lock"):
        change(home.members()).write(home.members_path)


def status_lines(home: CoordinatorHome, runs: Path) -> Iterator[str]:
    """Lines with who the coordinator is, its sites, and its runs that are being worked on.

    Raises:
        ConsiliumError: there is no coordinator.
    """
    from federated.run.folder import RunFolder
    from federated.run.runs import being_worked_on

    identity, address = home.identity().public, address_of(home)
    yield f"coordinator {address.url}, fingerprint {identity.fingerprint}"
    yield f"program {own_program()}"
    yield from members_lines(home)
    folders: Sequence[Path] = sorted(path.parent for path in runs.glob("*/*/config.json"))
    for folder in map(RunFolder, folders):
        if folder.root.name == "latest":
            continue
        try:
            if not being_worked_on(folder):
                continue
            paused = ", paused" if folder.paused_path.is_file() else ""
            said = f"{folder.done_rounds()} of {folder.experiment().rounds} rounds done{paused}"
        except ConsiliumError as error:
            said = str(error)
        yield f"run {folder.root.parent.name} {folder.run_id}: {said}"
